"""Granian in the place of Hypercorn: the same promises, as far as it keeps them."""

import json
import signal
import time
from collections.abc import Callable

import pytest

from tests.operator.calls import BODY, HEAD, answered, call, connection_to
from tests.operator.conftest import Process, Start, environment

Serving = Callable[..., tuple[Process, str]]


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
    until_ready(url)
    status, body = call(f"{url}/api/users", {"username": "ada", "email": "ada@example.com", "password": "x"})
    assert (status, body["code"]) == (422, "validation_failed")
    assert call(f"{url}/health/ready")[0] == 200
    assert process.end(number) == 0
    assert process.errors() == ""


def test_a_request_that_came_in_is_answered(serving: Serving) -> None:
    process, url = serving(server__graceful_timeout="20s")
    until_ready(url)
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
    until_ready(url)
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
    until_ready(url)
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


def test_one_process_and_no_more(start: Start, database_url: str) -> None:
    environ = environment(database_url, limits__enabled="false", server__server="granian", server__workers="2")
    process = start("serve", environ=environ)
    assert process.end() == 78
    assert "must be 1 with granian" in process.errors()


def until_ready(url: str) -> None:
    """It is told just before the first connection is taken."""
    for _ in range(200):
        try:
            call(f"{url}/health/live")
        except OSError:
            time.sleep(0.05)
            continue
        return
