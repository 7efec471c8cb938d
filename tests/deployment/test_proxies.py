"""nginx and HAProxy as `deploy/` has them, before two instances: nobody notices a restart, nobody forges an address."""

import json
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployment.conftest import People
from tests.deployment.instances import Instance
from tests.deployment.programs import NAME, Proxy, proxy
from tests.deployment.traffic import Client, told, traffic
from tests.operator.calls import call
from tests.operator.conftest import PASSWORD
from tests.servers import PostgreSQL

FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=http",
    "X-Real-IP": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
}
WITHOUT_DATABASE = ("/.well-known/jwks.json", "/health/live", "/problems/database-unavailable")
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nTE: trailers\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
)


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def before(
    request: pytest.FixtureRequest, instances: tuple[Instance, Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """The proxy before the two instances."""
    folder = tmp_path_factory.mktemp("proxy") / request.param
    with proxy(request.param, folder, *(each.port for each in instances)) as made:
        yield made


@pytest.fixture
def recorded(kind: str, tmp_path: Path) -> Iterator[tuple[Proxy, list[bytes]]]:
    """The proxy before something that notes the head of each request as it comes, and answers 200."""
    heads: list[bytes] = []

    class Recorder(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = [self.rfile.readline()]
            while lines[-1] not in {b"\r\n", b""}:
                lines.append(self.rfile.readline())
            if b"/health/" not in lines[0]:
                heads.append(b"".join(lines))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = server.server_address[1]
        with proxy(kind, tmp_path / "recorded", port, port) as made:
            yield made, heads
        server.shutdown()


def client_of(before: Proxy, source: str = "127.0.0.1") -> Client:
    """Somebody who calls through the proxy from an address."""
    return Client(lambda: before.connect(source))


def request(method: str, path: str, more: bytes = b"") -> bytes:
    """A request without a body, after which the proxy closes."""
    ending = b"" if b"Connection:" in more else b"Connection: close\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 0\r\n".encode() + more + ending + b"\r\n"


def test_the_address_on_record_is_where_the_connection_came_from(before: Proxy, people: People):
    people.has("ada")
    source = {"nginx": "127.0.0.77", "haproxy": "127.0.0.78"}[before.kind]
    client = client_of(before, source)
    client.sign_in("ada", PASSWORD, **{name.replace("-", "_"): value for name, value in FORGED.items()})
    status, sessions = client.ask("GET", "/api/users/me/sessions")
    assert status == 200
    assert source in {session["address"] for session in sessions["items"]}
    signed_in = [event for event in people.line.documents("audit", "list") if event["event"] == "login.succeeded"]
    assert source in {event["address"] for event in signed_in}
    assert "203.0.113.9" not in json.dumps([sessions, signed_in])
    client.close()


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_what_a_client_says_of_itself_and_upgrades_are_not_passed_on(recorded: tuple[Proxy, list[bytes]]):
    before, heads = recorded
    forged = "".join(f"{name}: {value}\r\n{name.lower()}: 198.51.100.1\r\n" for name, value in FORGED.items()).encode()
    assert b" 200 " in before.exchange(
        request("GET", "/api/users/me", forged + UPGRADE.replace(b"Upgrade,", b"close,"))
    )
    head = heads[-1].decode().lower()
    assert "203.0.113.9" not in head
    assert "198.51.100.1" not in head
    assert "evil.example" not in head
    lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    assert lines["x-forwarded-for"] == "127.0.0.1"
    assert lines["x-forwarded-proto"] == "https"
    assert lines["host"] == NAME
    assert not {"upgrade", "http2-settings", "te", "forwarded", "x-real-ip", "x-forwarded-host"} & lines.keys()
    assert "upgrade" not in lines.get("connection", "")


def test_an_upgrade_to_http_2_in_clear_text_is_no_way_past_the_rules(before: Proxy):
    for path in ("/health/live", "/metrics", "/%6detrics", "/metrics/x"):
        with before.connect() as connection:
            connection.settimeout(10)
            connection.sendall(request("GET", path, UPGRADE))
            status = connection.recv(65_536).split(b" ", 2)[1]
        assert status == (b"200" if path == "/health/live" else b"404")


def test_plain_http_is_sent_to_tls_and_other_names_get_nothing(before: Proxy):
    with socket.create_connection(("127.0.0.1", before.plain_port), timeout=10) as plain:
        plain.sendall(b"POST /api/auth/login?a=b HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        answer = plain.recv(65_536).decode().lower()
    assert " 308 " in answer.splitlines()[0]
    assert f"\r\nlocation: https://{NAME}/api/auth/login?a=b\r\n" in answer
    with (
        socket.create_connection(("127.0.0.1", before.port), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        ssl.create_default_context(cafile=str(before.certificate)).wrap_socket(plain, server_hostname="evil.example")


def test_answers_have_one_hsts_and_say_what_is_wrong_as_ours_do(before: Proxy, instances: tuple[Instance, Instance]):
    def ask(path: str, length: int = 0) -> tuple[int, dict[str, str], bytes]:
        asked = request("POST" if length else "GET", path).replace(b"Content-Length: 0", b"Content-Length: %d" % length)
        head, _, rest = before.exchange(asked).partition(b"\r\n\r\n")
        first, *lines = head.decode().lower().split("\r\n")
        assert sum(line.startswith("strict-transport-security:") for line in lines) == 1
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), rest

    assert ask("/health/live")[0] == 200
    status, headers, body = ask("/api/users", 65_537)
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert json.loads(body)["code"] == "body_too_large"
    for each in instances:
        each.kill()
    until(lambda: ask("/health/live")[0] == 503)
    status, headers, body = ask("/health/live")
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/problem+json", "1")
    unasked = {"nginx": "outcome_unknown", "haproxy": "overloaded"}  # nginx cannot tell that nobody was asked
    assert json.loads(body)["code"] == unasked[before.kind]
    for each in instances:
        each.start()
    until(lambda: ask("/health/live")[0] == 200)


def test_a_file_of_accounts_goes_in_and_a_list_of_everything_comes_out(before: Proxy, people: People):
    people.has("boss", role="admin")
    client = client_of(before)
    client.sign_in("boss", PASSWORD)
    start = before.kind
    rows = [
        json.dumps({"username": f"{start}{n}", "email": f"{start}{n}@example.com", "display_name": "x" * 60})
        for n in range(2_000)
    ]
    file = "\n".join(rows).encode()
    assert len(file) > 3 * 65_536
    status, report = client.ask("POST", "/api/users/import", file, Content_Type="application/x-ndjson")
    assert status == 200, report
    assert json.loads(report.splitlines()[-1])["created"] == 2_000
    status, listed = client.ask("GET", "/api/users", Accept="application/x-ndjson")
    assert status == 200
    assert sum(json.loads(line)["username"].startswith(start) for line in listed.splitlines()) == 2_000
    client.close()


def test_a_rolling_restart_under_load_fails_no_request(
    before: Proxy, instances: tuple[Instance, Instance], people: People
):
    with traffic(people.callers(before.connect)) as seen:
        time.sleep(0.5)  # until the load is at work
        for each in instances:
            each.restart()
            time.sleep(2.5)  # until it is asked again, before the other one goes
    assert seen.faults == []
    assert min(seen.asked.values()) > 100, seen.asked
    assert {name: people.display_name(name) for name in seen.acknowledged} == seen.acknowledged
    told(f"{before.kind}, both instances restarted", seen)


def test_a_killed_instance_costs_only_what_was_under_way_on_it(
    before: Proxy, instances: tuple[Instance, Instance], people: People
):
    callers = people.callers(before.connect)
    with traffic(callers) as seen:
        time.sleep(0.5)  # until the load is at work
        instances[0].kill()
        killed = time.monotonic()
        time.sleep(2)  # the load goes on with one
        instances[0].start()
        time.sleep(2)  # and with both again
    assert len(seen.faults) <= len(callers)
    assert [fault for fault in seen.faults if fault[0] > killed + 1] == []
    for name, acknowledged in seen.acknowledged.items():
        kept = people.display_name(name).split()[1]
        assert int(kept) - int(acknowledged.split()[1]) in {0, 1}  # written, and perhaps killed before it said so
    told(f"{before.kind}, an instance killed", seen)


def test_without_a_database_instances_answer_for_themselves_and_public_keys_are_there(
    before: Proxy, instances: tuple[Instance, Instance], postgresql: PostgreSQL
):
    client = client_of(before)
    sign_in = ("POST", "/api/auth/login", {"username": "nobody", "password": PASSWORD})
    for path in WITHOUT_DATABASE:
        assert client.ask("GET", path)[0] == 200, path
    postgresql.stop()
    try:
        until(lambda: all(call(f"{each.url}/health/ready")[0] == 503 for each in instances))
        time.sleep(2)  # until the proxy has asked each of them twice
        for _ in range(4):  # whichever instance it asks
            for path in WITHOUT_DATABASE:
                assert client.ask("GET", path)[0] == 200, path
            status, problem = client.ask(*sign_in)
            assert (status, problem["code"]) == (503, "database_unavailable")
            status, readiness = client.ask("GET", "/health/ready")
            assert (status, readiness["checks"]["database"]) == (503, False)
    finally:
        postgresql.start()
    until(lambda: client.ask("GET", "/health/ready")[0] == 200)
    assert client.ask(*sign_in)[1]["code"] == "invalid_credentials"
    client.close()


def test_a_reload_of_one_instance_with_two_workers_fails_no_request(
    before: Proxy, instances: tuple[Instance, Instance], people: People
):
    instances[0].restart(server__workers="2")
    with traffic(people.callers(before.connect)) as seen:
        instances[0].process.popen.send_signal(signal.SIGHUP)
        for _ in range(2):
            instances[0].process.wait_for('"worker_ready"')
        time.sleep(1)  # the load goes on with the new workers
    assert seen.faults == []
    assert min(seen.asked.values()) > 50, seen.asked
    told(f"{before.kind}, an instance reloaded", seen)
    instances[0].restart()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)  # other processes tell nobody
