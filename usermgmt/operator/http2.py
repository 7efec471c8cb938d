"""HTTP/2 as Hypercorn speaks it, with what it leaves open: how a connection ends without losing a request, and how much
of what costs a client nothing it may ask for.

Hypercorn resets the streams that come while the server ends. Here a client is told with GOAWAY to go elsewhere, then
for a moment served all the same, since its requests may be on their way; what comes later is refused in the way that
says that nothing was done with it (RFC 9113, section 6.8 and REFUSED_STREAM).
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, ClassVar, cast
from weakref import WeakSet

import h2.events
import structlog
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.typing import WorkerContext
from hyperframe.frame import GoAwayFrame
from priority.priority import MissingStreamError, PriorityError

from usermgmt.operator.frames import ANY_STREAM, Allowance, Frames
from usermgmt.operator.heads import LONGEST_HEAD, MOST_HEADERS

MOST_STREAMS = 100  # at once, and given up at once
MOST_CLOSED_STREAMS = 1_000  # remembered; the library's own 65,536 are 8 MiB of each connection
BYTES_A_FRAME = 8 * 1024  # of what is sent, which the client has to acknowledge

log = structlog.get_logger("usermgmt.server")


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = MOST_CLOSED_STREAMS


class _Endless:
    """Hypercorn's context of a server that never ends: it would reset what comes then."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.terminated = context.event_class()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class BoundedHttp2(H2Protocol):
    """A connection that speaks HTTP/2."""

    alive: ClassVar["WeakSet[BoundedHttp2]"] = WeakSet()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._pass_on, self.send = self.send, self._note
        self._is_resting = self._is_over = False
        self._server = self.context
        self.context = cast("WorkerContext", _Endless(self.context))
        self.connection = _bounded_connection()
        self._resets = Allowance(MOST_STREAMS, 10)
        self._costs = Allowance(1_000, 200)
        self._frames = Frames(time.monotonic())
        self._is_told = False
        self._last: int | None = None
        self.alive.add(self)

    async def handle(self, event: Event) -> None:
        """Take what the client sent; one who sends what makes no sense, or too much of it, is shown out."""
        if isinstance(event, RawData):
            await self._take(event.data)
        else:
            await super().handle(event)
        if self.closed:  # who writes an answer would wait for ever until it is sent
            for buffer in tuple(self.stream_buffers.values()):
                await buffer.close()
        if self._server.terminated.is_set() and not self._is_told:
            await self.tell_end()

    async def _take(self, data: bytes) -> None:
        """Take some frames at a turn: thousands fit into what is read at once, and others wait for theirs."""
        end = 0
        while end < len(data) and not self._is_over:
            if end:
                await asyncio.sleep(0)
            began, end = end, self._frames.follow(data, end, time.monotonic())
            try:
                if self._costs.takes(self._frames.cost()):
                    await super().handle(RawData(data[began:end]))
                    continue
            except PriorityError:
                pass
            await self._show_out(ErrorCodes.ENHANCE_YOUR_CALM)

    def head_since(self, now: float) -> float | None:  # noqa: ARG002 - as of HTTP/1.1
        """When the head or the frame began that has not ended; how long a body may take is for its reader to say."""
        return None if self._frames.data_of() in self.streams else self._frames.unfinished_since()

    async def give_up_head(self) -> None:
        """Close: it takes too long."""
        await self._show_out(ErrorCodes.NO_ERROR)

    async def tell_end(self) -> None:
        """Ask the client to go elsewhere with further requests; those that are on their way are served."""
        if not self._is_told and not self.closed:
            self._is_told = True
            await self.send(RawData(GoAwayFrame(0, last_stream_id=ANY_STREAM).serialize()))

    async def refuse_further(self) -> None:
        """Refuse what comes from now on, and finish what there is."""
        if self._last is None and not self.closed:
            self._last = self.connection.highest_inbound_stream_id
            await self.send(RawData(GoAwayFrame(0, last_stream_id=self._last).serialize()))

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                # the answer was faster than the body
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                continue
            if isinstance(event, h2.events.StreamReset) and not self._resets.takes():
                await self._show_out(ErrorCodes.ENHANCE_YOUR_CALM)
                return
            await super()._handle_events([event])
        await self._flush()
        is_told = self._is_resting and self._last is None
        if self.idle and not is_told:  # what was refused or reset ends without a word
            await self.send(Updated(idle=True))

    async def _note(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._is_resting = event.idle
        elif isinstance(event, RawData):
            self._costs.takes(-len(event.data) / BYTES_A_FRAME)
        else:
            self._is_over = True
        await self._pass_on(event)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        assert request.stream_id is not None
        try:
            is_refused = self._refuses(request.stream_id, request.headers or [])
        except StreamClosedError:  # the client took it back in the same breath
            return
        if not is_refused:
            await super()._create_stream(request)

    def _refuses(self, stream_id: int, headers: Any) -> bool:  # h2's headers
        """Whether a request is not served; it is answered then. Raises `StreamClosedError`."""
        if self._last is not None and stream_id > self._last:
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return True
        if status := _refusal(headers):
            head = [(b":status", b"%d" % status), (b"content-length", b"0"), (b"cache-control", b"no-store")]
            self.connection.send_headers(stream_id, head, end_stream=True)
            return True
        return False

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer. One that ends too early is reset, or its client would wait for the rest."""
        if isinstance(event, StreamClosed):
            await self._reset_unfinished(event.stream_id)
        await super().stream_send(event)

    async def _reset_unfinished(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer.complete:
            return
        with suppress(ProtocolError):
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        await buffer.close()
        with suppress(MissingStreamError):
            self.priority.unblock(stream_id)  # to be forgotten by who sends
        await self.has_data.set()
        await self._flush()

    async def _show_out(self, code: ErrorCodes) -> None:
        log.info("http2_shown_out", reason=code.name.lower())
        frame = GoAwayFrame(0, last_stream_id=self.connection.highest_inbound_stream_id, error_code=code)
        await self.send(RawData(frame.serialize()))
        await super().handle(Closed())
        await self.send(Closed())


def _bounded_connection() -> H2Connection:
    connection = _Connection(H2Configuration(client_side=False, header_encoding=None))
    connection.decoder.max_header_list_size = LONGEST_HEAD
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: LONGEST_HEAD,
        },
    )
    return connection


def _refusal(headers: list[Any]) -> int | None:
    """The status for a head that is none of ours: what tunnels, what is too much, and what Hypercorn would change or
    stumble over.
    """
    named = dict(headers)
    method = named[b":method"]
    if method == b"CONNECT" or not (method.isascii() and method.isupper()):
        return 405
    if not named.get(b":path", b"").isascii():
        return 400
    return 431 if len(headers) > MOST_HEADERS else None
