"""The running server does what its specification says, whatever is sent to it (H20)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.servers import free_port

HERE = Path(__file__).parent
PASSWORD = "correct horse battery staple"
ADMIN = {"username": "root", "password": PASSWORD}
START_SECONDS = 30
COUNT = int(os.environ.get("FUZZ_COUNT", "0"))  # examples of each operation; `make fuzz` asks for many
EVERYTHING = "examples,coverage,fuzzing,stateful"
WITHOUT_COVERAGE = "examples,fuzzing,stateful"  # a stranger is refused before a body is read; administrators try them


def program(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


def post(address: str, body: dict[str, str]) -> dict[str, str]:
    """POST JSON, for JSON."""
    request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        parsed: dict[str, str] = json.load(answer)
        return parsed


def get(address: str, token: str | None = None) -> bytes:
    """GET, with a token if there is one; fails unless it is answered with a success."""
    request = Request(address, headers={"Authorization": f"Bearer {token}"} if token is not None else {})
    with urlopen(request) as answer:
        body: bytes = answer.read()
        return body


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for the server's first answer."""
    for _ in range(START_SECONDS * 10):
        assert process.poll() is None, "the server ended"
        try:
            urlopen(f"{address}/health/ready").close()
            return
        except OSError:
            time.sleep(0.1)  # it does not listen yet, and tells nobody when it does
    raise AssertionError("the server does not answer")


@pytest.fixture
def address(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A server in a process of its own, with an administrator."""
    port = free_port()
    environment = {
        **os.environ,
        "USERMGMT_DATABASE__URL": database_url,
        "USERMGMT_DATABASE__ALLOW_SQLITE": "true",
        "USERMGMT_SECRET_KEYS": "tests-only-5d0b7c61f2a94e83bb1c7a90c4d8e6",
        "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": ADMIN["username"],
        "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "root@example.com",
        "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": PASSWORD,
        "USERMGMT_PASSWORDS__BCRYPT_COST": "4",
        "USERMGMT_LIMITS__ENABLED": "false",
        "USERMGMT_DOCS__ENABLED": "true",
        "USERMGMT_LOGS__LEVEL": "warning",
    }
    command = [program("usermgmt"), "serve", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(timeout=40) == 0


def succeeded(report: Path) -> set[str]:
    """The operations that were answered with a success at least once."""
    found = set()
    for line in report.read_text(encoding="utf-8").splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder") or {}
        for name, interaction in recorder.get("interactions", {}).items():
            asked = recorder["cases"][name]["value"]
            label = recorder["label"]
            if (
                label.startswith(f"{asked['method']} ")
                and (interaction["response"] or {}).get("status_code", 500) < 300
            ):
                found.add(label)
    return found


def run_schemathesis(
    folder: Path, address: str, count: int, phases: str, tokens: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    """Call everything, as whoever the tokens belong to; the report is left in the folder."""
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(HERE),
        "FUZZ_URL": address,
        **({"FUZZ_TOKEN": tokens["access_token"], "FUZZ_REFRESH_TOKEN": tokens["refresh_token"]} if tokens else {}),
    }
    command = [program("schemathesis"), f"--config-file={HERE / 'schemathesis.toml'}", "run", f"{address}/openapi.json"]
    options = [
        "--checks=all",
        f"--max-examples={count}",
        f"--phases={EVERYTHING if COUNT else phases}",
        *([] if COUNT else ["--generation-deterministic"]),
        "--generation-allow-x00=false",  # NUL is refused wherever it stands, which schemas do not say
        "--continue-on-failure",
        "--no-color",
        "--report=ndjson",
        f"--report-ndjson-path={folder / 'report.ndjson'}",
    ]
    return subprocess.run(
        [*command, *options], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_as_an_administrator(address: str, tmp_path: Path):
    tokens = post(f"{address}/api/auth/login", ADMIN)
    done = run_schemathesis(tmp_path, address, COUNT or 6, EVERYTHING, tokens)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
    # every operation did what it is for, not only refuse, and the caller was signed in to the end
    specification = json.loads(get(f"{address}/openapi.json"))
    operations = {f"{method.upper()} {path}" for path, item in specification["paths"].items() for method in item}
    assert operations - succeeded(tmp_path / "report.ndjson") == set()
    if not COUNT:  # a long run outlives its first token
        assert get(f"{address}/api/auth/session", tokens["access_token"])


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_as_nobody(address: str, tmp_path: Path):
    done = run_schemathesis(tmp_path, address, COUNT or 2, WITHOUT_COVERAGE, None)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
    assert {"POST /api/users", "POST /api/auth/login", "POST /api/auth/refresh"} <= succeeded(
        tmp_path / "report.ndjson"
    )
