"""A streaming replica made by pg_basebackup: lists come from it, and it takes over when the server dies."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.deployment.conftest import Begin, People
from tests.deployment.instances import Instance
from tests.deployment.programs import connect_plainly
from tests.deployment.traffic import Client, told, traffic
from tests.operator.calls import call
from tests.operator.conftest import PASSWORD, CommandLine, environment
from tests.servers import PostgreSQL

DATABASE = "accounts"


@pytest.fixture
def primary() -> Iterator[PostgreSQL]:
    """A server of the test's own, which may die, with a migrated database."""
    server = PostgreSQL()
    server.start()
    server.create(DATABASE)
    CommandLine(environment(server.url(DATABASE))).done("db", "upgrade")
    yield server
    server.remove()


@pytest.fixture
def standby(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """Its replica."""
    server = PostgreSQL(primary=primary)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def people_there(primary: PostgreSQL) -> People:
    """Accounts on that server."""
    return People(CommandLine(environment(primary.url(DATABASE))))


def client_of(instance: Instance) -> Client:
    """Somebody who calls an instance."""
    return Client(lambda: connect_plainly(instance.port))


def until(holds: Callable[[], bool]) -> float:
    """Wait for what must come true; the seconds it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + 20
        time.sleep(0.05)  # other processes tell nobody
    return time.monotonic() - started


def names(client: Client, **headers: str) -> list[str]:
    """The usernames of a list."""
    status, page = client.ask("GET", "/api/users?sort=username", **headers)
    assert status == 200, page
    return [user["username"] for user in page["items"]]


def test_lists_come_from_the_replica_and_without_it_from_the_server(
    begin: Begin, primary: PostgreSQL, standby: PostgreSQL, people_there: People
):
    people_there.has("boss", role="admin")
    instance = begin(primary.url(DATABASE), database__read_url=standby.url(DATABASE))
    client = client_of(instance)
    client.sign_in("boss", PASSWORD)
    until(lambda: names(client) == ["boss"])

    standby.execute("SELECT pg_wal_replay_pause()")
    people_there.has("ada")
    assert names(client) == ["boss"]  # as old as the replica
    assert names(client, Cache_Control="no-cache") == ["ada", "boss"]  # as new as was asked for
    assert client.ask("GET", "/api/users/me")[0] == 200  # a session is never looked for there
    standby.execute("SELECT pg_wal_replay_resume()")
    until(lambda: names(client) == ["ada", "boss"])

    standby.stop()
    people_there.has("bob")
    assert names(client) == ["ada", "bob", "boss"]
    standby.start()
    client.close()


def test_a_standby_that_is_promoted_is_found_by_an_address_of_two_hosts(
    begin: Begin, primary: PostgreSQL, standby: PostgreSQL, people_there: People
):
    hosts = f"host=127.0.0.1:{primary.port}&host=127.0.0.1:{standby.port}"
    url = f"postgresql://postgres@/{DATABASE}?{hosts}&target_session_attrs=read-write"
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")  # what is acknowledged is on both
    primary.execute(f"ALTER DATABASE {DATABASE} SET synchronous_commit = 'on'")
    primary.execute("SELECT pg_reload_conf()")
    instance = begin(url, database__read_url=standby.url(DATABASE))
    callers = people_there.callers(lambda: connect_plainly(instance.port))
    with traffic(callers) as seen:
        time.sleep(1)  # until the load is at work
        assert seen.faults == []
        primary.stop()
        died = time.monotonic()
        time.sleep(1)  # the load goes on without it
        standby.promote()
        promoted = time.monotonic()
        until(lambda: call(f"{instance.url}/health/ready")[0] == 200)
        time.sleep(2)  # the load goes on with the new one
    assert seen.faults
    assert {why[:3] for _, _, why in seen.faults} == {"503"}
    assert [fault for fault in seen.faults if not died - 0.5 < fault[0] < promoted + 3] == []
    told("PostgreSQL killed, its standby promoted after a second", seen)
    kept = People(CommandLine(environment(standby.url(DATABASE))))
    assert {name: kept.display_name(name) for name in seen.acknowledged} == seen.acknowledged
    instance.stop()
