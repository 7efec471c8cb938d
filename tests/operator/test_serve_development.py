"""`usermgmt serve --dev`: the first minutes."""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.operator.calls import DIRECT, SECONDS, call, sign_in
from tests.operator.conftest import PASSWORD, PROGRAM, CommandLine, Process, Start
from tests.servers import free_port

TERM = signal.SIGTERM


def banner_of(process: Process) -> dict[str, str]:
    """What a start printed for people."""
    process.wait_for("in development mode")
    process.wait_for("  curl ")
    lines = process.seen[process.seen.index(next(line for line in process.seen if "development mode" in line)) :]
    fields = dict(line.strip().split("  ", 1) for line in lines if line.startswith("  ") and "  " in line.strip())
    return {
        **{name: value.strip() for name, value in fields.items()},
        "curl": next(line.strip() for line in lines if line.startswith("  curl ")),
    }


def pasted(curl_line: str, program: str | None) -> Any:
    """What the line with curl answers when it is pasted; without curl, a request made of its words."""
    if program is not None:
        command = curl_line.replace("curl", f"{program} -s --noproxy '*'", 1)
        done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)
    words = shlex.split(curl_line)
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    return call(words[1], body)[1]


@pytest.fixture
def here() -> CommandLine:
    """The command line beside the server, without any option."""
    return CommandLine({})


def test_the_first_start_makes_everything_and_tells_how_to_begin(
    start: Start, tmp_path: Path, curl: str | None, here: CommandLine
) -> None:
    process = start("serve", "--dev", "--port", "0")
    banner = banner_of(process)
    assert banner["Data"] == str(tmp_path / "data")
    assert banner["Database"] == str(tmp_path / "data" / "usermgmt.db")
    assert banner["Documentation"] == banner["API"] + "/docs"
    signed_in = pasted(banner["curl"], curl)
    assert (signed_in["user"]["username"], signed_in["user"]["email"]) == ("admin", "admin@example.com")
    assert signed_in["user"]["roles"] == ["admin"]
    assert here.documents("users", "list")[0]["username"] == "admin"
    assert process.end(TERM) == 0
    assert process.errors() == ""


def test_what_it_keeps_is_private(start: Start, tmp_path: Path) -> None:
    process = start("serve", "--dev", "--port", "0")
    banner_of(process)
    data = tmp_path / "data"
    assert data.stat().st_mode & 0o777 == 0o700
    assert (data / "secret.key").stat().st_mode & 0o777 == 0o600
    assert (data / "usermgmt.db").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in data.iterdir() if "usermgmt.db" not in path.name) == ["secret.key"]


def test_a_later_start_keeps_everything_and_prints_no_password(
    start: Start, tmp_path: Path, curl: str | None, here: CommandLine
) -> None:
    first = start("serve", "--dev", "--port", "0")
    password = banner_of(first)["Password"].split()[0]
    assert first.end(TERM) == 0
    secret = (tmp_path / "data/secret.key").read_text()
    here.create("ada")

    second = start("serve", "--dev", "--port", "0")
    banner = banner_of(second)
    assert "Password" not in banner
    assert "usermgmt admin reset-password admin" in banner["Administrator"]
    assert "../" not in banner["Administrator"]
    assert pasted(banner["curl"], curl)["status"] == "ok"
    assert password not in second.output
    assert (tmp_path / "data/secret.key").read_text() == secret
    assert sign_in(banner["API"], "admin", password) == 200
    assert sign_in(banner["API"], "ada", PASSWORD) == 200
    here.done("admin", "reset-password", "admin", "--password-stdin", given="a new one for the admin")
    assert sign_in(banner["API"], "admin", "a new one for the admin") == 200
    assert sign_in(banner["API"], "admin", password) == 401


def test_a_database_that_was_made_with_another_secret_is_refused(start: Start, tmp_path: Path) -> None:
    first = start("serve", "--dev", "--port", "0")
    password = banner_of(first)["Password"].split()[0]
    assert first.end(TERM) == 0
    file = tmp_path / "data/secret.key"
    secret = file.read_text()
    file.unlink()
    for other in (None, "another-secret-of-at-least-32-bytes-3f9a1c77"):
        if other is not None:
            file.write_text(other)
        refused = start("serve", "--dev", "--port", "0")
        assert refused.end() == 78
        told = refused.errors()
        assert "data/usermgmt.db was made with another secret; put data/secret.key back, or remove" in told
        assert "Traceback" not in told
        assert file.exists() == (other is not None)
    file.write_text(secret)
    again = start("serve", "--dev", "--port", "0")
    assert sign_in(banner_of(again)["API"], "admin", password) == 200
    assert again.end(TERM) == 0
    for each in tmp_path.glob("data/*"):
        each.unlink()
    assert "Password" in banner_of(start("serve", "--dev", "--port", "0"))


