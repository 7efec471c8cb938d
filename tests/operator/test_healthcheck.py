"""`usermgmt healthcheck` and `usermgmt openapi`."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.operator.conftest import CommandLine
from tests.servers import free_port


class Stub(BaseHTTPRequestHandler):
    """A server that is ready or not, as its path says."""

    def do_GET(self) -> None:
        """Answer with the status that the path names; 200 at /health/ready."""
        status = 200 if self.path == "/health/ready" else int(self.path.strip("/"))
        body = json.dumps({"status": "ok" if status == 200 else "unavailable"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of the stub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_ready_server_is_0(port: int, host: str) -> None:
    line = CommandLine({"USERMGMT_SERVER__HOST": host, "USERMGMT_SERVER__PORT": str(port)})
    assert "is ready" in line.done("healthcheck")
    assert line.document("healthcheck")["body"] == {"status": "ok"}


def test_a_proxy_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    CommandLine({}).done("healthcheck", "--url", f"http://127.0.0.1:{port}/health/ready")


@pytest.mark.parametrize("status", [503, 500, 404])
def test_another_answer_is_1(port: int, status: int) -> None:
    assert str(status) in CommandLine({}).refused(1, "healthcheck", "--url", f"http://127.0.0.1:{port}/{status}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/", "nonsense", "http://[::1"])
def test_no_answer_is_1(url: str) -> None:
    assert "does not answer" in CommandLine({}).refused(1, "healthcheck", "--url", url)


def test_the_openapi_document_needs_nothing(tmp_path: Path) -> None:
    for words in (["openapi"], ["openapi", "--json"]):
        document = json.loads(CommandLine({}).done(*words))
        assert document["openapi"].startswith("3.1")
        assert "/api/auth/login" in document["paths"]
    assert list(tmp_path.iterdir()) == []
