"""Connections: how many, how long a head may take, and what is no clear HTTP/1.1."""

import json
import re
import signal
import socket
import time
from contextlib import ExitStack, closing, suppress

import pytest

from tests.operator.calls import answered, call, connection_to
from tests.operator.conftest import Process, Start, environment

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"username": "nobody", "password": "wrong"}'
POST = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # what is refused never reaches it


@pytest.fixture
def url(start: Start, database_url: str) -> str:
    """The address of a server with few connections and little patience."""
    limits = {"server__head_timeout": "1s", "server__max_connections": "20", "server__request_timeout": "2s"}
    process: Process = start("serve", "--port", "0", environ={**environment(database_url), **_variables(limits)})
    return str(json.loads(process.wait_for('"serving"'))["url"])


def _variables(settings: dict[str, str]) -> dict[str, str]:
    return {f"USERMGMT_{name.upper()}": value for name, value in settings.items()}


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection; what it sent before is dropped."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def exchange(url: str, request: bytes) -> tuple[bytes, bool]:
    """All that comes back on a connection, and whether the server closed it."""
    with closing(connection_to(url)) as connection:
        connection.settimeout(3)
        connection.sendall(request)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except ConnectionResetError:
            return received, True
        except TimeoutError:
            return received, False
        return received, True


def test_a_head_that_does_not_end_is_dropped_and_others_are_served(url: str):  # I02
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connection_to(url))) for _ in range(15)]
        started = time.monotonic()
        for connection in slow:
            connection.sendall(b"GET / HT")
        for letter in b"TP/1.1\r\nA: b":
            for connection in slow:
                try:
                    connection.sendall(bytes([letter]))
                except OSError:
                    continue
            assert call(f"{url}/health/live")[0] == 200
            time.sleep(0.1)  # a byte now and then is the attack
        for connection in slow:
            connection.settimeout(3)
            assert is_closed(connection)
        assert time.monotonic() - started < 10


def test_an_idle_connection_stays_and_a_second_request_has_its_own_time(url: str):
    with closing(connection_to(url)) as connection:
        for _ in range(2):
            time.sleep(1.2)  # longer than a head may take, which has not begun
            connection.sendall(GET + b"\r\n")
            assert answered(connection)[0] == 200


def test_a_body_that_does_not_end_is_refused(url: str):
    received, _ = exchange(url, POST + b"Content-Length: 100\r\n\r\n{")
    assert received.startswith(b"HTTP/1.1 408 ")


def test_one_connection_too_many_is_told_so(url: str):
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connection_to(url))) for _ in range(20)]
        for connection in held:
            connection.sendall(GET + b"\r\n")
            assert answered(connection)[0] == 200
        received, is_over = exchange(url, GET + b"\r\n")
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in received
        assert is_over
    for _ in range(50):
        received, _ = exchange(url, GET + b"Connection: close\r\n\r\n")
        if received.startswith(b"HTTP/1.1 200 "):
            return
        time.sleep(0.1)  # the server, a process of its own, tells nobody that it counts less
    raise AssertionError("the connections that were closed still count")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 43\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: 43\r\nContent-Length: 44\r\n",
        b"Content-Length: +43\r\n",
        b"Content-Length: 43, 44\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 0x2b\r\n",
        b"Content-Length: \xd9\xa4\r\n",
        b"Content-Length : 43\r\n",
        b"X: a\nContent-Length: 43\r\n" + b"Transfer-Encoding: chunked\r\n",
        b"X\x00: y\r\n",
        b"X: a\rb\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_closed(url: str, head: bytes):  # I05
    received, is_over = exchange(url, POST + head + b"\r\n" + b"2b\r\n" + BODY + b"\r\n0\r\n\r\n" + GET + b"\r\n")
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), received[:200]
    assert received.count(b"HTTP/1.1 ") == 1
    assert is_over


@pytest.mark.parametrize("chunk", [b"fffffffffffffffff\r\n", b"-1\r\n", b"zz\r\n"])
def test_a_chunk_of_no_size_is_refused(url: str, chunk: bytes):  # I05
    received, is_over = exchange(url, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + BODY + b"\r\n0\r\n\r\n")
    assert not received.startswith(b"HTTP/1.1 2"), received[:200]
    assert is_over


def test_an_upgrade_to_http_2_without_tls_is_ignored(url: str):  # I06
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    with closing(connection_to(url)) as connection:
        connection.sendall(GET + upgrade + b"\r\n")
        assert answered(connection)[0] == 200
        connection.sendall(GET.replace(b"/health/live", b"/api/users") + b"\r\n")
        assert answered(connection)[0] == 401


WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = WEBSOCKET + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
FRAME = b"\x81\x05hello"


