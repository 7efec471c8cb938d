"""HTTP/2 from clients that mean no good, and at the end of the server."""

import json
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.operator.conftest import Process, Start, environment
from tests.operator.test_tls import certify, secured

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # frames know nothing of databases
COMMON = [(":authority", "x"), (":scheme", "https")]
LIVE = [(":method", "GET"), (":path", "/health/live"), *COMMON]
LOGIN = [(":method", "POST"), (":path", "/api/auth/login"), *COMMON, ("content-type", "application/json")]
BODY = b'{"username": "nobody", "password": "wrong"}'
MOST_GROWTH_KIB = 30 * 1024


class Speaker:
    """A client's connection that can be made to say anything."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection = connection
        self.http2 = H2Connection(
            H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
        )
        self.http2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is to be sent."""
        self.connection.sendall(self.http2.data_to_send())

    def ask(self, stream: int, headers: list[tuple[str, str]], body: bytes | None = None) -> None:
        """Send a request."""
        self.http2.send_headers(stream, headers, end_stream=body is None)
        if body is not None:
            self.http2.send_data(stream, body, end_stream=True)
        self.flush()

    def events(self) -> Iterator[Event]:
        """What comes, until the server closes."""
        while data := self._received():
            yield from self.http2.receive_data(data)
            self.flush()

    def _received(self) -> bytes:
        try:
            return self.connection.recv(65_536)
        except ConnectionError:
            return b""

    def status(self, stream: int) -> int | None:
        """The status of an answer, once it is whole; None for one that is reset or never comes."""
        status = None
        for event in self.events():
            if isinstance(event, ResponseReceived) and event.stream_id == stream:
                status = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded | StreamReset) and event.stream_id == stream:
                return status
        return None


Connect = Callable[[], Speaker]


@pytest.fixture
def started(start: Start, database_url: str, tmp_path: Path) -> Iterator[tuple[Process, Connect]]:
    """A server with TLS, and how to speak HTTP/2 with it."""
    certify(tmp_path, "first")
    files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
    process = start("serve", "--port", "0", environ=environment(database_url, limits__enabled="false", **files))
    url = json.loads(process.wait_for('"serving"'))["url"]
    opened: list[ssl.SSLSocket] = []

    def connect() -> Speaker:
        opened.append(secured(url, tmp_path, "h2"))
        return Speaker(opened[-1])

    yield process, connect
    for connection in opened:
        connection.close()


