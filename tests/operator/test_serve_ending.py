"""How a server ends: every request that came in is answered, and no client can keep it from ending."""

import json
import signal
import time

import pytest

from tests.operator.calls import answered, call, connected, half_sent
from tests.operator.conftest import Process, Start, environment

TERM = signal.SIGTERM
GRACE = 2.0


@pytest.fixture
def process(start: Start, database_url: str) -> Process:
    """A server that is given two seconds to end."""
    more = {"server__graceful_timeout": f"{GRACE}", "server__request_timeout": "1h"}
    return start("serve", "--port", "0", environ=environment(database_url, **more))


@pytest.fixture
def url(process: Process) -> str:
    """Its address."""
    address: str = json.loads(process.wait_for('"serving"'))["url"]
    return address


def ended_within(process: Process, seconds: float, number: signal.Signals = TERM) -> int:
    """Send a signal; the exit code of a process that ends in time."""
    started = time.monotonic()
    code = process.end(number)
    assert time.monotonic() - started < seconds
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(process: Process, url: str, number: signal.Signals) -> None:
    assert ended_within(process, GRACE, number) == 0
    assert process.errors() == ""


def test_idle_connections_keep_nothing_alive(process: Process, url: str) -> None:
    fresh, used = connected(url), connected(url)
    used.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answered(used)[0] == 200
    assert ended_within(process, GRACE) == 0
    assert (fresh.recv(1), used.recv(1)) == (b"", b"")


def test_a_request_that_came_in_is_answered(process: Process, url: str) -> None:
    connection, rest = half_sent(url)
    call(f"{url}/health/live")
    process.popen.send_signal(TERM)
    process.wait_for("draining")
    connection.sendall(rest)
    status, body = answered(connection)
    assert (status, json.loads(body)["code"]) == (401, "invalid_credentials")
    assert process.end() == 0


def test_a_request_that_never_comes_whole_is_dropped(process: Process, url: str) -> None:
    connections = [half_sent(url)[0] for _ in range(20)]
    headless = connected(url)
    headless.sendall(b"GET /health/live HTT")
    call(f"{url}/health/live")
    assert ended_within(process, GRACE + 1.5) == 0
    assert "Traceback" not in process.output + process.errors()
    for connection in (*connections, headless):
        connection.close()


def test_a_client_that_does_not_read_is_dropped(process: Process, url: str) -> None:
    connection = connected(url)
    connection.settimeout(0.5)
    try:
        for _ in range(100_000):
            connection.sendall(b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    except TimeoutError:
        pass
    assert ended_within(process, GRACE + 1.5) == 0
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(start: Start, database_url: str, number: signal.Signals) -> None:
    process = start("serve", "--port", "0", environ=environment(database_url, server__graceful_timeout="1h"))
    url = json.loads(process.wait_for('"serving"'))["url"]
    connection, _ = half_sent(url)
    call(f"{url}/health/live")
    process.popen.send_signal(number)
    process.wait_for("draining")
    assert process.end(number) == 128 + number
    connection.close()


def test_readiness_says_so_before_the_socket_closes(start: Start, database_url: str) -> None:
    more = {"server__graceful_timeout": "20s", "server__drain_delay": "2s"}
    process = start("serve", "--port", "0", environ=environment(database_url, **more))
    url = json.loads(process.wait_for('"serving"'))["url"]
    process.popen.send_signal(TERM)
    process.wait_for("draining")
    status, body = call(f"{url}/health/ready")
    assert (status, body["checks"]["accepting"]) == (503, False)
    assert call(f"{url}/health/live")[0] == 200
    assert process.end() == 0


def test_no_time_to_end_is_no_time(start: Start, database_url: str) -> None:
    process = start("serve", "--port", "0", environ=environment(database_url, server__graceful_timeout="0s"))
    url = json.loads(process.wait_for('"serving"'))["url"]
    connection, _ = half_sent(url)
    call(f"{url}/health/live")
    assert ended_within(process, 1.5) == 0
    connection.close()


def test_the_software_is_not_named(process: Process, url: str) -> None:
    connection = connected(url)
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"server:" not in connection.recv(4096).lower()
    connection.close()
