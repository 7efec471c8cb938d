"""`usermgmt serve` in production: it starts when nothing is wrong, and otherwise tells every reason."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.operator.calls import call, sign_in
from tests.operator.conftest import PASSWORD, CommandLine, Process, Start, environment
from tests.servers import PostgreSQL

TERM = signal.SIGTERM
ROOT = {
    "bootstrap__admin_username": "root",
    "bootstrap__admin_email": "root@example.com",
    "bootstrap__admin_password": PASSWORD,
}


def served_at(process: Process) -> str:
    """The address that a start tells in its log."""
    url: str = json.loads(process.wait_for('"serving"'))["url"]
    return url


def refused(process: Process, code: int) -> str:
    """The explanation of a start that ended with this code."""
    assert process.end() == code, (process.output, process.errors())
    explanation = process.errors()
    assert "Traceback" not in explanation + process.output
    return explanation


@pytest.fixture
def stopped_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server that is not running yet."""
    server = PostgreSQL()
    yield server
    server.stop()


def test_it_serves_a_current_database_and_ends_with_0(start: Start, database_url: str) -> None:
    process = start("serve", "--port", "0", environ=environment(database_url))
    assert call(f"{served_at(process)}/health/ready") == (
        200,
        {"status": "ok", "checks": {"accepting": True, "database": True, "signing_key": True}},
    )
    assert process.end(TERM) == 0
    assert process.errors() == ""
    assert "password" not in process.output.lower()
    for line in process.seen:
        json.loads(line)


def test_nobody_is_an_administrator_by_default(start: Start, database_url: str) -> None:
    process = start("serve", "--port", "0", environ=environment(database_url))
    served_at(process)
    assert "usermgmt admin create" in process.output
    assert CommandLine(environment(database_url)).documents("users", "list") == []


def test_every_reason_is_told_at_once(start: Start, empty_database_url: str) -> None:
    wrong = {**environment(empty_database_url), "USERMGMT_SECRET_KEYS": "short", "USERMGMT_LOGS__LEVEL": "loud"}
    wrong |= {"USERMGMT_CORS__ORIGINS": "*", "USERMGMT_CORS__CREDENTIALS": "true", "USERMGMT_SERVRE__PORT": "1"}
    explanation = refused(start("serve", "--workers", "2", environ=wrong), 78)
    told = ("secret.keys", "logs.level", "cors.origins", "USERMGMT_SERVRE__PORT", "server.workers", "database: has no")
    assert [reason in explanation for reason in told] == [True] * len(told)
    assert explanation.count("secret.keys") == 1
    document = json.loads(refused(start("serve", "--json", "--workers", "2", environ=wrong), 78))
    assert len(document["error"]["reasons"]) == len(told)


def test_without_any_setting_it_does_not_start(start: Start, tmp_path: Path) -> None:
    explanation = refused(start("serve"), 78)
    assert "secret.keys" in explanation
    assert "--allow-sqlite" in explanation or "database.allow_sqlite" in explanation
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_is_not_current_is_78_and_stays_so(start: Start, empty_database_url: str) -> None:
    environ = environment(empty_database_url)
    assert "usermgmt db upgrade" in refused(start("serve", "--port", "0", environ=environ), 78)
    assert CommandLine(environ).document("db", "current")["current"] is None


def test_migrate_brings_the_schema(start: Start, empty_database_url: str) -> None:
    process = start("serve", "--port", "0", "--migrate", environ=environment(empty_database_url))
    assert call(f"{served_at(process)}/health/ready")[0] == 200


