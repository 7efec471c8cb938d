"""`hypercorn asgi:app`: the same conditions as `usermgmt serve`."""

import json
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.operator.calls import answered, call, connection_to
from tests.operator.conftest import CommandLine, Process, Start, environment
from tests.servers import free_port

ROOT = Path(__file__).parents[2]


def hypercorn(start: Start, environ: dict[str, str], *, workers: int = 0) -> tuple[Process, str]:
    """Start the application under Hypercorn; the process and its address."""
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "hypercorn", "asgi:app", "--workers", str(workers), "--bind", address]
    return start(program=words, cwd=ROOT, environ=environ), f"http://{address}"


def ready(process: Process, url: str) -> Any:
    """What readiness answers, once it answers."""
    while process.popen.poll() is None:
        try:
            return call(f"{url}/health/ready")[1]
        except OSError:
            time.sleep(0.1)  # it does not listen yet, and tells nobody when it does
    raise AssertionError(process.errors())


def test_it_serves(start: Start, database_url: str) -> None:
    process, url = hypercorn(start, environment(database_url))
    assert ready(process, url) == {"status": "ok", "checks": {"accepting": True, "database": True, "signing_key": True}}
    assert process.end(signal.SIGTERM) == 0


GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
UPGRADE = b"Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def received(connection: socket.socket, sent: bytes) -> bytes:
    """All that comes back until the server closes."""
    connection.sendall(sent)
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_have_the_limits_of_the_settings(start: Start, database_url: str) -> None:
    limits = {"server__max_connections": "2", "server__head_timeout": "500ms"}
    process, url = hypercorn(start, environment(database_url, **limits), workers=1)
    ready(process, url)
    both = b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for sent, answer in (
        (GET + UPGRADE + b"Connection: close\r\n\r\n", b"200"),
        (GET + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n", b"431"),
        (GET + b"a: b\r\n" * 100 + b"\r\n", b"431"),  # with Host one too many
        (GET.replace(b"GET", b"POST") + both, b"400"),
        (GET, b""),  # which does not end
    ):
        with connection_to(url) as connection:
            told = received(connection, sent)
            assert (told.partition(b" ")[2][:3], bool(told)) == (answer, bool(answer))
    with ExitStack() as stack:
        for _ in range(2):
            held = stack.enter_context(connection_to(url))
            held.sendall(GET + b"\r\n")
            assert answered(held)[0] == 200
        with connection_to(url) as connection:
            assert received(connection, GET + b"\r\n").startswith(b"HTTP/1.1 503 ")
    assert process.end(signal.SIGTERM) == 0


def test_settings_that_are_not_fit_for_production_are_told(start: Start) -> None:
    process, _ = hypercorn(start, {"USERMGMT_SERVER__PORT": "many"})
    assert process.end() == 78
    explanation = process.errors()
    assert "Traceback" not in explanation
    assert [key in explanation for key in ("secret.keys", "database.url", "server.port")] == [True] * 3


def test_a_schema_that_is_not_current_is_logged(start: Start, empty_database_url: str) -> None:
    environ = environment(empty_database_url)
    process, _ = hypercorn(start, environ)
    assert process.end() == 78
    (logged,) = [json.loads(line) for line in process.seen if "not_started" in line]
    assert "usermgmt db upgrade" in str(logged["reasons"])
    assert "Traceback" not in process.output + process.errors()
    assert CommandLine(environ).document("db", "current")["current"] is None
