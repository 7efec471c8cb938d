"""One request at the least cost: one task and two sends, where the framework takes two tasks, a cookie session, a
timer's task and three sends.

It stands on the framework's extension points (`asgi_http_class`, `request_class`, `session_interface`) and is used
with the versions it was tested with; with any other the framework's own connection serves, and the log says so.

Whichever connection serves, a target that is none is refused before the framework sees it, which fails at some and
reads others otherwise than a proxy, and a streamed answer that its client does not read is given up.

What differs: nobody listens for a client that goes away while its request is handled, so its transaction is never cut
in half. A body is taken from the connection when it is read, and a client that leaves in the middle of it ends its
request. A streamed answer ends with its client, as before.

What is never read of a body is taken and dropped until the server says that the exchange is over: it keeps ten pieces
for whoever serves, and would wait with the eleventh for ever, not seeing that the client left.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import cast
from urllib.parse import unquote

import structlog
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
)
from quart import Quart, Request, Response
from quart.asgi import ASGIHTTPConnection
from quart.sessions import SecureCookieSessionInterface
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers.response import DataBody

from usermgmt.http.requests import ClientLeft, DirectRequest, NoSessions, RequestHeaders

TESTED_WITH = "0.22."

EXTENSION = "usermgmt.seconds_for"

BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
WHOLE_URL = re.compile(
    rb"https?://(?:[\w.~-]+|\[[0-9a-f:.]+\])(?::[0-9]*)?(?P<path>(?:/(?!/)(?:[\w.~!$&'()*+,;=:@/-]|%[0-9a-f]{2})*)?)",
    re.IGNORECASE,
)
"""A target with scheme and host (RFC 9112, section 3.2.2), whose path is what every proxy takes for it."""

SecondsFor = Callable[[int], float]

log = structlog.get_logger("usermgmt.server")


def install(app: Quart, seconds_for: SecondsFor, *, is_fast: bool = True) -> None:
    """Have the application serve its requests this way, if its framework is one that was tested: at the least cost, or
    as the framework does. `seconds_for` tells how long a client may take to read so many bytes.
    """
    if not is_tested(version("quart")):
        log.warning("fast_path_off", quart=version("quart"), tested_with=TESTED_WITH)
        return
    app.extensions[EXTENSION] = seconds_for
    app.asgi_http_class = Connection if is_fast else BoundedConnection
    if not is_fast:
        return
    app.request_class = DirectRequest
    app.session_interface = cast("SecureCookieSessionInterface", NoSessions())


def is_tested(quart: str) -> bool:
    """Whether requests are served this way on that version of the framework."""
    return quart.startswith(TESTED_WITH)


class BoundedConnection(ASGIHTTPConnection):
    """One request and its answer, as the framework serves them."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request, if it is for anything."""
        if (refusal := _refusal(self.scope)) is not None:
            _drop_rest(receive)
            await _refuse(send, refusal)
            return
        is_over = False

        async def receive_until_over() -> ASGIReceiveEvent:
            nonlocal is_over
            message = await receive()
            is_over = message["type"] == "http.disconnect"
            return message

        try:
            await super().__call__(receive_until_over, send)
        finally:
            if not is_over:
                _drop_rest(receive)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send piece by piece; raises `TimeoutError` when the client does not read in time."""
        seconds_for: SecondsFor = self.app.extensions[EXTENSION]

        async def send_in_time(message: ASGISendEvent) -> None:
            try:
                async with asyncio.timeout(seconds_for(len(cast("bytes", message.get("body", b""))))):
                    await send(message)
            except TimeoutError:
                log.info("unread_stream_given_up", request_id=response.headers.get("X-Request-ID"))
                raise

        await super()._send_response(send_in_time, response)


class Connection(BoundedConnection):
    """One request and its answer, at the least cost."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request, unless its client leaves before it is whole."""
        if (refusal := _refusal(self.scope)) is not None:
            _drop_rest(receive)
            await _refuse(send, refusal)
            return
        request = cast("DirectRequest", self._create_request_from_scope(send))
        request.body.receive = receive
        try:
            response = await self.app.handle_request(request)
        except ClientLeft:
            return
        if not (isinstance(response, Response) and isinstance(response.response, DataBody)):
            await self._send_stream(receive, send, response)
            return
        if not request.body.is_whole and _has_body(self.scope):
            _drop_rest(receive)
        await self._send_whole(send, response, response.response.data)

    async def _send_whole(self, send: ASGISendCallable, response: Response, body: bytes) -> None:
        try:
            async with asyncio.timeout(self._time_of(response)):
                await send(_start(response))
                await send(_body(body))
        except TimeoutError:
            return

    async def _send_stream(self, receive: ASGIReceiveCallable, send: ASGISendCallable, response: ResponseTypes) -> None:
        """Send piece by piece for as long as the client is there."""
        leaving = _drop_rest(receive)
        sending = asyncio.ensure_future(
            asyncio.wait_for(self._send_response(send, response), timeout=self._time_of(response))
        )
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, TimeoutError):
            await sending

    def _create_request_from_scope(self, send: ASGISendCallable) -> Request:
        """The request, whose headers can be looked for at little cost. HTTP/1.0 and a root path are the framework's."""
        scope, config = self.scope, self.app.config
        if scope.get("root_path") or scope["http_version"] < "1.1":
            return super()._create_request_from_scope(send)
        return self.app.request_class(
            scope["method"],
            scope["scheme"],
            scope["path"],
            scope["query_string"],
            RequestHeaders.of(scope),
            "",
            scope["http_version"],
            max_content_length=config["MAX_CONTENT_LENGTH"],
            body_timeout=config["BODY_TIMEOUT"],
            send_push_promise=partial(self._send_push_promise, send),
            scope=scope,
        )

    def _time_of(self, response: ResponseTypes) -> float | None:
        """How many seconds sending may take."""
        own = response.timeout if isinstance(response, Response) else Ellipsis
        return cast("float | None", self.app.config["RESPONSE_TIMEOUT"] if own is Ellipsis else own)


