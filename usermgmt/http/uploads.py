"""Bodies that are files: longer than what is parsed in memory, kept on disk until they are dealt with."""

import asyncio
import tempfile
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from quart import Quart, request

from usermgmt.errors import BodyTooLarge, RequestTimeout, UnsupportedMediaType
from usermgmt.http.context import runtime

IN_MEMORY = 1 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a request brought. Whoever takes it closes it."""

    file: BinaryIO
    media_type: str


def install(app: Quart, paths: frozenset[str], most: int) -> None:
    """Let the bodies of requests to these paths have up to `most` bytes."""
    if not paths:
        return

    class FileRequest(app.request_class):  # type: ignore[misc, name-defined]  # what the application has
        def __init__(
            self, method: str, scheme: str, path: str, *rest: Any, max_content_length: int | None = None, **options: Any
        ) -> None:
            bound = most if path in paths else max_content_length
            super().__init__(method, scheme, path, *rest, max_content_length=bound, **options)

    app.request_class = FileRequest


async def read_upload(media_types: tuple[str, ...]) -> Upload:
    """The body as a file. Refused: `UnsupportedMediaType` (415), `BodyTooLarge` (413), `RequestTimeout` (408)."""
    if request.mimetype not in media_types or request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType(f"Send the file as {' or '.join(media_types)}.")
    file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - whoever takes it closes it
    try:
        await _receive(cast("BinaryIO", file))
    except BaseException:
        file.close()
        raise
    return Upload(cast("BinaryIO", file), request.mimetype)


async def _receive(file: BinaryIO) -> None:
    """Write the body to a file. A client may pause for no longer than a request takes, nor be slower on the whole than
    `server.min_bytes_per_second`.
    """
    settings, loop = runtime().settings.server, asyncio.get_running_loop()
    began, received = loop.time(), 0
    pieces = aiter(request.body)
    while True:
        latest = min(began + settings.transfer_seconds(received), loop.time() + settings.transfer_seconds(0))
        try:
            async with asyncio.timeout_at(latest):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise RequestTimeout from error
        if piece is None:
            break
        received += len(piece)
        if received > settings.max_upload_bytes:
            raise BodyTooLarge
        await asyncio.to_thread(file.write, piece)
    file.seek(0)
