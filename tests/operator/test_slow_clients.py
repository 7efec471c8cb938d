"""Clients that take their time: with a head, with a file, with what they were answered. None keeps much for long."""

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from h2.events import DataReceived, StreamEnded, StreamReset
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, SettingsFrame

from tests.operator.calls import call, call_as, connection_to
from tests.operator.conftest import PASSWORD, PATIENCE, CommandLine, Process, Start, environment
from tests.operator.test_http2 import COMMON, LIVE, LOGIN, Speaker, answered_streams
from tests.operator.test_tls import certify, secured

HEAD_SECONDS, REQUEST_SECONDS = 1.0, 2.0
LIMITS = {
    "server__head_timeout": "1s",
    "server__request_timeout": "2s",
    "server__min_bytes_per_second": "10000000",
    "database__pool_size": "5",
    "database__pool_timeout": "500ms",  # a connection that is held until the end would not be had
    "limits__enabled": "false",
}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = SettingsFrame(0).serialize()
ROWS = 2_000
WIDE = "x" * 8_000
EXPORT = b"GET /api/users HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\nAuthorization: Bearer %s\r\n\r\n"
READERS = 6  # more than there are connections to the database

Serving = Callable[..., tuple[Process, str]]


@pytest.fixture
def serving(start: Start, database_url: str) -> Serving:
    """Start a server with little patience; the process and its address."""

    def begin(*words: str, **more: str) -> tuple[Process, str]:
        process = start("serve", *words, "--port", "0", environ=environment(database_url, **(LIMITS | more)))
        return process, str(json.loads(process.wait_for('"serving"'))["url"])

    return begin


# Heads of HTTP/2


@pytest.fixture
def encrypted(serving: Serving, tmp_path: Path) -> Iterator[str]:
    """The address of a server that speaks HTTP/2."""
    certify(tmp_path, "first")
    files = {"server__tls_certificate": str(tmp_path / "cert.pem"), "server__tls_key": str(tmp_path / "key.pem")}
    process, url = serving(**files)
    yield url
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


def head(*flags: str, headers: list[tuple[str, str]] = LIVE) -> HeadersFrame:
    frame = HeadersFrame(1, data=Encoder().encode(headers))
    frame.flags |= set(flags)
    return frame


def begun(frame: Frame, length: int) -> bytes:
    return frame.serialize()[:length]


HANDSHAKE = "the head of a handshake"
STALLS = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface": PREFACE,
    "a preface and settings": PREFACE + SETTINGS,
    "half of the settings": PREFACE + SETTINGS[:5],
    "a head without its end": PREFACE + SETTINGS + head("END_STREAM").serialize(),
    "a continuation without its end": (
        PREFACE + SETTINGS + head("END_STREAM").serialize() + ContinuationFrame(1, data=b"").serialize()
    ),
    "half the head of a frame": PREFACE + SETTINGS + begun(head("END_STREAM", "END_HEADERS"), 4),
    "half a frame": PREFACE + SETTINGS + begun(head("END_STREAM", "END_HEADERS"), 15),
}


def test_what_does_not_end_of_http_2_is_not_awaited_for_long(encrypted: str, tmp_path: Path) -> None:  # I02, I12
    began = time.monotonic()  # a connection's time runs from its first moment
    held: dict[str, socket.socket] = {name: secured(encrypted, tmp_path, "h2") for name in STALLS}
    held[HANDSHAKE] = connection_to(encrypted)
    for name, sent in {**STALLS, HANDSHAKE: b"\x16\x03\x01\x02\x00"}.items():
        held[name].sendall(sent)
    for name, connection in held.items():
        with connection:
            connection.settimeout(PATIENCE)
            while connection.recv(65_536):
                pass
            assert HEAD_SECONDS - 0.1 < time.monotonic() - began < 10, name


def test_a_head_that_comes_byte_by_byte_is_not_awaited_for_long(encrypted: str, tmp_path: Path) -> None:
    with secured(encrypted, tmp_path, "h2") as connection:
        speaker = Speaker(connection)
        speaker.ask(1, LIVE)
        assert speaker.status(1) == 200
        late = HeadersFrame(3, data=speaker.http2.encoder.encode([*LIVE, ("x-long", "x" * 2_000)]))
        late.flags |= {"END_HEADERS", "END_STREAM"}
        began = time.monotonic()
        try:
            for byte in late.serialize():
                connection.sendall(bytes([byte]))
                time.sleep(0.1)  # a byte now and then is the attack
        except OSError:
            pass
        assert HEAD_SECONDS - 0.1 < time.monotonic() - began < 10


def test_a_connection_that_rests_and_a_body_that_takes_its_time_are_left_alone(encrypted: str, tmp_path: Path) -> None:
    with secured(encrypted, tmp_path, "h2") as resting, secured(encrypted, tmp_path, "h2") as sending:
        rests, sends = Speaker(resting), Speaker(sending)
        rests.ask(1, LIVE)
        assert rests.status(1) == 200
        body = json.dumps({"username": "nobody", "password": "wrong"}).encode()
        sends.http2.send_headers(1, LOGIN)
        data = DataFrame(1, data=body)
        data.flags.add("END_STREAM")
        frame = data.serialize()
        sends.flush()
        sending.sendall(frame[:20])
        time.sleep(HEAD_SECONDS + 0.4)  # longer than a head may take, shorter than a request
        sending.sendall(frame[20:])
        sending.settimeout(PATIENCE)
        assert 1 in answered_streams_of(sending)
        rests.ask(3, LIVE)
        assert rests.status(3) == 200


