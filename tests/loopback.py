"""The application behind a real Hypercorn on the loopback interface, and a client that can misbehave."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Quart

PATIENCE = 20.0  # seconds until a hanging server fails the test


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@asynccontextmanager
async def listening(app: Quart) -> AsyncIterator[int]:
    """Serve an application that has started already; gives the port."""

    async def serving(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError("the fixture starts and stops the application")
        await app(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.include_server_header = False
    config.graceful_timeout = 1
    config.errorlog = config.accesslog = None
    stop = asyncio.Event()
    running = asyncio.create_task(serve(serving, config, shutdown_trigger=stop.wait))
    try:
        yield port
    finally:
        stop.set()
        await running


async def exchange(port: int, request: bytes) -> Answer:
    """Send bytes, and read until the server closes the connection."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        raw = await reader.read(-1)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return parsed(raw)


def parsed(raw: bytes) -> Answer:
    """Take an answer apart; an interim 100 before it is skipped."""
    head, _, body = raw.removeprefix(b"HTTP/1.1 100 \r\n\r\n").partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body)


def head(method: str, path: str, *headers: str) -> bytes:
    """The head of a request after which the server closes the connection."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", "Connection: close", *headers, "", ""]).encode(
        "latin-1"
    )
