"""What Hypercorn leaves open about its connections: how many there are, how long a head may take, and what is no clear
HTTP/1.1. And what it spends on each request without need: two tasks to see whether the connection rests too long, and
a write for the head of an answer.

`usermgmt serve` builds its connections from `Connection`. `hypercorn asgi:app` builds them from a class that Hypercorn
0.18 names in a module, and both take the classes of HTTP/1.1 and HTTP/2 from another: ours are put there. With another
version they are left alone and the log says so: everything works, but what these classes limit is not limited.
"""

import asyncio
from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
import structlog
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol

from usermgmt.operator.http2 import BoundedHttp2
from usermgmt.settings import ServerSettings

TESTED_WITH = "0.18."
LONGEST_HEAD = 16 * 1024
MOST_HEADERS = 100
LINGER_SECONDS = 0.5  # at the end: a request may be on its way while its connection rests
LATE_BODY_SECONDS = 1.0
LONGEST_LATE_BODY = 256 * 1024
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nCache-Control: no-store\r\n"
    b"Content-Length: 0\r\n\r\n"
)

log = structlog.get_logger("usermgmt.server")


def limit_connections(settings: ServerSettings) -> None:
    """Have this process build its connections from here on with the limits of the settings."""
    Connection.most = settings.max_connections
    Connection.head_seconds = settings.head_timeout.total_seconds()
    if not version("hypercorn").startswith(TESTED_WITH):
        log.warning("connection_limits_off", hypercorn=version("hypercorn"), tested_with=TESTED_WITH)
        return
    setattr(hypercorn.asyncio.run, "TCPServer", Connection)  # noqa: B010 - what a module does not export, see above
    setattr(hypercorn.protocol, "H11Protocol", PlainHttp1)  # noqa: B010
    setattr(hypercorn.protocol, "H2Protocol", BoundedHttp2)  # noqa: B010