def answered_streams_of(connection: socket.socket) -> set[int]:
    """The streams that are answered by what comes until one is."""
    data = b""
    while not (found := answered_streams(data)) and (more := connection.recv(65_536)):
        data += more
    return found


# Files that are sent


@pytest.fixture
def chief(line: CommandLine) -> dict[str, str]:
    """An administrator, as they sign in."""
    line.create("chief", "--role", "admin")
    return {"username": "chief", "password": PASSWORD}


def token_of(url: str, chief: dict[str, str]) -> str:
    """An access token."""
    status, found = call(f"{url}/api/auth/login", chief)
    assert status == 200
    return str(found["access_token"])


UPLOAD = (
    b"POST /api/users/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n"
    b"Authorization: Bearer %s\r\n\r\n"
)


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
def test_a_file_that_comes_byte_by_byte_is_refused(serving: Serving, chief: dict[str, str], server: str) -> None:
    _, url = serving("--server", server, server__min_bytes_per_second="1000")
    with closing(connection_to(url)) as connection:
        connection.sendall(UPLOAD % token_of(url, chief).encode())
        began = time.monotonic()
        connection.settimeout(0.2)
        seen = b""
        while b"\r\n\r\n" not in seen and time.monotonic() - began < PATIENCE:
            connection.sendall(b" ")
            try:
                seen += connection.recv(65_536)
            except TimeoutError:
                continue
        assert seen.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in seen
        assert REQUEST_SECONDS - 0.1 < time.monotonic() - began < 10
    assert call(f"{url}/health/live")[0] == 200


# Answers that nobody reads


@pytest.fixture
def crowd(line: CommandLine, tmp_path: Path) -> None:
    """So many accounts that their list fits into no buffer on its way."""
    file = tmp_path / "crowd.ndjson"
    names = [f"u{number}" for number in range(ROWS)]
    rows = [{"username": name, "email": f"{name}@example.com", "attributes": {"a": WIDE}} for name in names]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert line.document("users", "import", str(file))["created"] == ROWS


def stalled(url: str, request: bytes) -> socket.socket:
    """A connection whose client has asked for something and reads nothing."""
    parts = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect((parts.hostname, parts.port))
    connection.sendall(request)
    return connection


def is_held(connection: socket.socket, url: str) -> bool:
    """Whether the server still has its end of a connection."""
    local, port = connection.getsockname()[1], urlsplit(url).port
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(
        (int(line[1].split(":")[1], 16), int(line[2].split(":")[1], 16), line[3]) == (port, local, "01")
        for line in lines
    )


def seconds_until_let_go(connections: list[socket.socket], url: str) -> float:
    """How long the server keeps connections from which nothing is read."""
    began = time.monotonic()
    while any(is_held(connection, url) for connection in connections):
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.1)  # the kernel tells nobody that a connection is gone
    return time.monotonic() - began


@pytest.mark.parametrize("server", ["hypercorn", "granian"])
@pytest.mark.usefixtures("crowd")
def test_answers_that_are_not_read_keep_neither_connections_nor_the_database(
    serving: Serving, chief: dict[str, str], server: str
) -> None:
    process, url = serving("--server", server)
    token = token_of(url, chief)
    plain = EXPORT.replace(b"Accept: application/x-ndjson\r\n", b"") % token.encode()
    held = [stalled(url, EXPORT % token.encode()) for _ in range(READERS)] + [stalled(url, plain * 50)]
    try:
        for connection in held:
            connection.settimeout(PATIENCE)
            assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200", process.errors()
        assert call_as(token, f"{url}/api/users?limit=1")[0] == 200
        assert seconds_until_let_go(held, url) < 20
    finally:
        for connection in held:
            connection.close()
    assert call_as(token, f"{url}/api/users?limit=1")[0] == 200
    assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.output + process.errors()


def asked_for_all(connection: ssl.SSLSocket, token: str) -> Speaker:
    """An export that is asked for, on a connection that may bring as much as it wants in one stream after another."""
    speaker = Speaker(connection)
    speaker.http2.increment_flow_control_window(2**30)
    export = [(":method", "GET"), (":path", "/api/users"), *COMMON, ("accept", "application/x-ndjson")]
    speaker.ask(1, [*export, ("authorization", f"Bearer {token}")])
    return speaker


@pytest.mark.usefixtures("crowd")
def test_a_stream_of_http_2_that_is_not_read_is_reset_and_its_connection_goes_on(
    encrypted: str, tmp_path: Path, chief: dict[str, str]
) -> None:
    with secured(encrypted, tmp_path, "h2") as connection:
        speaker = Speaker(connection)
        speaker.ask(1, LOGIN, json.dumps(chief).encode())
        token = json.loads(body_of(speaker, 1))["access_token"]
    with secured(encrypted, tmp_path, "h2") as connection, secured(encrypted, tmp_path, "h2") as unread:
        speaker, began = asked_for_all(connection, token), time.monotonic()
        wide = asked_for_all(unread, token)
        wide.http2.increment_flow_control_window(2**30, 1)
        wide.flush()
        assert any(isinstance(event, StreamReset) for event in speaker.events())
        assert REQUEST_SECONDS - 0.1 < time.monotonic() - began < 20
        speaker.ask(3, LIVE)
        assert speaker.status(3) == 200
        assert is_held(connection, encrypted)
        assert seconds_until_let_go([unread], encrypted) < 20


def body_of(speaker: Speaker, stream: int) -> bytes:
    """The body of an answer."""
    body = b""
    for event in speaker.events():
        if isinstance(event, DataReceived) and event.stream_id == stream:
            body += event.data
        elif isinstance(event, StreamEnded) and event.stream_id == stream:
            break
    return body