def test_sqlite_is_allowed_by_a_flag(start: Start, sqlite_template: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_bytes(sqlite_template.read_bytes())
    environ = {"USERMGMT_DATABASE__URL": "sqlite:///mine.db", "USERMGMT_SECRET_KEYS": SECRET}
    assert "database.url" in refused(start("serve", "--port", "0", environ=environ), 78)
    served_at(start("serve", "--port", "0", "--allow-sqlite", environ=environ))


def test_a_default_role_that_does_not_exist_is_78(start: Start, database_url: str) -> None:
    environ = environment(database_url, registration__default_role="nope")
    assert "registration.default_role" in refused(start("serve", "--port", "0", environ=environ), 78)


def test_the_first_administrator_is_made_once(start: Start, database_url: str) -> None:
    environ = environment(database_url, **ROOT)
    first = start("serve", "--port", "0", environ=environ)
    assert sign_in(served_at(first), "root", PASSWORD) == 200
    assert PASSWORD not in first.output
    first.end(TERM)

    other = environment(
        database_url, **{**ROOT, "bootstrap__admin_username": "other", "bootstrap__admin_password": "x"}
    )
    served_at(start("serve", "--port", "0", environ=other))
    assert [user["username"] for user in CommandLine(environ).documents("users", "list")] == ["root"]


def test_two_starts_at_once_on_an_empty_database_make_one_administrator(start: Start, empty_database_url: str) -> None:
    environ = environment(empty_database_url, **ROOT)
    processes = [start("serve", "--port", "0", "--migrate", environ=environ) for _ in range(3)]
    urls = [served_at(process) for process in processes]
    assert [sign_in(url, "root", PASSWORD) for url in urls] == [200] * 3
    line = CommandLine(environ)
    assert [user["username"] for user in line.documents("users", "list")] == ["root"]
    assert sum("made_admin" in process.output for process in processes) == 1
    assert [process.end(TERM) for process in processes] == [0] * 3


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"bootstrap__admin_username": "ada"}, ["bootstrap.admin_username"]),
        ({"bootstrap__admin_email": "ada@example.com"}, ["bootstrap.admin_email"]),
        ({"bootstrap__admin_password": "short"}, ["bootstrap.admin_password"]),
        (
            {
                "bootstrap__admin_username": "a/b",
                "bootstrap__admin_email": "no",
                "bootstrap__admin_password": "password",
            },
            ["bootstrap.admin_username", "bootstrap.admin_email", "bootstrap.admin_password"],
        ),
    ],
)
def test_a_first_administrator_that_cannot_be_is_78(
    start: Start, database_url: str, wanted: dict[str, str], told: list[str]
) -> None:
    line = CommandLine(environment(database_url))
    line.create("ada")
    explanation = refused(start("serve", "--port", "0", environ=environment(database_url, **{**ROOT, **wanted})), 78)
    assert [row.split(":")[0].strip() for row in explanation.splitlines()[1:]] == told
    assert [user["roles"] for user in line.documents("users", "list")] == [["user"]]


def test_a_port_in_use_is_one_line_and_nothing_was_done(start: Start, empty_database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environ = environment(empty_database_url, **ROOT)
        explanation = refused(start("serve", "--migrate", "--port", port, environ=environ), 1)
    assert len(explanation.splitlines()) == 1
    assert port in explanation
    assert CommandLine(environ).document("db", "current")["current"] is None


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_here_is_one_line(start: Start, database_url: str, host: str) -> None:
    explanation = refused(start("serve", "--host", host, "--port", "0", environ=environment(database_url)), 1)
    assert len(explanation.splitlines()) == 1


def test_a_database_that_stays_away_is_waited_for_and_then_one_line(start: Start) -> None:
    environ = environment("postgresql://app:hidden-word@127.0.0.1:1/app", database__start_timeout="1s")
    process = start("serve", "--port", "0", environ=environ)
    explanation = refused(process, 1)
    assert len(explanation.splitlines()) == 1
    assert "hidden-word" not in explanation + process.output
    waits = [json.loads(line) for line in process.seen]
    assert len(waits) >= 2
    assert {wait["event"] for wait in waits} == {"database_not_reachable"}


def test_a_password_that_the_database_refuses_is_told(start: Start, stopped_postgresql: PostgreSQL) -> None:
    stopped_postgresql.start()
    url = stopped_postgresql.url("nope").replace("postgres@", "postgres:hidden-word@")
    explanation = refused(start("serve", "--port", "0", environ=environment(url, database__start_timeout="0s")), 1)
    assert '"nope" does not exist' in explanation
    assert "hidden-word" not in explanation


def test_a_database_that_comes_late_is_served(start: Start, stopped_postgresql: PostgreSQL) -> None:
    environ = environment(stopped_postgresql.url("postgres"))
    process = start("serve", "--port", "0", "--migrate", environ=environ)
    process.wait_for("database_not_reachable")
    stopped_postgresql.start()
    assert call(f"{served_at(process)}/health/ready")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_for_the_database_ends_it(start: Start, number: signal.Signals) -> None:
    process = start("serve", "--port", "0", environ=environment("postgresql://app@127.0.0.1:1/app"))
    process.wait_for("database_not_reachable")
    assert process.end(number) == 0
    assert process.errors() == ""
