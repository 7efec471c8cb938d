"""Answers of any length in constant memory: one JSON document a line (application/x-ndjson)."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from quart import Response, request

from usermgmt.http.answers import encode

NDJSON = "application/x-ndjson"


def wants_stream() -> bool:
    """Whether the client asks for a stream rather than a page."""
    return request.accept_mimetypes.best_match(["application/json", NDJSON], "application/json") == NDJSON


def streamed(batches: AsyncIterator[Sequence[Any]]) -> Response:
    """A stream of documents, made batch by batch while the client reads. A fault cuts it off without its end."""

    async def lines() -> AsyncIterator[bytes]:
        async for batch in batches:
            yield b"".join(encode(document) + b"\n" for document in batch)

    response = Response(lines(), content_type=NDJSON)
    response.timeout = None  # how long it takes is the client's to say
    return response
