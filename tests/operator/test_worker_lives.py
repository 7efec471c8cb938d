"""How workers begin, and what becomes of a server that cannot keep them alive."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.operator.calls import call, connection_to
from tests.operator.conftest import Start, children, environment, until
from tests.servers import free_port

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

WORKERS = 2
DEATHS = 6
GATE = """
import os, sys, time
from pathlib import Path
from quart import Blueprint
blueprint = Blueprint("gate", __name__)
here = Path(__file__).parent
if sys.argv[0].endswith("worker.py"):
    supervisor = os.getppid()
    (here / "arrived").touch()
    while not (here / "open").exists() and os.getppid() == supervisor:
        time.sleep(0.01)  # a file tells nobody that it is there
"""
"""A plugin that lets no worker start until a file is there."""


@pytest.mark.parametrize("kind", ["hypercorn", "granian"])
def test_nobody_is_let_in_before_a_worker_can_answer(
    start: Start, database_url: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "gate.py").write_text(GATE, encoding="utf-8")
    settings = environment(database_url, limits__enabled="false", server__workers=str(WORKERS), server__server=kind)
    url = f"http://127.0.0.1:{free_port()}"
    plugin = {"USERMGMT_PLUGINS__BLUEPRINTS": "gate:blueprint", "PYTHONPATH": str(tmp_path)}
    process = start("serve", "--port", url.rpartition(":")[2], environ={**settings, **plugin})
    until((tmp_path / "arrived").exists)
    with pytest.raises(ConnectionRefusedError):
        connection_to(url)
    (tmp_path / "open").touch()
    process.wait_for('"serving"')
    assert call(f"{url}/health/ready")[0] == 200
    assert process.end(signal.SIGTERM) == 0


def test_a_server_whose_workers_die_again_and_again_ends_with_1(start: Start, database_url: str) -> None:  # M11
    settings = environment(database_url, limits__enabled="false", server__workers=str(WORKERS))
    process = start("serve", "--port", "0", environ=settings)
    process.wait_for('"serving"')
    with suppress(FileNotFoundError):  # it has ended
        while process.popen.poll() is None:
            for pid in children(process):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert process.end() == 1
    told = [json.loads(line) for line in process.seen]
    assert next(each["failures"] for each in told if each["event"] == "gave_up") == DEATHS
    assert sum(each["event"] == "worker_died" for each in told) >= DEATHS
