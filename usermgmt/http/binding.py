"""Between the pipeline and a handler: the body and the query are read as the handler's own signature says.

A handler that takes `body` gets its JSON body, one that takes `upload` its body as a file, one that takes `query` its
query string; the documentation reads the same annotations. A handler that takes no query refuses every parameter.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel
from quart import Response, request
from quart.globals import request_ctx

from usermgmt.errors import Unavailable
from usermgmt.http.access import View, marks_of
from usermgmt.http.body import JSON_TYPES, MERGE_PATCH_TYPES, read_body, read_optional_body, read_query, refuse_query
from usermgmt.http.context import runtime
from usermgmt.http.requests import DirectRequest
from usermgmt.http.uploads import read_upload


class TookTooLong(Unavailable):
    """The server did not finish within `server.request_timeout`."""

    code = "took_too_long"
    detail = "The server did not finish in time. Try again."


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a handler takes beside its path."""

    body: type[BaseModel] | None
    is_body_optional: bool
    query: type[BaseModel] | None
    media_types: tuple[str, ...] = ()


def inputs_of(view: View) -> Inputs:
    """Read a handler's signature."""
    parameters = inspect.signature(view, eval_str=True).parameters
    body = parameters["body"].annotation if "body" in parameters else None
    query = parameters["query"].annotation if "query" in parameters else None
    options = [option for option in get_args(body) if option is not NoneType]
    return Inputs(
        body=options[0] if options else body,
        is_body_optional=bool(options),
        query=query,
        media_types=marks_of(view).media_types,
    )


def bound(view: View) -> Callable[..., Awaitable[Response]]:
    """The view that the application calls: reads what the handler takes, calls it, and bounds its time."""
    inputs = inputs_of(view)

    @functools.wraps(view)
    async def call(**arguments: Any) -> Response:  # whatever the path holds
        await _read(inputs, arguments)  # how long a client may take is the framework's to bound (408)
        work = _timed(view, arguments)
        return await (work if isinstance(request_ctx.request, DirectRequest) else _finished(work))

    return call


async def _timed(view: View, arguments: dict[str, Any]) -> Response:
    try:
        async with asyncio.timeout(runtime().settings.server.request_timeout.total_seconds()):
            response: Response = await view(**arguments)
            return response
    except TimeoutError as error:
        raise TookTooLong from error


async def _finished(work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work to its end even when its client hangs up, which the framework would stop: a transaction is never
    cut in half, which on SQLite can leave the file locked.
    """
    doing = asyncio.ensure_future(work)
    _UNDER_WAY.add(doing)
    doing.add_done_callback(_forget)
    return await asyncio.shield(doing)


def _forget(done: asyncio.Future[Response]) -> None:
    """Let go of work that is done; what came of it is for nobody any more if its client left."""
    _UNDER_WAY.discard(done)
    if not done.cancelled():
        done.exception()


_UNDER_WAY: set[asyncio.Future[Response]] = set()
"""Keeps the work alive: the loop itself only holds tasks weakly."""


async def _read(inputs: Inputs, arguments: dict[str, Any]) -> None:
    """Add to the arguments what the handler takes from the query and the body."""
    if inputs.query is not None:
        arguments["query"] = read_query(inputs.query)
    elif request.path.startswith("/api/"):
        refuse_query()
    if inputs.body is not None and inputs.is_body_optional:
        arguments["body"] = await read_optional_body(inputs.body)
    elif inputs.body is not None:
        types = MERGE_PATCH_TYPES if request.method == "PATCH" else JSON_TYPES
        arguments["body"] = await read_body(inputs.body, media_types=types)
    elif inputs.media_types:
        arguments["upload"] = await read_upload(inputs.media_types)
