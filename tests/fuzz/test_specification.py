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
LEAVER = {"username": "leaver", "email": "leaver@example.com", "password": PASSWORD}
START_SECONDS = 30


def program(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).with_name(name))


def post(address: str, body: dict[str, str]) -> dict[str, str]:
    """POST JSON, for JSON."""
    request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        parsed: dict[str, str] = json.load(answer)
        return parsed


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for the server's first answer."""
    for _ in range(START_SECONDS * 10):
        assert process.poll() is None, "the server ended"
        try:
            urlopen(f"{address}/health/ready").close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.fixture
def address(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A server in a process of its own, with an administrator and an account that may leave."""
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
        post(f"http://127.0.0.1:{port}/api/users", LEAVER)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(timeout=40) == 0


@pytest.mark.parametrize(("caller", "examples"), [("admin", 8), ("nobody", 3)])
@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(address: str, tmp_path: Path, caller: str, examples: int):
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "hooks",
        "PYTHONPATH": str(HERE),
        "FUZZ_URL": address,
        "FUZZ_USERNAME": LEAVER["username"],
        "FUZZ_PASSWORD": PASSWORD,
    }
    if caller == "admin":
        environment["FUZZ_TOKEN"] = post(f"{address}/api/auth/login", ADMIN)["access_token"]
    command = [program("schemathesis"), f"--config-file={HERE / 'schemathesis.toml'}", "run", f"{address}/openapi.json"]
    options = [
        "--checks=all",
        f"--max-examples={examples}",
        "--generation-deterministic",
        "--generation-allow-x00=false",  # NUL is refused wherever it stands, which schemas do not say
        "--continue-on-failure",
        "--no-color",
    ]
    done = subprocess.run(
        [*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert " passed" in done.stdout