@pytest.mark.parametrize(
    "asked",
    [
        GET + WEBSOCKET + b"\r\n",
        GET + WEBSOCKET.replace(b"websocket", b"WebSocket, foo") + b"\r\n",
        GET + HANDSHAKE + b"\r\n",
        GET + HANDSHAKE + b"Content-Length: 5\r\n\r\nhello",
        GET + HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_an_upgrade_to_a_websocket_is_ignored_and_the_connection_goes_on(url: str, asked: bytes):
    with closing(connection_to(url)) as connection:
        for _ in range(2):
            connection.sendall(asked)
            assert answered(connection)[0] == 200
        connection.sendall(GET + b"\r\n")
        assert answered(connection)[0] == 200


def test_a_method_in_small_letters_is_none(url: str):
    with closing(connection_to(url)) as connection:
        for method in (b"get", b"head", b"Get", b"delete"):
            connection.sendall(GET.replace(b"GET", method) + b"\r\n")
            assert answered(connection)[0] == 405
        connection.sendall(GET + b"\r\n")
        assert answered(connection)[0] == 200


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.0"])
def test_another_version_in_the_clear_is_refused(url: str, version: bytes):
    received, is_over = exchange(url, GET.replace(b"HTTP/1.1", b"HTTP/" + version) + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [b"400"]
    assert is_over


def test_what_comes_after_the_handshake_of_a_websocket_is_a_head_that_does_not_end(url: str):
    for target, status in ((b"/health/live", b"200"), (b"http://[", b"400")):
        received, is_over = exchange(url, GET.replace(b"/health/live", target) + HANDSHAKE + b"\r\n" + FRAME * 10)
        assert re.findall(rb"HTTP/1.1 (\d+) ", received) == [status]
        assert is_over


@pytest.mark.parametrize("fast_path", ["true", "false"])
def test_who_asks_for_a_websocket_keeps_nobody_alive(start: Start, database_url: str, fast_path: str):
    process = start("serve", "--port", "0", environ=environment(database_url, server__fast_path=fast_path))
    url = json.loads(process.wait_for('"serving"'))["url"]
    with ExitStack() as stack:
        for head in (WEBSOCKET, HANDSHAKE):
            held = stack.enter_context(closing(connection_to(url)))
            held.sendall(GET + head + b"\r\n")
            assert held.recv(12)
        began = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10  # a third of `server.graceful_timeout`
    assert "Traceback" not in process.output + process.errors()


def test_http_2_that_was_not_agreed_on_is_refused(url: str):  # I06
    received, is_over = exchange(url, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert is_over


def test_heads_have_a_length(url: str):
    for head in (b"X: " + b"a" * 20_000 + b"\r\n", b"".join(b"X%d: y\r\n" % number for number in range(3_000))):
        received, is_over = exchange(url, GET + head + b"\r\n")
        assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 ")), received[:100]
        assert is_over
    for number, status in ((98, b"200"), (99, b"431"), (1_500, b"431")):  # with Host and Connection
        received, is_over = exchange(url, GET + b"Connection: close\r\n" + b"a: b\r\n" * number + b"\r\n")
        assert (received[9:12], is_over) == (status, True)


def test_the_log_is_one_document_a_line_whatever_a_path_holds(start: Start, database_url: str):  # I08, K02
    process = start("serve", "--port", "0", environ=environment(database_url))
    url = json.loads(process.wait_for('"serving"'))["url"]
    paths = [b'/%0a%0d{"a":1}', b"/\xc3\xa9%00", b'/a"b', b"/%1b[31m", b"/?token=canary-4711", b"/" + b"a" * 8_000]
    for path in paths:
        exchange(url, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nUser-Agent: \x1b[2J\xff\r\nConnection: close\r\n\r\n")
    for host in (b"evil.example", b".", b"a b", b"\xff", b"x:99999", b"[::1", b""):
        exchange(url, b"GET /api/users/me HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert process.end(15) == 0
    lines = [json.loads(line) for line in process.seen]
    assert sum(line["event"] == "request" for line in lines) >= 8
    assert "canary-4711" not in str(lines)
    assert "\x1b" not in "".join(process.seen)


EARLY = b"PATCH /api/users/me HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def test_an_answer_that_is_quicker_than_the_body_is_seen_and_the_connection_goes_on(url: str):
    with closing(connection_to(url)) as connection:
        for _ in range(3):
            connection.sendall(EARLY % 10)
            assert answered(connection)[0] == 401
            connection.sendall(b'{"a": ')
            connection.sendall(b'"b"}' + GET + b"\r\n")
            assert answered(connection)[0] == 200
        connection.sendall(EARLY.replace(b"Host: x", b"Host: x\r\nConnection: close") % 10)
        assert answered(connection)[0] == 401
        connection.sendall(b'{"a": "b"}')
        assert connection.recv(1) == b""


@pytest.mark.parametrize("sent", [0, 5, 400_000])
def test_a_body_that_does_not_end_after_its_answer_is_not_awaited_for_long(url: str, sent: int):
    with closing(connection_to(url)) as connection:
        connection.settimeout(10)
        connection.sendall(EARLY % 60_000 if sent < 60_000 else EARLY % 1_000_000)
        assert answered(connection)[0] in {401, 413}
        with suppress(OSError):
            connection.sendall(b"x" * sent)
        assert is_closed(connection)
        assert call(f"{url}/health/live")[0] == 200