class Connection(TCPServer):
    """A connection that is refused when there are too many, and closed when the head of a request does not end."""

    most: ClassVar[int]
    head_seconds: ClassVar[float]
    open_now: ClassVar[int] = 0
    _dropping: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve until the client or the server closes."""
        if Connection.open_now >= self.most:
            self.writer.write(REFUSAL)
            await self._close()
            return
        Connection.open_now += 1
        setattr(self, "idle_task", Rest(self))  # noqa: B010 - it does what Hypercorn's class does, and is none
        try:
            await super().run()
        finally:
            Connection.open_now -= 1
            if self._dropping is not None:
                self._dropping.cancel()

    async def _read_data(self) -> None:
        deadline: float | None = None
        while not self.reader.at_eof():
            deadline = (deadline or self.loop.time() + self.head_seconds) if self._is_within_head() else None
            try:
                async with asyncio.timeout_at(deadline):
                    data = await self.reader.read(MAX_RECV)
            except (OSError, TimeoutError):
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        await self.idle_task.stop()  # or the socket of a client that left stays open until keep-alive ends

    def _is_within_head(self) -> bool:
        """Whether a head has begun and not ended."""
        protocol = self.protocol.protocol
        if not isinstance(protocol, H11Protocol) or not isinstance(protocol.connection, h11.Connection):
            return False
        return protocol.connection.their_state is h11.IDLE and bool(protocol.connection.trailing_data[0])

    def leave(self) -> None:
        """Close from our side, once what has begun is written."""
        self._task_group.spawn(self._say_farewell)

    async def _say_farewell(self) -> None:
        if isinstance(self.protocol.protocol, BoundedHttp2):
            await self.protocol.protocol.refuse_further()
        self._drop_soon()
        await self._initiate_server_close()

    async def _close(self) -> None:
        self._drop_soon()
        await super()._close()

    def _drop_soon(self) -> None:
        if self._dropping is None:
            self._dropping = self.loop.call_later(LINGER_SECONDS, self._drop)

    def _drop(self) -> None:
        """With TLS the client is to say that it has seen the end; one that rests reads nothing."""
        if not self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()


class Rest:
    """Ends a connection on which nothing happens for `keep_alive_timeout`, or while the server ends.

    In the place of Hypercorn's idle task, of which every request makes and cancels two.
    """

    resting: ClassVar[set["Rest"]] = set()
    _watch: ClassVar["asyncio.Task[None] | None"] = None

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None
        if Rest._watch is None or Rest._watch.done():
            Rest._watch = connection.loop.create_task(_end_resting(connection.context))

    async def restart(self, *_: Any) -> None:
        """Nothing happens from now on."""
        self._forget()
        is_ending = self._connection.context.terminated.is_set()
        timeout = LINGER_SECONDS if is_ending else self._connection.config.keep_alive_timeout
        self._timer = self._connection.loop.call_later(timeout, self.end)
        self.resting.add(self)

    async def stop(self) -> None:
        """A request has begun, or the connection is closed."""
        self._forget()

    def end(self) -> None:
        """Close the connection."""
        self._forget()
        self._connection.leave()

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resting.discard(self)


async def _end_resting(context: WorkerContext) -> None:
    await context.terminated.wait()
    for speaker in tuple(BoundedHttp2.alive):
        await speaker.tell_end()
    await asyncio.sleep(LINGER_SECONDS)
    for rest in tuple(Rest.resting):
        rest.end()
    for speaker in tuple(BoundedHttp2.alive):
        await speaker.refuse_further()


class PlainHttp1(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1, and refuses a message whose length is told twice.

    A proxy that decides by paths must see every request: an upgrade to HTTP/2 without TLS would hide them, and of
    Content-Length and Transfer-Encoding it may believe the other one (RFC 9112, section 6.1).
    """

    _head = b""
    _late_bytes = 0
    _has_ended: asyncio.Event | None = None

    async def handle(self, event: Event) -> None:
        """Take what came in."""
        if isinstance(event, Closed) and self._has_ended is not None:
            self._has_ended.set()
        if isinstance(event, RawData) and self._has_ended is not None:
            await self._drop_late_body(event.data)
        else:
            await super().handle(event)

    async def _maybe_recycle(self) -> None:
        """Go on with the next request, or close. Where the answer was quicker than the body, as a refusal is, the body
        is awaited and dropped: closing before it came would reset the connection, and the answer might not be seen.
        """
        is_late = self.connection.their_state is h11.SEND_BODY and self.connection.our_state is not h11.SEND_BODY
        if not is_late or self.context.terminated.is_set():
            await super()._maybe_recycle()
            return
        await self._close_stream()
        self._late_bytes, self._has_ended = 0, asyncio.Event()
        self.task_group.spawn(self._await_late_body, self._has_ended)
        await self.can_read.set()

    async def _await_late_body(self, has_ended: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(LATE_BODY_SECONDS):
                await has_ended.wait()
        except TimeoutError:
            await self.send(Closed())

    async def _drop_late_body(self, data: bytes) -> None:
        assert self._has_ended is not None
        self._late_bytes += len(data)
        self.connection.receive_data(data)
        try:
            while isinstance(event := self.connection.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            event = h11.ConnectionClosed()
        if isinstance(event, h11.EndOfMessage):
            self._has_ended.set()
            self._has_ended = None
            await super()._maybe_recycle()
            await self._handle_events()
        elif isinstance(event, h11.ConnectionClosed) or self._late_bytes > LONGEST_LATE_BODY:
            await self.send(Closed())

    async def stream_send(self, event: StreamEvent) -> None:
        """Tell the client with the answer that the server ends."""
        if isinstance(event, Response) and self.context.terminated.is_set():
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        """Write the head of an answer together with what follows it."""
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Ignore `Upgrade: h2c`, as RFC 9110 allows; HTTP/2 with TLS is agreed on before."""

    async def _create_stream(self, request: h11.Request) -> None:
        names = {name.lower() for name, _ in request.headers}
        length = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
        if {b"content-length", b"transfer-encoding"} <= names or request.http_version == b"2.0":
            await self._refuse(400)
        elif len(names) > MOST_HEADERS or length > LONGEST_HEAD:
            await self._refuse(431)
        else:
            await super()._create_stream(request)

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())
