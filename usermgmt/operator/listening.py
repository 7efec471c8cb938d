"""Taking connections for Hypercorn's protocol code: from sockets that several processes may share, without losing one.

Hypercorn's own loop closes its sockets while connections wait in their queues, which resets them; waits, on Python 3.12
and later, for every connection before its patience begins; and takes as many connections at a turn as there are, so
that of several processes a busy one takes most.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import structlog
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import AppWrapper
from hypercorn.utils import wrap_app

from usermgmt.http.routing import Application
from usermgmt.operator.connections import Connection

LONGEST_QUEUE = 4096
STREAM_BYTES = 64 * 1024
REST_AFTER_FAULT_SECONDS = 0.2  # without descriptors, the next connection fails as this one did
LAST_WORDS_SECONDS = 0.5

log = structlog.get_logger("usermgmt.server")


async def serve_sockets(
    app: Application, config: Config, sockets: Sequence[socket.socket], *, until: Callable[["House"], Awaitable[None]]
) -> None:
    """Answer the connections of listening sockets until `until` returns; then take no more and finish what there is.

    What is open after `config.graceful_timeout` is dropped. Raises Hypercorn's `LifespanFailureError` or
    `LifespanTimeoutError` when the application does not start.
    """
    async with started(app, config) as house:
        doors = [Door(house, sock) for sock in sockets]
        try:
            await until(house)
        finally:
            await house.close(doors)


@contextlib.asynccontextmanager
async def started(app: Application, config: Config) -> AsyncIterator["House"]:
    """The application between its start and its end, and what serves it connections.

    Raises Hypercorn's `LifespanFailureError` or `LifespanTimeoutError` when it does not start.
    """
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
    loop = asyncio.get_running_loop()
    lifespan = Lifespan(wrapped, config, loop, {})
    living = loop.create_task(lifespan.handle_lifespan())
    await lifespan.wait_for_startup()
    if living.done():
        living.result()
    try:
        yield House(wrapped, config, loop)
    finally:
        await lifespan.wait_for_shutdown()
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living


class House:
    """The connections of the process."""

    def __init__(self, app: AppWrapper, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.context = WorkerContext(None)
        self.loop = loop
        self._app = app
        self._config = config
        self._tls = config.create_ssl_context() if config.ssl_enabled else None
        if self._tls is not None:
            self._tls.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL 3 refuses it anyway, older ones do not
        self._guests: set[asyncio.Task[None]] = set()

    @property
    def guests(self) -> int:
        """How many connections are served."""
        return len(self._guests)

    def renew_certificate(self) -> None:
        """Read the certificate's files again, for the connections that come; what cannot be used changes nothing."""
        assert self._tls is not None
        assert self._config.certfile is not None
        try:
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._tls):
                context.load_cert_chain(self._config.certfile, self._config.keyfile)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate_not_renewed", reason=str(error))
        else:
            log.info("certificate_renewed")

    def welcome(self, connection: socket.socket) -> None:
        """Serve a connection."""
        task = self.loop.create_task(self._serve(connection))
        self._guests.add(task)
        task.add_done_callback(self._guests.discard)

    async def close(self, doors: Sequence["Door"]) -> None:
        """Take what waits at the doors and no more, and wait until all have left; who has not after
        `config.graceful_timeout` is shown out.
        """
        await self.context.terminated.set()
        for door in doors:
            door.close()
        await self._empty(self._config.graceful_timeout)

    async def _empty(self, patience: float) -> None:
        if self._guests:
            await asyncio.wait(self._guests, timeout=patience)
        for guest in self._guests:
            guest.cancel()
        if self._guests:
            await asyncio.wait(self._guests, timeout=LAST_WORDS_SECONDS)

    async def _serve(self, connection: socket.socket) -> None:
        reader = asyncio.StreamReader(limit=STREAM_BYTES, loop=self.loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self.loop)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_handshake_timeout": self._config.ssl_handshake_timeout}
        try:
            transport, _ = await self.loop.connect_accepted_socket(lambda: protocol, connection, **tls)
        except OSError:  # the client left, or what it spoke is not TLS
            connection.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self.loop)
        try:
            await Connection(self._app, self.loop, self._config, self.context, {}, reader, writer).run()
        finally:
            transport.abort() if self.context.terminated.is_set() else transport.close()


class Door:
    """A listening socket; takes one connection at a turn of the loop."""

    def __init__(self, house: House, sock: socket.socket) -> None:
        self._house = house
        self._socket = sock
        self._socket.settimeout(0)
        self._pause: asyncio.TimerHandle | None = None
        self._watch()

    def close(self) -> None:
        """Take what waits already, and then no more."""
        self._house.loop.remove_reader(self._socket.fileno())
        for _ in range(LONGEST_QUEUE):
            if not self._take():
                break
        if self._pause is not None:
            self._pause.cancel()
        self._socket.close()

    def _watch(self) -> None:
        self._house.loop.add_reader(self._socket.fileno(), self._take)

    def _take(self) -> bool:
        """Whether there was a connection."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:  # no descriptors or no memory: those who wait shall wait
            log.warning("cannot_accept", reason=error.strerror)
            self._house.loop.remove_reader(self._socket.fileno())
            self._pause = self._house.loop.call_later(REST_AFTER_FAULT_SECONDS, self._watch)
            return False
        connection.settimeout(0)
        self._house.welcome(connection)
        return True