_DROPPING: set["asyncio.Task[None]"] = set()


def _drop_rest(receive: ASGIReceiveCallable) -> "asyncio.Task[None]":
    """Take what still comes until the exchange is over: beside the answer, whose last word may wait for it, and after
    it, since an answer that was given up is over only later.
    """
    task = asyncio.ensure_future(_until_gone(receive))
    _DROPPING.add(task)
    task.add_done_callback(_DROPPING.discard)
    return task


async def _until_gone(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(scope: HTTPScope) -> bool:
    """Whether a body may come. In HTTP/2 one needs no header."""
    return scope["http_version"][0] != "1" or any(name in BODY_HEADERS for name, _ in scope["headers"])


def _refusal(scope: HTTPScope) -> int | None:
    """The status for a method in small letters, which the framework would take for another (RFC 9110, section 9.1), and
    for what asks for no path (RFC 9112, section 3.2), which a whole URL stands for in HTTP/1.

    Of a URL its path is left to the framework, which would take it apart only after decoding it: `http://x/%09metrics`.
    """
    if not scope["method"].isupper():
        return 405
    target = scope["raw_path"]
    if target[:1] == b"/" or target == b"*":
        return None
    if scope["method"] == "CONNECT":
        return 405
    url = WHOLE_URL.fullmatch(target) if scope["http_version"][0] == "1" else None
    if url is None:
        return 400
    scope["raw_path"] = url["path"] or b"/"
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
    return None


async def _refuse(send: ASGISendCallable, status: int) -> None:
    headers = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send(cast("HTTPResponseStartEvent", {"type": "http.response.start", "status": status, "headers": headers}))
    await send(_body(b""))


def _start(response: Response) -> HTTPResponseStartEvent:
    return cast(
        "HTTPResponseStartEvent",
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": encode_headers(response.headers),
        },
    )


def _body(body: bytes) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": body, "more_body": False}
