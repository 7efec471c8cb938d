"""`hypercorn asgi:app`: the same conditions as `usermgmt serve`."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.operator.calls import call
from tests.operator.conftest import CommandLine, Process, Start, environment
from tests.servers import free_port

ROOT = Path(__file__).parents[2]


def hypercorn(start: Start, environ: dict[str, str]) -> tuple[Process, str]:
    """Start the application under Hypercorn; the process and its address."""
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "hypercorn", "asgi:app", "--workers", "0", "--bind", address]
    return start(program=words, cwd=ROOT, environ=environ), f"http://{address}"


def ready(process: Process, url: str) -> Any:
    """What readiness answers, once it answers."""
    while process.popen.poll() is None:
        try:
            return call(f"{url}/health/ready")[1]
        except OSError:
            time.sleep(0.1)
    raise AssertionError(process.errors())


def test_it_serves(start: Start, database_url: str) -> None:
    process, url = hypercorn(start, environment(database_url))
    assert ready(process, url) == {"status": "ok", "checks": {"accepting": True, "database": True, "signing_key": True}}
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


@pytest.mark.parametrize("name", ["asgi.py"])
def test_nothing_else_has_effects_at_import(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) < 10
