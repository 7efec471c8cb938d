"""The real pgbouncer in transaction mode, as `deploy/` has it, between two instances and PostgreSQL."""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.deployment.conftest import Begin, People
from tests.deployment.instances import Instance
from tests.deployment.programs import DEPLOY, connect_plainly, found, listens, rendered, running
from tests.deployment.traffic import Client, told, traffic
from tests.operator.conftest import PASSWORD, CommandLine, environment
from tests.servers import PostgreSQL, free_port

SIGN_IN = {"username": "newuser", "password": "secure_password"}


class Pooler:
    """pgbouncer before one database; it can leave and come back."""

    def __init__(self, server: PostgreSQL, database: str) -> None:
        self.port = free_port()
        self.url = f"postgresql://postgres:its-password@127.0.0.1:{self.port}/usermgmt"
        self.folder = Path(tempfile.mkdtemp(prefix="usermgmt-pgbouncer-"))
        self.folder.chmod(0o755)  # as root it runs as who may not read what root's are
        self._user = server.user
        self._stack = ExitStack()
        (self.folder / "userlist.txt").write_text('"postgres" "its-password"\n')
        (self.folder / "pgbouncer.ini").write_text(
            rendered(
                DEPLOY / "pgbouncer" / "pgbouncer.ini",
                {
                    "port=5432 dbname=usermgmt": f"port={server.port} dbname={database}",
                    "listen_port = 6432": f"listen_port = {self.port}",
                    "/etc/pgbouncer/userlist.txt": str(self.folder / "userlist.txt"),
                },
            )
        )

    def start(self) -> None:
        """Start, and wait until it listens."""
        command = (found("pgbouncer"), str(self.folder / "pgbouncer.ini"))
        self._stack.enter_context(running(*command, port=self.port, log=self.folder / "log", user=self._user))

    def stop(self) -> None:
        """End it, dropping every connection."""
        self._stack.close()
        assert not listens(self.port)

    def remove(self) -> None:
        """End it for good."""
        self._stack.close()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def pooler(postgresql: PostgreSQL, database: str) -> Iterator[Pooler]:
    """pgbouncer that runs."""
    made = Pooler(postgresql, database)
    made.start()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def pooled(begin: Begin, pooler: Pooler) -> Iterator[tuple[Instance, Instance]]:
    """Two instances whose connections it shares: forty between them, for the twenty that it has."""
    settings = {"database__pooler": "transaction", "database__pool_size": "20"}
    made = begin(pooler.url, **settings), begin(pooler.url, **settings)
    yield made
    for each in made:
        each.put_away()


def client_of(instance: Instance) -> Client:
    """Somebody who calls an instance."""
    return Client(lambda: connect_plainly(instance.port))


def test_an_account_lives_its_whole_life_on_alternating_instances(pooled: tuple[Instance, Instance], people: People):
    one, other = map(client_of, pooled)
    status, user = one.ask("POST", "/api/users", {**SIGN_IN, "email": "user@example.com"})
    assert status == 201, user
    other.sign_in(**SIGN_IN)
    one.token, one.refresh_token = other.token, other.refresh_token
    assert one.ask("GET", f"/api/users/{user['id']}")[1]["username"] == "newuser"
    assert (
        other.ask("PUT", f"/api/users/{user['id']}", {"email": "other@example.com"})[1]["email"] == "other@example.com"
    )
    status, tokens = one.ask("POST", "/api/auth/refresh", {"refresh_token": one.refresh_token})
    assert status == 200
    other.token = one.token = tokens["access_token"]
    assert other.ask("POST", "/api/auth/logout")[0] == 204
    assert one.ask("GET", "/api/users/me")[0] == 401
    one.close()
    other.close()


def test_fifty_refreshes_at_once_through_two_instances_have_one_successor(
    pooled: tuple[Instance, Instance], people: People
):
    people.has("racer")
    first = client_of(pooled[0])
    first.sign_in("racer", PASSWORD)
    answers: list[tuple[int, str]] = []

    def refresh(instance: Instance) -> None:
        client = client_of(instance)
        status, document = client.ask("POST", "/api/auth/refresh", {"refresh_token": first.refresh_token})
        answers.append((status, document.get("refresh_token", "")))
        client.close()

    threads = [threading.Thread(target=refresh, args=(pooled[n % 2],)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50
    assert {status for status, _ in answers} == {200}
    assert len({token for _, token in answers}) == 1
    first.close()


def test_lists_imports_and_streams_work(pooled: tuple[Instance, Instance], people: People):
    people.has("boss", role="admin")
    one, other = map(client_of, pooled)
    one.sign_in("boss", PASSWORD)
    other.token = one.token
    file = "\n".join(json.dumps({"username": f"row{n}", "email": f"row{n}@example.com"}) for n in range(3_000)).encode()
    status, report = one.ask("POST", "/api/users/import", file, Content_Type="application/x-ndjson")
    assert (status, json.loads(report.splitlines()[-1])["created"]) == (200, 3_000)
    for query in (
        "sort=-username&q=row1",
        "sort=email&status=active&role=user",
        "count=exact",
        "count=estimated&q=row",
    ):
        seen, path = 0, f"/api/users?limit=100&{query}"
        for client in (one, other) * 3:
            status, page = client.ask("GET", path)
            assert status == 200, page
            seen += len(page["items"])
            if page["next_cursor"] is None:
                break
            path = f"/api/users?limit=100&{query}&cursor={page['next_cursor']}"
        assert seen > 100, query
    status, everything = other.ask("GET", "/api/users", Accept="application/x-ndjson")
    assert status == 200
    assert len(everything.splitlines()) >= 3_001
    one.close()
    other.close()


def test_further_starts_through_one_pooler_do_not_meet(pooled: tuple[Instance, Instance]):
    """What an earlier client had prepared stays in the connections of PostgreSQL."""
    for each in pooled:
        each.restart(server__drain_delay="0s")


def test_a_pooler_that_restarts_under_load_costs_503_and_nothing_that_was_acknowledged(
    pooler: Pooler, pooled: tuple[Instance, Instance], people: People
):
    ways = [partial(connect_plainly, each.port) for each in pooled]
    with traffic(people.callers(*ways)) as seen:
        time.sleep(0.5)  # until the load is at work
        pooler.stop()
        time.sleep(1)  # the load goes on without it
        pooler.start()
        back = time.monotonic()
        time.sleep(4)  # and with it again
    assert seen.faults
    assert {why[:3] for _, _, why in seen.faults} == {"503"}
    assert [fault for fault in seen.faults if fault[0] > back + 3] == []
    told("pgbouncer restarted, away for a second", seen)
    assert {name: people.display_name(name) for name in seen.acknowledged} == seen.acknowledged


def test_migrations_are_for_postgresql_itself(postgresql: PostgreSQL, people: People):
    name = f"m{os.urandom(6).hex()}"
    postgresql.create(name)
    made = Pooler(postgresql, name)
    made.start()
    try:
        line = CommandLine({**environment(made.url), "USERMGMT_DATABASE__POOLER": "transaction"})
        assert "database.pooler" in line.refused(78, "db", "upgrade")
        assert line.document("db", "current")["current"] is None
        CommandLine(environment(postgresql.url(name))).done("db", "upgrade")
        assert line.document("db", "check")["current"]
    finally:
        made.remove()
        postgresql.drop(name)
