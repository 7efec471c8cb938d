"""Granian in the place of Hypercorn: more requests, for who does not need what Hypercorn gives (TLS,
HTTP/2, a limit for each part of a connection's life). Framing, heads and their limits are Granian's own.

It takes connections from sockets that are bound already, which several processes may share: what waits in their queues
is lost with none of them. How it leaves differs from its own way, which closes every connection that rests, and resets
what waits: here its answers say for a moment that they are the last, and what waits at the very end is served by
Hypercorn's protocol code.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from granian import __version__
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from hypercorn.config import Config

from usermgmt.http.routing import Application
from usermgmt.operator.connections import LINGER_SECONDS, Connection
from usermgmt.operator.console import Refusal
from usermgmt.operator.listening import Door, House, started

LONGEST_HEAD_BYTES = 32 * 1024
BACKLOG = 2048
PEEK_SECONDS = 0.002
LONGEST_PEEK_SECONDS = 1.0
CLOSE = (b"connection", b"close")

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


async def serve_sockets_by_granian(
    app: Application, config: Config, sockets: Sequence[socket.socket], *, until: Callable[[House], Awaitable[None]]
) -> None:
    """Answer the connections of listening sockets until `until` returns, then finish what was begun within
    `config.graceful_timeout`.

    Raises Hypercorn's `LifespanFailureError` or `LifespanTimeoutError` when the application does not start.
    """
    async with started(app, config) as house:
        farewell = Farewell(app)
        servers = [SharedSocketServer(farewell, sock) for sock in sockets]
        serving = [asyncio.create_task(server.serve()) for server in servers]
        ending = asyncio.ensure_future(until(house))
        await asyncio.wait((*serving, ending), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            ending.cancel()
            raise Refusal(f"Granian {__version__} stopped by itself.", code="not_started")
        ending.result()
        await _leave(house, farewell, servers, serving, sockets, config.graceful_timeout)


async def _leave(
    house: House,
    farewell: "Farewell",
    servers: Sequence["SharedSocketServer"],
    serving: Sequence["asyncio.Task[None]"],
    sockets: Sequence[socket.socket],
    patience: float,
) -> None:
    """Have clients go elsewhere, stop taking connections, serve what waits, and wait for what runs."""
    farewell.is_said = True
    linger = min(LINGER_SECONDS, patience)
    await asyncio.sleep(linger)
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]
    await asyncio.gather(*(server.has_let_go() for server in servers))
    finishing = asyncio.ensure_future(asyncio.wait(serving, timeout=patience - linger))
    await house.close([Door(house, sock) for sock in sockets])
    await finishing
    for task in serving:
        task.cancel()


class Farewell:
    """The application, whose answers say from a moment on that their connections are closed."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.is_said = False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request. One without its one `Host` (RFC 9112, section 3.2) gets 400, and so does one whose body
        breaks off or is none: Granian would answer 500.
        """
        if scope["type"] == "http" and not _is_of_one_host(scope):
            await _refuse(send)
            return
        is_begun = False

        def send_farewell(message: Message) -> Awaitable[None]:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                if self.is_said:
                    message = {**message, "headers": [*message["headers"], CLOSE]}
            return send(message)

        await self._app(scope, receive, send_farewell)  # type: ignore[arg-type] # as Granian calls it
        if not is_begun:
            await _refuse(send)


def _is_of_one_host(scope: Any) -> bool:
    """Whether a request names one host; Granian adds an empty one where there is none, as HTTP/1.0 may have it."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and (hosts[0] != b"" or scope["http_version"] == "1")


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0"), CLOSE]})
    await send({"type": "http.response.body", "body": b""})


class SharedSocketServer(Server):
    """Granian's server in this process, on a socket that is there already."""

    def __init__(self, app: Farewell, sock: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backpressure=Connection.most,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(Connection.head_seconds * 1000), max_buffer_size=LONGEST_HEAD_BYTES
            ),
            log_enabled=False,
        )
        sock.settimeout(0)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Granian waits for ever until what it has written is read
            patience = Connection.settings.request_timeout.total_seconds()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(patience * 1000)))
        self._descriptor = os.dup(sock.fileno())  # it closes this one when it takes no more
        self._inode = os.fstat(self._descriptor).st_ino

    def _init_shared_socket(self) -> None:
        is_unix, further = False, [BACKLOG] if sys.platform.startswith(("linux", "freebsd")) else []
        holder: Any = SocketHolder  # whose stub knows no arguments
        self._ssp, self._shd = None, holder(self._descriptor, is_unix, *further)

    async def has_let_go(self) -> None:
        """Wait until it takes no more connections."""
        for _ in range(int(LONGEST_PEEK_SECONDS / PEEK_SECONDS)):
            try:
                if os.fstat(self._descriptor).st_ino != self._inode:
                    return
            except OSError:
                return
            await asyncio.sleep(PEEK_SECONDS)
