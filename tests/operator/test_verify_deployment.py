"""`usermgmt verify-deployment`: our server holds, a bad one does not, and nothing is left behind."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from tests.operator.conftest import PASSWORD, CommandLine, Start, environment
from tests.servers import free_port
from usermgmt.operator.deployment_account_checks import ACCOUNT_CHECKS
from usermgmt.operator.deployment_checks import CHECKS

ROOT = {
    "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "root",
    "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "root@example.com",
    "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": PASSWORD,
}


class Careless(BaseHTTPRequestHandler):
    """Says yes to everything, and tells what it is."""

    protocol_version = "HTTP/1.1"
    server_version = "quart"

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self.say_yes
        raise AttributeError(name)

    def say_yes(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0) if "Transfer-Encoding" not in self.headers else 0)
        body = json.dumps({"id": "x", "access_token": "a.b.c", "refresh_token": "r", "error": "Traceback"}).encode()
        self.send_response(201 if self.command == "POST" and self.path == "/api/users" else 200)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - what the library calls it
        """Say nothing."""


@pytest.fixture
def careless() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Careless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_our_server_holds_and_nothing_is_left(start: Start, line: CommandLine, database_url: str):
    process = start("serve", "--port", "0", environ={**environment(database_url), **ROOT})
    url = json.loads(process.wait_for('"serving"'))["url"]
    words = ("verify-deployment", url, "--username", "root", "--password-stdin", "--json")
    report = json.loads(line.run(*words, given=f"{PASSWORD}\n").stdout)
    assert [each for each in report["checks"] if each["outcome"] in ("failed", "not_checked")] == []
    assert len(report["checks"]) == len(CHECKS) + len(ACCOUNT_CHECKS)
    assert report["counts"]["ok"] >= 24
    assert report["requests"] < 600
    assert [account["username"] for account in line.documents("users", "list")] == ["root"]
    assert len(line.documents("audit", "list", "--event", "user.erased")) == 2


def test_anybody_gets_a_report_to_read(start: Start, line: CommandLine, database_url: str):
    process = start("serve", "--port", "0", environ=environment(database_url))
    url = json.loads(process.wait_for('"serving"'))["url"]
    told = line.done("verify-deployment", url)
    assert "ok            Ambiguous framing is refused, and the connection closed. [I05]" in told
    assert told.splitlines()[-1].endswith("0 FAILED, 1 warning")


def test_a_careless_server_fails_nearly_everything(careless: str):
    result = CommandLine({}).run(
        "verify-deployment", careless, "--username", "root", "--password-stdin", "--json", given="x\n"
    )
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["counts"]["failed"] >= len(CHECKS) // 2


def test_what_cannot_be_reached_is_told():
    line = CommandLine({})
    line.refused(69, "verify-deployment", f"http://127.0.0.1:{free_port()}")
    line.refused(2, "verify-deployment", "ftp://127.0.0.1")
    line.refused(2, "verify-deployment", "nonsense")


def test_every_check_says_what_it_is_about_and_names_its_cases():
    listed = [*CHECKS, *ACCOUNT_CHECKS]
    assert all(each.text.endswith(".") for each in listed)
    assert all(each.cases.split() for each in listed)
    assert len({each.text for each in listed}) == len(listed)