def test_a_name_that_is_taken_is_not_taken_over(start: Start, here: CommandLine) -> None:
    first = start("serve", "--dev", "--port", "0")
    banner_of(first)
    first.end(TERM)
    Path("data/usermgmt.db").unlink()
    here.done("db", "upgrade")
    here.create("admin")

    banner = banner_of(start("serve", "--dev", "--port", "0"))
    assert banner["Administrator"] == "admin2"
    assert sign_in(banner["API"], "admin2", banner["Password"].split()[0]) == 200
    roles = {user["username"]: user["roles"] for user in here.documents("users", "list")}
    assert roles == {"admin": ["user"], "admin2": ["admin"]}


def test_a_port_that_is_taken_is_told_with_how_to_choose_another() -> None:
    def refusal(port: int, **more: str) -> tuple[int, str]:
        command = [PROGRAM, "serve", "--dev", "--port", str(port)]
        done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        told = f"Error: Cannot listen on 127.0.0.1 port {taken}: Address already in use."
        assert refusal(taken) == (1, f"{told} Choose another port: --port 9000, or `make run PORT=9000`.\n")
        assert refusal(0, USERMGMT_SERVER__MANAGEMENT_BIND=f"127.0.0.1:{taken}") == (1, f"{told}\n")


def test_the_first_administrator_can_be_chosen(start: Start) -> None:
    chosen = {
        "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "root",
        "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "root@example.org",
        "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": PASSWORD,
    }
    process = start("serve", "--dev", "--port", "0", environ=chosen)
    banner = banner_of(process)
    assert banner["Administrator"].startswith("root,")
    assert PASSWORD not in process.output
    assert sign_in(banner["API"], "root", PASSWORD) == 200


def test_programs_get_the_banner_as_json(start: Start) -> None:
    process = start("serve", "--dev", "--port", "0", "--json")
    document = json.loads(process.wait_for('"password"'))
    assert sign_in(document["url"], document["admin"], document["password"]) == 200


def test_the_data_directory_can_be_elsewhere(start: Start, tmp_path: Path) -> None:
    there = {"USERMGMT_SERVER__DATA_DIR": str(tmp_path / "else/where")}
    banner_of(start("serve", "--dev", "--port", "0", environ=there))
    assert (tmp_path / "else/where/usermgmt.db").exists()
    assert (tmp_path / "else/where/secret.key").exists()
    assert not (tmp_path / "data").exists()
    assert CommandLine(there).documents("users", "list")[0]["username"] == "admin"


def test_two_first_starts_at_once_make_one_administrator(start: Start, here: CommandLine) -> None:
    processes = [start("serve", "--dev", "--port", "0", "--json") for _ in range(2)]
    documents = [json.loads(process.wait_for('"password"')) for process in processes]
    (password,) = {document["password"] for document in documents} - {None}
    assert [document["admin"] for document in documents] == ["admin", "admin"]
    assert [user["username"] for user in here.documents("users", "list", "--role", "admin")] == ["admin"]
    assert [sign_in(document["url"], "admin", password) for document in documents] == [200, 200]
    assert [process.end(TERM) for process in processes] == [0, 0]


def test_two_first_starts_on_one_port_make_one_server_that_knows_the_password(start: Start) -> None:
    port = str(free_port())
    processes = [start("serve", "--dev", "--port", port, "--json") for _ in range(2)]
    while not (over := [process for process in processes if process.popen.poll() is not None]):
        time.sleep(0.1)  # either may be the one that ends
    (loser,) = over
    assert loser.end() == 1
    assert port in loser.errors()
    (winner,) = [process for process in processes if process is not loser]
    document = json.loads(winner.wait_for('"password"'))
    assert sign_in(document["url"], document["admin"], document["password"]) == 200


def test_the_documentation_is_there(start: Start) -> None:
    banner = banner_of(start("serve", "--dev", "--port", "0"))
    with DIRECT.open(banner["Documentation"], timeout=SECONDS) as page:
        assert page.status == 200
        assert page.headers.get_content_type() == "text/html"


@pytest.mark.parametrize(
    ("words", "environ", "told"),
    [
        (["--workers", "2"], {}, "server.workers"),
        (["--port", "-1"], {}, "server.port"),
        ([], {"USERMGMT_SECRET_KEYS": "changeme"}, "secret.keys"),
        ([], {"USERMGMT_NOPE": "1"}, "USERMGMT_NOPE"),
        ([], {"USERMGMT_REGISTRATION__DEFAULT_ROLE": "nope"}, "registration.default_role"),
    ],
)
def test_what_no_mode_accepts_is_78(start: Start, words: list[str], environ: Mapping[str, str], told: str) -> None:
    process = start("serve", "--dev", "--port", "0", *words, environ=environ)
    assert process.end() == 78
    explanation = process.errors()
    assert told in explanation
    assert "Traceback" not in explanation + process.output
    assert "Password" not in process.output


def test_a_data_directory_that_cannot_be_made_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    process = start("serve", "--dev", "--port", "0")
    assert process.end() == 78
    told = process.errors()
    assert "server.data_dir: data is not a directory" in told
    assert "secret.keys" not in told
    other = start("serve", "--dev", "--port", "0", environ={"USERMGMT_SERVER__DATA_DIR": "/proc/here"})
    assert other.end() == 1
    assert len(other.errors().splitlines()) == 1
