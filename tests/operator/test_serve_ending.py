"""How a server ends: every request that came in is answered, and no client can keep it from ending."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from socket import SO_RCVBUF, SOL_SOCKET, socket
from urllib.parse import urlsplit

import pytest

from tests.operator.calls import BODY, HEAD, answered, call, connection_to
from tests.operator.conftest import PASSWORD, CommandLine, Process, Start, environment

TERM, INT = signal.SIGTERM, signal.SIGINT
LONG = "1h"
SHORT_SECONDS = 1.0
GENEROUS_SECONDS = 20.0
"""Far more than an end takes on a busy machine, far less than the hour that a bad one would."""

BUSY_SECONDS = 3.0
"""What a busy machine takes on top of a promised time."""
STREAMED = 5_000
"""Accounts, of which a client that reads slowly sees few."""


@pytest.fixture
def serving(start: Start, database_url: str) -> Callable[..., tuple[Process, str]]:
    """Start a server with further settings; the process and its address."""

    def begin(**more: str) -> tuple[Process, str]:
        settings = {"server__graceful_timeout": LONG, "server__request_timeout": LONG, **more}
        process = start("serve", "--port", "0", environ=environment(database_url, **settings))
        return process, json.loads(process.wait_for('"serving"'))["url"]

    return begin


@pytest.fixture
def connect() -> Iterator[Callable[..., socket]]:
    """Open a connection to a server and send something; closed after the test."""
    with ExitStack() as stack:

        def opened(url: str, sent: bytes = b"") -> socket:
            connection = stack.enter_context(connection_to(url))
            connection.sendall(sent)
            return connection

        yield opened


Serving = Callable[..., tuple[Process, str]]
Connect = Callable[..., socket]


def ended(process: Process, number: signal.Signals = TERM) -> int:
    """Send a signal; the exit code of a process that ends in good time."""
    started = time.monotonic()
    code = process.end(number)
    assert time.monotonic() - started < GENEROUS_SECONDS
    return code


@pytest.mark.parametrize("number", [TERM, INT])
def test_an_idle_server_ends_at_once(serving: Serving, number: signal.Signals) -> None:
    process, _ = serving()
    assert ended(process, number) == 0
    assert process.errors() == ""


def test_idle_connections_keep_nothing_alive(serving: Serving, connect: Connect) -> None:
    process, url = serving()
    fresh, used = connect(url), connect(url, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    begun = connect(url, b"GET /health/live HTT")
    assert answered(used)[0] == 200
    assert ended(process) == 0
    assert [connection.recv(1) for connection in (fresh, used, begun)] == [b"", b"", b""]


def test_a_request_that_came_in_is_answered(serving: Serving, connect: Connect) -> None:
    process, url = serving()
    connection = connect(url, HEAD + BODY[:-5])
    call(f"{url}/health/live")
    process.popen.send_signal(TERM)
    process.wait_for("draining")
    connection.sendall(BODY[-5:])
    status, body = answered(connection)
    assert (status, json.loads(body)["code"]) == (401, "invalid_credentials")
    assert process.end() == 0


@pytest.mark.parametrize("seconds", [0.0, SHORT_SECONDS])
def test_a_request_that_never_comes_whole_is_dropped(serving: Serving, connect: Connect, seconds: float) -> None:
    process, url = serving(server__graceful_timeout=str(seconds))
    for _ in range(20):
        connect(url, HEAD + BODY[:-5])
    call(f"{url}/health/live")
    assert ended(process) == 0
    assert "Traceback" not in process.output + process.errors()


def test_a_client_that_does_not_read_is_dropped(serving: Serving, connect: Connect) -> None:
    process, url = serving(server__graceful_timeout=str(SHORT_SECONDS))
    connection = connect(url)
    connection.settimeout(1.0)
    with pytest.raises(TimeoutError):
        connection.sendall(b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
    assert ended(process) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_stream_that_is_read_slowly_ends_with_the_patience(serving: Serving, line: CommandLine, workers: str) -> None:
    line.create("root", "--role", "admin")
    line.done("seed", "--users", str(STREAMED), "--password-stdin", given=PASSWORD)
    more = {"server__graceful_timeout": str(SHORT_SECONDS), "server__workers": workers, "limits__enabled": "false"}
    process, url = serving(**more)
    token = call(f"{url}/api/auth/login", {"username": "root", "password": PASSWORD})[1]["access_token"]
    lines = "GET /api/users HTTP/1.1", "Host: x", "Accept: application/x-ndjson", f"Authorization: Bearer {token}"
    with socket() as connection:
        connection.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)  # so that little is on its way
        connection.settimeout(GENEROUS_SECONDS)
        connection.connect(("127.0.0.1", urlsplit(url).port))
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        received = connection.recv(1024)
        assert b" 200 " in received
        started = time.monotonic()
        process.popen.send_signal(TERM)
        with suppress(ConnectionResetError):
            while process.popen.poll() is None and (piece := connection.recv(512)):
                received += piece
                time.sleep(0.02)  # it is the slowness that this is about
    assert process.end() == 0
    assert time.monotonic() - started < SHORT_SECONDS + 1 + BUSY_SECONDS
    assert received.count(b'"username"') < STREAMED / 2
    assert "Traceback" not in process.output + process.errors()


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_second_signal_ends_it_at_once(serving: Serving, connect: Connect, number: signal.Signals) -> None:
    process, url = serving()
    connect(url, HEAD + BODY[:-5])
    call(f"{url}/health/live")
    process.popen.send_signal(number)
    process.wait_for("draining")
    assert ended(process, number) == 128 + number


def test_readiness_says_so_before_the_socket_closes(serving: Serving) -> None:
    process, url = serving(server__drain_delay="3s")
    process.popen.send_signal(TERM)
    process.wait_for("draining")
    status, body = call(f"{url}/health/ready")
    assert (status, body["checks"]["accepting"]) == (503, False)
    assert call(f"{url}/health/live")[0] == 200
    assert process.end() == 0


def test_the_software_is_not_named(serving: Serving, connect: Connect) -> None:
    _, url = serving()
    connection = connect(url, b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"server:" not in connection.recv(4096).lower()


def test_a_hangup_ends_nobody_who_is_no_terminals(serving: Serving) -> None:
    process, url = serving()
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for("nothing_reloaded")
    assert call(f"{url}/health/live")[0] == 200
    assert ended(process) == 0