def memory_kib(process: Process) -> int:
    """What a process has in memory."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@contextmanager
def unharmed(process: Process, connect: Connect) -> Iterator[None]:
    """Others are served before, at once afterwards, and the server has not grown."""
    other = connect()
    other.ask(1, LIVE)
    assert other.status(1) == 200
    before = memory_kib(process)
    yield
    began = time.monotonic()
    other.ask(3, LIVE)
    assert other.status(3) == 200
    fresh = connect()
    fresh.ask(1, LOGIN, BODY)
    assert fresh.status(1) == 401
    assert time.monotonic() - began < 10
    assert memory_kib(process) - before < MOST_GROWTH_KIB


def is_shown_out(speaker: Speaker, data: bytes) -> bool:
    """Whether the server closes the connection of who sends this, with GOAWAY if it still can."""
    try:
        speaker.connection.sendall(data)
        return any(isinstance(event, ConnectionTerminated) for event in speaker.events()) or True
    except TimeoutError:
        return False
    except (OSError, ProtocolError):
        return True


def heads(encoder: Encoder, stream: int) -> HeadersFrame:
    frame = HeadersFrame(stream, data=encoder.encode(LIVE))
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    return frame


def rapid_reset() -> bytes:
    encoder = Encoder()
    frames = [
        frame.serialize()
        for stream in range(1, 2_001, 2)
        for frame in (heads(encoder, stream), RstStreamFrame(stream, error_code=8))
    ]
    return b"".join(frames)


def continuations() -> bytes:
    first = HeadersFrame(1, data=Encoder().encode(LIVE))
    return first.serialize() + ContinuationFrame(1, data=b"\x00\x01a\x01b" * 3_000).serialize() * 100


def bomb() -> bytes:
    encoder = Encoder()
    large = [*LIVE, *[("x-large", "x" * 3_900)] * 5_000]  # one entry of the table, named again and again
    frame = HeadersFrame(1, data=encoder.encode(large))
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    return frame.serialize()


def priorities() -> bytes:
    return b"".join(PriorityFrame(stream, stream_weight=1).serialize() for stream in range(1, 20_001, 2))


def pings() -> bytes:
    return PingFrame(0, opaque_data=b"12345678").serialize() * 10_000


def frames(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", count: int = 2_000) -> bytes:
    """A request whose body is awaited, and many frames of a kind."""
    head = HeadersFrame(1, data=Encoder().encode(LOGIN))
    head.flags.add("END_HEADERS")
    frame = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
    return head.serialize() + frame * count


def acknowledged_pings() -> bytes:
    return frames(PingFrame.type, 1, payload=b"12345678")


def acknowledged_settings() -> bytes:
    return frames(SettingsFrame.type, 1)


def large_settings() -> bytes:
    return frames(SettingsFrame.type, payload=b"".join(b"%c%c\0\0\0\0" % (1, number) for number in range(256)), count=6)


def unknown_frames() -> bytes:
    return frames(0xFA)


def empty_bodies() -> bytes:
    return frames(DataFrame.type, stream=1)


def resets_of_one_stream() -> bytes:
    return frames(RstStreamFrame.type, stream=1, payload=bytes(4))


FLOODS = [
    rapid_reset,
    continuations,
    bomb,
    priorities,
    pings,
    acknowledged_pings,
    acknowledged_settings,
    large_settings,
    unknown_frames,
    empty_bodies,
    resets_of_one_stream,
]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection_and_harms_nobody(
    started: tuple[Process, Connect], flood: Callable[[], bytes]
) -> None:  # I07
    process, connect = started
    data = flood()
    for _ in range(4):  # what a process keeps for later it keeps once
        assert is_shown_out(connect(), data)
    with unharmed(process, connect):
        for _ in range(10):
            assert is_shown_out(connect(), data)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


@pytest.mark.parametrize(
    "header",
    [("x-split", "a\r\nb: c"), ("x-null", "a\x00b"), ("te", "gzip"), ("connection", "close"), ("X-Upper", "a")],
)
def test_headers_that_would_mean_something_in_http_1_are_refused(
    started: tuple[Process, Connect], header: tuple[str, str]
) -> None:  # I07
    process, connect = started
    with unharmed(process, connect):
        speaker = connect()
        frame = HeadersFrame(1, data=Encoder().encode([*LIVE, header]))
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        speaker.connection.sendall(frame.serialize())
        assert speaker.status(1) in (None, 400)
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


def test_what_is_no_request_of_ours_is_refused_and_the_connection_goes_on(started: tuple[Process, Connect]) -> None:
    process, connect = started
    speaker = connect()
    speaker.ask(1, [(":method", "CONNECT"), (":authority", "x")])
    assert speaker.status(1) == 405
    speaker.ask(3, [*LIVE, *((f"x-{number}", "a") for number in range(200))])
    assert speaker.status(3) == 431
    speaker.ask(5, LOGIN, b"x" * 16_000)
    assert speaker.status(5) == 400
    speaker.http2.send_headers(7, [*LOGIN, ("content-length", "99000")])
    for _ in range(9):
        speaker.http2.send_data(7, b"x" * 11_000 if speaker.http2.local_flow_control_window(7) >= 11_000 else b"")
    speaker.flush()
    assert speaker.status(7) == 413
    for stream, name, value, status in ((9, ":method", "head", 405), (11, ":path", b"/\xff", 400), (13, "", "", 200)):
        speaker.ask(stream, [(each, value if each == name else kept) for each, kept in LIVE])
        assert speaker.status(stream) == status
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


def test_the_end_is_announced_and_what_was_on_its_way_is_answered(started: tuple[Process, Connect]) -> None:
    process, connect = started
    speaker = connect()
    speaker.http2.send_headers(1, [*LOGIN, ("content-length", str(len(BODY)))])
    speaker.http2.send_data(1, BODY[:-5])
    speaker.ask(3, LIVE)
    assert speaker.status(3) == 200
    process.popen.send_signal(signal.SIGTERM)
    process.wait_for("draining")
    is_asked = False
    frames = b""
    speaker.connection.settimeout(20)
    while True:
        data = speaker.connection.recv(65_536)
        if not data:
            break
        frames += data
        if not is_asked:  # GOAWAY was just read; this one was on its way
            is_asked = True
            encoder = speaker.http2.encoder
            late = HeadersFrame(5, data=encoder.encode(LIVE))
            late.flags |= {"END_HEADERS", "END_STREAM"}
            speaker.http2.send_data(1, BODY[-5:], end_stream=True)
            speaker.connection.sendall(speaker.http2.data_to_send() + late.serialize())
    assert answered_streams(frames) >= {1, 5}
    assert process.end() == 0


def answered_streams(data: bytes) -> set[int]:
    """The streams on which a head came."""
    streams = set()
    while len(data) >= 9:
        length, kind = int.from_bytes(data[:3]), data[3]
        if kind == HeadersFrame.type:
            streams.add(int.from_bytes(data[5:9]))
        data = data[9 + length :]
    return streams


WEBSOCKET = [(":path", "/"), (":scheme", "https"), (":authority", "x"), (":protocol", "websocket")]
UNSERVED = {
    "an extended CONNECT": [(":method", "CONNECT"), *WEBSOCKET],
    "a CONNECT in small letters": [(":method", "connect"), *WEBSOCKET[:-1]],
    "too many headers": [*LIVE, *((f"x-{number}", "a") for number in range(200))],
    "a request that is taken back": LOGIN,
}


@pytest.mark.parametrize("headers", UNSERVED.values(), ids=UNSERVED)
def test_what_is_not_served_lets_its_connection_rest(
    started: tuple[Process, Connect], headers: list[tuple[str, str]]
) -> None:
    process, connect = started
    speaker = connect()
    speaker.ask(1, LIVE)
    assert speaker.status(1) == 200
    speaker.http2.send_headers(3, headers)
    speaker.flush()
    if headers is LOGIN:
        speaker.http2.reset_stream(3)
    else:
        assert any(
            isinstance(event, ResponseReceived) and dict(event.headers)[b":status"] in (b"405", b"431")
            for event in speaker.events()
        )
    speaker.http2.ping(b"12345678")
    speaker.flush()
    assert any(isinstance(event, PingAckReceived) for event in speaker.events())
    began = time.monotonic()
    assert process.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 10  # what does not rest is kept for `server.graceful_timeout`
    assert "Traceback" not in process.output + process.errors()


def test_open_streams_keep_nobody_alive(start: Start, database_url: str, tmp_path: Path) -> None:
    certify(tmp_path, "first")
    files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
    patience = {"server__graceful_timeout": "1s", "server__request_timeout": "1h"}
    process = start("serve", "--port", "0", environ=environment(database_url, **files, **patience))
    url = json.loads(process.wait_for('"serving"'))["url"]
    with secured(url, tmp_path, "h2") as connection:
        speaker = Speaker(connection)
        for stream in range(1, 21, 2):
            speaker.http2.send_headers(stream, [*LOGIN, ("content-length", "40")])
        speaker.ask(21, LIVE)
        assert speaker.status(21) == 200
        began = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
