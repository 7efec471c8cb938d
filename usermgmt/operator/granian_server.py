"""Granian in this process, in the place of Hypercorn: about half the cost of a request, for who does not need what
Hypercorn gives (several workers on one socket, TLS here, HTTP/2, a limit for each part of a connection's life).

What Granian does itself: framing, heads and their limits. What it cannot be told is said once in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from quart import Quart

from usermgmt.operator.console import Refusal
from usermgmt.settings import ServerSettings

LONGEST_HEAD_BYTES = 32 * 1024
BACKLOG = 2048

log = structlog.get_logger("usermgmt.server")


async def serve_address(
    app: Quart, settings: ServerSettings, host: str, port: int, *, until: Callable[[], Awaitable[None]]
) -> None:
    """Answer requests on an address until `until` returns, then finish what was begun within `graceful_timeout`.

    Refused when the application does not start or the address cannot be had.
    """
    started = asyncio.Event()

    @app.while_serving
    async def tell_started():  # type: ignore[no-untyped-def]
        started.set()
        yield

    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.max_connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(settings.head_timeout.total_seconds() * 1000), max_buffer_size=LONGEST_HEAD_BYTES
        ),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    starting = asyncio.create_task(started.wait())
    await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    if not started.is_set():
        reason = serving.exception() if not serving.cancelled() else None
        raise Refusal(f"The server did not start: {reason or 'its application failed'}.", code="not_started")
    ending = asyncio.ensure_future(until())
    await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait((serving,), timeout=settings.graceful_timeout.total_seconds())
    ending.cancel()
    serving.cancel()
