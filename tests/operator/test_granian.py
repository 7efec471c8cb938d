"""Granian in the place of Hypercorn: the same promises, as far as it keeps them."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.operator.calls import BODY, HEAD, answered, call, connection_to
from tests.operator.conftest import Process, Start, environment
from tests.servers import free_port

Serving = Callable[..., tuple[Process, str]]

GET = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def serving(start: Start, database_url: str) -> Serving:
    """Start a server with further settings; the process and its address."""

    def begin(**more: str) -> tuple[Process, str]:
        process = start("serve", "--server", "granian", "--port", "0", environ=environment(database_url, **more))
        return process, json.loads(process.wait_for('"serving"'))["url"]

    return begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends(serving: Serving, number: signal.Signals) -> None:
    process, url = serving()
    status, body = call(f"{url}/api/users", {"username": "ada", "email": "ada@example.com", "password": "x"})
    assert (status, body["code"]) == (422, "validation_failed")
    assert call(f"{url}/health/ready")[0] == 200
    assert process.end(number) == 0
    assert process.errors() == ""


def test_a_request_that_came_in_is_answered(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="20s")
    with connection_to(url) as connection:
        connection.sendall(HEAD + BODY[:-5])
        call(f"{url}/health/live")
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for("draining")
        connection.sendall(BODY[-5:])
        assert answered(connection)[0] == 401
    assert process.end() == 0


def test_what_a_client_leaves_open_keeps_nobody_alive(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="1s", server__request_timeout="1h")
    held = [connection_to(url) for _ in range(10)]
    for connection in held:
        connection.sendall(HEAD + BODY[:-5])
    call(f"{url}/health/live")
    assert process.end(signal.SIGTERM) == 0
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"Transfer-Encoding: xchunked"],
        [b"X-Long: " + b"x" * 200_000],
    ],
)
def test_what_is_no_clear_request_is_refused_or_closed(serving: Serving, lines: list[bytes]) -> None:
    _, url = serving()
    with connection_to(url) as connection:
        head = b"\r\n".join([b"POST /api/auth/login HTTP/1.1", b"Host: x", *lines, b"", b"0\r\n\r\n"])
        smuggled = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        try:
            connection.sendall(head + smuggled)
            seen = b""
            while piece := connection.recv(65536):
                seen += piece
        except ConnectionError:
            return
        assert seen.count(b"HTTP/1.1 ") <= 1
        assert not seen or seen.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))


CHUNKED = (
    b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
NONE_OF_OURS = {
    b"GET /health/live HTTP/1.1\r\n\r\n": 400,
    b"GET /health/live HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n": 400,
    b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n": 405,
    b"CONNECT /api/users HTTP/1.1\r\nHost: x\r\n\r\n": 405,
    b"GET elsewhere.example:80 HTTP/1.1\r\nHost: x\r\n\r\n": 400,
    b"GET elsewhere HTTP/1.1\r\nHost: x\r\n\r\n": 400,
    b"GET http://[::1/api HTTP/1.1\r\nHost: x\r\n\r\n": 400,
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET: 400,
    b"GET /api/users/me HTTP/1.1\r\nHost: x\r\n" + WEBSOCKET: 401,
    CHUNKED + b"zz\r\n": 400,
    CHUNKED + b"f" * 17 + b"\r\n": 400,
    CHUNKED + b"1\r\nabc\r\n0\r\n\r\n": 400,
}


def test_what_is_none_of_ours_is_the_fault_of_who_asks(serving: Serving) -> None:  # I05, I08
    process, url = serving()
    with connection_to(url) as connection:
        connection.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert answered(connection)[0] == 200
    with connection_to(url) as connection:
        for _ in range(2):  # it rests as others do, and ends with them
            connection.sendall(GET.removesuffix(b"\r\n") + WEBSOCKET)
            assert answered(connection)[0] == 200
    for request, status in NONE_OF_OURS.items():
        with connection_to(url) as connection:
            connection.sendall(request)
            assert answered(connection)[0] == status, request
    assert process.end(signal.SIGTERM) == 0
    assert process.errors() == ""


def test_probes_and_metrics_have_a_listener_of_their_own(serving: Serving) -> None:
    place = f"127.0.0.1:{free_port()}"
    process, url = serving(metrics__enabled="true", server__management_bind=place)
    assert call(f"http://{place}/health/ready")[0] == 200
    assert call(f"http://{place}/api/users/me")[0] == 404
    assert call(f"{url}/api/users/me")[0] == 401
    assert process.end(signal.SIGTERM) == 0


def test_who_waits_at_the_end_is_told_to_go_elsewhere(serving: Serving) -> None:
    process, url = serving(server__drain_delay="1s")
    with connection_to(url) as connection:
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for("draining")
        connection.sendall(GET)
        assert answered(connection)[0] == 503
        time.sleep(1.1)  # into the moment in which answers are the last of their connections
        connection.sendall(GET)
        assert b"connection: close" in connection.recv(4096).lower()
    assert process.end() == 0
