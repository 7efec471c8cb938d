"""What Hypercorn leaves open about its connections: how many there are, how long a head may take, and how long a client
may leave unread what is sent to it. And what it spends on each request without need: two tasks to see whether the
connection rests too long.

`usermgmt serve` builds its connections from `Connection`. `hypercorn asgi:app` builds them from a class that Hypercorn
0.18 names in a module, and both take the classes of HTTP/1.1 and HTTP/2 from another: ours are put there. With another
version they are left alone and the log says so: everything works, but what these classes limit is not limited.
"""

import asyncio
import time
from importlib.metadata import version
from typing import Any, ClassVar

import hypercorn.asyncio.run
import hypercorn.protocol
import structlog
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData

from usermgmt.operator.http1 import PlainHttp1
from usermgmt.operator.http2 import BoundedHttp2
from usermgmt.settings import ServerSettings

TESTED_WITH = "0.18."
LINGER_SECONDS = 0.5  # at the end: a request may be on its way while its connection rests
SPEAKERS = (PlainHttp1, BoundedHttp2)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nCache-Control: no-store\r\n"
    b"Content-Length: 0\r\n\r\n"
)

log = structlog.get_logger("usermgmt.server")


def limit_connections(settings: ServerSettings) -> None:
    """Have this process build its connections from here on with the limits of the settings."""
    Connection.most = settings.max_connections
    Connection.head_seconds = settings.head_timeout.total_seconds()
    Connection.settings = settings
    if not version("hypercorn").startswith(TESTED_WITH):
        log.warning("connection_limits_off", hypercorn=version("hypercorn"), tested_with=TESTED_WITH)
        return
    setattr(hypercorn.asyncio.run, "TCPServer", Connection)  # noqa: B010 - what a module does not export, see above
    setattr(hypercorn.protocol, "H11Protocol", PlainHttp1)  # noqa: B010
    setattr(hypercorn.protocol, "H2Protocol", BoundedHttp2)  # noqa: B010


class FrugalConfig(Config):
    """Hypercorn's configuration, which writes the date of answers once a second and not once an answer. The software is
    not named, so that the headers are the same for every protocol.
    """

    include_server_header = False
    _dated: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """What is added to the headers of an answer; nobody changes the list."""
        second, headers = self._dated
        if second != (now := int(time.time())):
            headers = super().response_headers(protocol)
            self._dated = (now, headers)
        return headers


class Connection(TCPServer):
    """A connection that is refused when there are too many, and closed when the head of a request does not end or an
    answer is not read.
    """

    most: ClassVar[int]
    head_seconds: ClassVar[float]
    settings: ClassVar[ServerSettings]
    open_now: ClassVar[int] = 0
    _dropping: asyncio.TimerHandle | None = None
    _reading: asyncio.Timeout | None = None

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

    async def protocol_send(self, event: Event) -> None:
        """Write, and wait until the client has taken enough of it; one that does not in time is dropped."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                self.writer.write(event.data)
                if left := self.writer.transport.get_write_buffer_size():
                    await self._wait_for_reader(left)
                else:
                    await self.writer.drain()
            except (OSError, RuntimeError):
                await self.protocol.handle(Closed())

    async def _wait_for_reader(self, left: int) -> None:
        try:
            async with asyncio.timeout(self.settings.transfer_seconds(left)):
                await self.writer.drain()
        except TimeoutError:
            log.info("unread_answer_dropped", bytes=left)
            self._drop()
            raise

    async def _read_data(self) -> None:
        try:
            async with asyncio.timeout(None) as self._reading:
                while not self.reader.at_eof():
                    await self.protocol.handle(RawData(await self._read()))
        except (OSError, TimeoutError):
            pass
        finally:
            self._reading = None  # also where the task was cancelled: a timeout that is left cannot be moved
        await self.protocol.handle(Closed())
        await self.idle_task.stop()  # or the socket of a client that left stays open until keep-alive ends

    async def _read(self) -> bytes:
        speaker = self.protocol.protocol
        since = speaker.head_since(self.loop.time()) if isinstance(speaker, SPEAKERS) else None
        if since is None:
            return await self.reader.read(MAX_RECV)
        try:
            async with asyncio.timeout_at(since + self.head_seconds):
                return await self.reader.read(MAX_RECV)
        except TimeoutError:
            if isinstance(speaker, BoundedHttp2):
                await speaker.give_up_head()
            raise

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
        try:
            await super()._close()
        finally:
            self._read_no_more()

    def _drop_soon(self) -> None:
        if self._dropping is None:
            self._dropping = self.loop.call_later(LINGER_SECONDS, self._drop_unless_it_reads)

    def _drop_unless_it_reads(self) -> None:
        """With TLS the client is to say that it has seen the end; one that rests reads nothing."""
        left = self.writer.transport.get_write_buffer_size()
        if left:
            self._dropping = self.loop.call_later(self.settings.transfer_seconds(left), self._drop)
        else:
            self._drop()

    def _drop(self) -> None:
        self.writer.transport.abort()
        self._read_no_more()

    def _read_no_more(self) -> None:
        """End the task that reads; it may be waiting for an answer to be read before it looks at the next request."""
        if self._reading is not None:
            self._reading.reschedule(self.loop.time())
            self._reading = None


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
