"""HTTP/1.1 as Hypercorn speaks it, without what could be read in two ways, and with one write less for each answer."""

import asyncio
from dataclasses import replace
from itertools import chain
from typing import Any

import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

from usermgmt.operator.heads import LONGEST_HEAD, MOST_HEADERS

LATE_BODY_SECONDS = 1.0
LONGEST_LATE_BODY = 256 * 1024
PIECES_AT_ONCE = 50


class PlainHttp1(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1, and refuses a message whose length is told twice.

    A proxy that decides by paths must see every request: an upgrade to HTTP/2 without TLS would hide them, and of
    Content-Length and Transfer-Encoding it may believe the other one (RFC 9112, section 6.1). There are no websockets:
    a connection that became one, or was refused as one, would have none of the limits of others.
    """

    _head = b""
    _head_began: float | None = None
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

    def head_since(self, now: float) -> float | None:
        """When the head began that has not ended."""
        connection = self.connection
        is_within = isinstance(connection, h11.Connection) and connection.their_state is h11.IDLE
        if not is_within or not connection.trailing_data[0]:
            self._head_began = None
        elif self._head_began is None:
            self._head_began = now
        return self._head_began

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
        pieces = 0
        try:
            while isinstance(event := self.connection.next_event(), h11.Data):
                pieces += 1
                if pieces % PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # they may be of a byte each, and others wait
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
        """Hand over a request, or refuse it. As Hypercorn does, without its branch for websockets and without reading
        the headers thrice; a request for another protocol is answered in this one.
        """
        self._head_began = None
        headers = list(request.headers)
        names = {name for name, _ in headers}  # in lower case
        length = len(request.target) + sum(map(len, chain.from_iterable(headers)))
        is_other = not request.http_version.startswith(b"1.")
        if {b"content-length", b"transfer-encoding"} <= names or is_other:
            await self._refuse(400)
            return
        if len(headers) > MOST_HEADERS or length > LONGEST_HEAD:
            await self._refuse(431)
            return
        surroundings = (self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server)
        self.stream = HTTPStream(*surroundings, self.stream_send, STREAM_ID)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())
