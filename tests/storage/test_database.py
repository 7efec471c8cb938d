"""What a database can do to us, and what a client sees of it: a 503 in good time, and all is well when it is back."""

import asyncio
import gc
import os
import sqlite3
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from tests.conftest import settings_for
from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from tests.servers import PostgreSQL
from usermgmt.errors import DatabaseUnavailable
from usermgmt.operator import migrations
from usermgmt.roles.models import Role, RoleGrant
from usermgmt.settings import Settings
from usermgmt.storage import engines, watchdog
from usermgmt.storage.database import Database
from usermgmt.storage.faults import RepeatableConflict, repeated_on_conflict
from usermgmt.users.reads import fetch_users

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

GOOD_TIME = 2.0 + 2.0  # what a client is promised, and what a busy test machine takes on top
EVE = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that stand above the test."""
    return dict(getattr(request.function, "flags", {}))


def given(**values: Any) -> Any:
    """Settings of the application under one test, with __ for the dot."""

    def mark(test: Any) -> Any:
        test.flags = {name.replace("__", "."): value for name, value in values.items()}
        return test

    return mark


def taken(server: Server) -> int:
    """How many connections are out of their pools."""
    database = server.runtime.database
    return sum({id(e.pool): e.pool.checkedout() for e in (database._writer, database._reader)}.values())


async def all_returned(server: Server) -> None:
    """No connection stays out of its pool; a background task may have one for a moment."""
    await until(5, lambda: asyncio.sleep(0, taken(server) == 0))


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Any]:
    """A connection of somebody else to the same PostgreSQL database."""
    connection = await asyncpg.connect(settings.database.url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def until(seconds: float, holds: Any) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # pools and the server end by themselves


async def in_good_time(call: Any) -> Any:
    """An answer that does not keep its client waiting."""
    started = time.perf_counter()
    answer = await call
    assert time.perf_counter() - started < GOOD_TIME
    return answer


async def unavailable(call: Any, code: str = "database_unavailable") -> None:
    problem = await problem_of(await in_good_time(call), 503, code)
    assert "errors" not in problem


# Types and transactions


async def test_a_time_without_a_zone_is_refused_before_it_is_stored(server: Server):
    naive = datetime(2026, 11, 23, 12, 0)  # noqa: DTZ001 - that is the point
    for bad in (naive, datetime.min, datetime.max):  # noqa: DTZ901
        with pytest.raises(StatementError, match="zone"):
            async with server.runtime.database.begin() as session:
                session.add(Role(name="x", description="", built_in=False, created_at=bad, updated_at=bad))
    with pytest.raises(StatementError, match="zone"):
        async with server.runtime.database.read() as session:
            await session.execute(select(Role).where(Role.created_at > naive))
    assert await server.rows("SELECT name FROM roles WHERE name = 'x'") == []


async def test_a_time_comes_back_as_the_same_instant_in_utc(server: Server):
    instants = [
        datetime(2026, 11, 23, 12, 0, 0, 123_456, timezone(timedelta(hours=5, minutes=45))),
        datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=-11))),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ]
    for number, instant in enumerate(instants):
        async with server.runtime.database.begin() as session:
            row = Role(name=f"x{number}", description="", built_in=False, created_at=instant, updated_at=instant)
            session.add(row)
        async with server.runtime.database.read() as session:
            found = (await session.scalars(select(Role.created_at).where(Role.created_at == instant))).one()
        assert found == instant
        assert found.tzinfo is UTC


async def test_a_database_that_was_closed_leaves_nothing_behind(settings: Settings):
    await Database(settings.database).close()  # of a process's first one the tests keep the dialect for the others
    database = Database(settings.database)
    assert await database.coalesced(fetch_users, uuid4()) is None
    left = {name: weakref.ref(held) for name, held in parts_of(database).items()}
    await database.close()
    del database
    gc.collect()
    assert {name for name, held in left.items() if held() is not None} == set()


def parts_of(database: Database) -> dict[str, Any]:
    reader = database._reader.sync_engine
    return {"database": database, "engine": reader, "dialect": reader.dialect, "pool": reader.pool}


async def test_a_transaction_is_kept_when_its_block_is_left_and_undone_when_it_raises(server: Server):
    async with server.runtime.database.begin() as session:
        await session.execute(text("UPDATE roles SET description = 'kept' WHERE name = 'user'"))
    with pytest.raises(DBAPIError):  # noqa: PT012 - what raises is the second statement
        async with server.runtime.database.begin() as session:
            await session.execute(text("UPDATE roles SET description = 'undone' WHERE name = 'user'"))
            await session.execute(text("UPDATE no_such_table SET x = 1"))
    assert await server.rows("SELECT description FROM roles WHERE name = 'user'") == [("kept",)]
    await all_returned(server)


async def test_foreign_keys_hold_on_both_databases(server: Server, ada: Person):
    with pytest.raises((IntegrityError, RepeatableConflict)):
        async with server.runtime.database.begin() as session:
            session.add(RoleGrant(user_id=uuid4(), role="user", scope="*", granted_at=datetime.now(UTC)))
    await all_returned(server)
    await server.execute("DELETE FROM users")
    assert await server.rows("SELECT user_id FROM role_grants UNION SELECT user_id FROM sessions") == []


# Repeating what lost


async def test_losing_once_is_repeated_and_losing_twice_is_unavailable():  # L05
    attempts = 0

    @repeated_on_conflict
    async def act(losses: int, /) -> str:
        nonlocal attempts
        attempts += 1
        if attempts <= losses:
            raise RepeatableConflict
        return "done"

    assert (await act(0), attempts) == ("done", 1)
    attempts = 0
    assert (await act(1), attempts) == ("done", 2)
    attempts = 0
    with pytest.raises(DatabaseUnavailable):
        await act(2)
    assert attempts == 2


@on_postgresql
async def test_a_deadlock_is_repeated_inside(server: Server, settings: Settings, ada: Person):  # L05
    async def waits() -> bool:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return bool(await other.fetchval(waiting))

    async with connected(settings) as other:
        await other.execute("SET deadlock_timeout = '30s'")  # so that ours is the one that notices, and gives way
        transaction = other.transaction()
        await transaction.start()
        await other.execute("INSERT INTO login_names VALUES ('lovelace', 'username', $1)", uuid4())
        renaming = asyncio.create_task(ada.patch("/api/users/me", json={"username": "lovelace"}))
        await until(5, waits)  # it holds the account and waits for the name
        await other.execute("UPDATE users SET display_name = 'x' WHERE id = $1", ada.id)
        await transaction.rollback()
        answer = await renaming
    assert answer.status_code == 200, await answer.get_data(as_text=True)
    assert await server.rows("SELECT username, version, display_name FROM users") == [("lovelace", 2, None)]
    assert len(await server.events("user.updated")) == 1
    await all_returned(server)


# Faults, as the server names them

STATES = {
    DatabaseUnavailable: ["08000", "08006", "28P01", "3D000", "53100", "53200", "53300", "53400", "55P03", "57014",
                          "57P01", "57P02", "57P03", "58000", "58030", "25006", "XX000"],
    RepeatableConflict: ["40001", "40P01", "23503", "23505"],
    DBAPIError: ["22001", "22P02", "25P02", "42501", "42P01", "P0001"],
}  # fmt: skip


@on_postgresql
async def test_a_fault_that_passes_is_told_from_a_bug(server: Server):
    for kind, states in STATES.items():
        for state in states:
            fault = text(f"DO $$ BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{state}'; END $$")
            with pytest.raises(kind) as raised:
                async with server.runtime.database.begin() as session:
                    await session.execute(fault)
            assert type(raised.value) is kind or kind is DBAPIError, state
            with pytest.raises(DatabaseUnavailable if kind is RepeatableConflict else kind):
                async with server.runtime.database.read() as session:
                    await session.execute(fault)
            await all_returned(server)


# Too many at once


@on_postgresql
@given(database__pool_size=2, database__pool_timeout="500ms", database__statement_timeout="1s")
async def test_more_than_the_pool_can_serve_are_refused_in_good_time(
    server: Server, settings: Settings, ada: Person
):  # M04
    async with connected(settings) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            calls = [in_good_time(ada.get("/api/users/me")) for _ in range(100)]
            statuses = Counter(answer.status_code for answer in await asyncio.gather(*calls))
            assert statuses == {503: 100}
            await unavailable(ada.get("/api/users/me"))
            assert (await in_good_time(ada.get("/livez"))).status_code == 200
        answers = await asyncio.gather(*(ada.get("/api/users/me") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    await all_returned(server)


@on_postgresql
@given(database__pool_size=2, database__pool_timeout="300ms")
async def test_a_pool_of_slow_statements_recovers(server: Server, ada: Person):  # M04
    async def slow() -> None:
        async with server.runtime.database.read() as session:
            await session.execute(text("SELECT pg_sleep(1)"))

    sleeping = [asyncio.create_task(slow()) for _ in range(2)]
    await until(5, lambda: asyncio.sleep(0, taken(server) == 2))
    await unavailable(ada.get("/api/users/me"))
    await unavailable(server.nobody().post("/api/users", json=EVE))
    assert (await ada.get("/health/ready")).status_code == 503
    await asyncio.gather(*sleeping)
    assert (await ada.get("/api/users/me")).status_code == 200
    assert (await ada.get("/health/ready")).status_code == 200
    await all_returned(server)


@on_postgresql
@given(database__statement_timeout="300ms")
async def test_a_statement_that_takes_too_long_is_given_up(server: Server):
    with pytest.raises(DatabaseUnavailable):
        async with server.runtime.database.begin() as session:
            await session.execute(text("SELECT pg_sleep(30)"))
    await all_returned(server)
    assert await server.rows("SHOW lock_timeout") == [("300ms",)]
    assert await server.rows("SHOW idle_in_transaction_session_timeout") == [("600ms",)]
    assert await server.rows("SHOW application_name") == [("usermgmt",)]


# Away and back


@pytest.fixture(scope="module")
def spare() -> Iterator[PostgreSQL]:
    """A PostgreSQL server that a test may stop."""
    server = PostgreSQL()
    server.start()
    asyncio.run(migrations.upgrade(settings_for(server.create("template")).database))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def doomed(spare: PostgreSQL) -> AsyncIterator[Server]:
    """An application on the server that may be stopped."""
    name = f"t{os.urandom(6).hex()}"
    url = spare.create(name, template="template")
    spare.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')  # what is acknowledged survives the stop
    server = Server(settings_for(url))
    async with server.running():
        yield server
    spare.drop(name)


async def test_without_postgresql_every_request_is_503_and_with_it_all_is_well_again(
    doomed: Server, spare: PostgreSQL
):  # M01
    ada = await doomed.person("ada")
    acknowledged = [f"before{number}" for number in range(3)]
    for name in acknowledged:
        assert (await ada.post("/api/roles", json={"name": name})).status_code == 403  # which is on record
    await asyncio.to_thread(spare.stop)
    try:
        for _ in range(2):
            await unavailable(ada.get("/api/users/me"))
            await unavailable(doomed.nobody().post("/api/users", json=EVE))
            await unavailable(doomed.nobody().post("/api/auth/login", json={"username": "ada", "password": PASSWORD}))
            await unavailable(ada.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token}))
            await unavailable(ada.post("/api/auth/logout"))
        assert (await in_good_time(ada.get("/livez"))).status_code == 200
        ready = await in_good_time(ada.get("/readyz"))
        assert (ready.status_code, ready.headers["Retry-After"]) == (503, "1")
        assert (await in_good_time(ada.get("/.well-known/jwks.json"))).status_code == 200
    finally:
        starting = asyncio.create_task(asyncio.to_thread(spare.start))
    seen: Counter[int] = Counter()  # while it recovers it answers, but refuses
    while not starting.done():
        seen[(await in_good_time(ada.get("/api/users/me"))).status_code] += 1
        await asyncio.sleep(0.01)  # or asking would slow the recovery
    await starting
    assert set(seen) <= {200, 503}

    async def is_well() -> bool:
        return (await ada.get("/api/users/me")).status_code == 200

    await until(5, is_well)
    assert (await doomed.nobody().post("/api/users", json=EVE)).status_code == 201
    assert (await ada.get("/readyz")).status_code == 200
    assert len(await doomed.events("access.denied")) == len(acknowledged)
    await all_returned(doomed)


async def test_a_restart_while_nobody_called_costs_no_request(doomed: Server, spare: PostgreSQL):  # M02
    ada = await doomed.person("ada")
    await asyncio.gather(*(ada.get("/api/users/me") for _ in range(20)))  # several connections in the pool
    await asyncio.to_thread(spare.stop)
    await asyncio.to_thread(spare.start)
    answers = await asyncio.gather(*(ada.get("/api/users/me") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await doomed.nobody().post("/api/users", json=EVE)).status_code == 201


@on_postgresql
async def test_without_its_database_a_server_is_live_and_not_ready(
    server: Server, settings: Settings, ada: Person, postgresql: PostgreSQL
):
    name = settings.database.url.rpartition("/")[2]
    postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    postgresql.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}-away"')
    try:
        await unavailable(ada.get("/api/users/me"))
        ready = await in_good_time(ada.get("/readyz"))
        assert (ready.status_code, (await ready.get_json())["checks"]["database"]) == (503, False)
        assert (await ada.get("/livez")).status_code == 200
    finally:
        postgresql.execute(f'ALTER DATABASE "{name}-away" RENAME TO "{name}"')
    assert (await ada.get("/api/users/me")).status_code == 200
    await all_returned(server)


@on_postgresql
async def test_a_connection_that_dies_inside_a_write_undoes_it(
    server: Server, settings: Settings, admin: Person
):  # M03
    kill = """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
        CREATE TRIGGER dies AFTER INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION die();
    """
    kill_at_commit = """
        CREATE CONSTRAINT TRIGGER dies_late AFTER INSERT ON audit_events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION die();
        DROP TRIGGER dies ON audit_events;
    """
    async with connected(settings) as other:
        for trap, code in ((kill, "database_unavailable"), (kill_at_commit, "outcome_unknown")):
            await other.execute(trap)
            before = await server.rows("SELECT version, username FROM users"), len(await server.events())
            for _ in range(3):
                await unavailable(server.nobody().post("/api/users", json=EVE), code)
                await unavailable(admin.patch("/api/users/me", json={"display_name": "x"}), code)
                await unavailable(admin.post("/api/roles", json={"name": "auditor"}), code)
            assert (await server.rows("SELECT version, username FROM users"), len(await server.events())) == before
            assert await server.rows("SELECT name FROM login_names WHERE name = 'eve'") == []
        await other.execute("DROP TRIGGER dies_late ON audit_events")
    assert (await server.nobody().post("/api/users", json=EVE)).status_code == 201
    await all_returned(server)


@on_postgresql
async def test_connections_cut_at_any_moment_leave_answers_that_are_true(
    server: Server, settings: Settings, admin: Person
):  # M03
    names = [f"guest{number}" for number in range(40)]
    statuses: dict[str, int] = {}

    async def register(name: str) -> None:
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        statuses[name] = (await server.nobody().post("/api/users", json=body)).status_code

    async with connected(settings) as other:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'usermgmt'"
        registering = asyncio.gather(*(register(name) for name in names))
        while not registering.done():
            await other.execute(f"{cut} AND datname = current_database() AND random() < 0.3")
            await asyncio.sleep(0.005)  # which some get through, and some do not
        await registering
    assert set(statuses.values()) <= {201, 503}
    made = {name for (name,) in await server.rows("SELECT username FROM users")}
    assert {name for name, status in statuses.items() if status == 201} <= made
    recorded = await server.rows(
        "SELECT username FROM users JOIN audit_events ON owner_id = users.id AND event = 'user.created'"
    )
    assert sorted(name for (name,) in recorded) == sorted(made)
    assert (await admin.get("/api/users/me")).status_code == 200
    await all_returned(server)


@on_postgresql
async def test_a_database_that_only_reads_refuses_writes_and_serves_reads(
    server: Server, settings: Settings, ada: Person, postgresql: PostgreSQL
):  # M06
    name = settings.database.url.rpartition("/")[2]
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    for read_only, status in (("on", 503), ("off", 200)):
        postgresql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {read_only}')
        postgresql.execute(cut)
        assert (await ada.get("/api/users/me")).status_code == 200
        assert (await ada.get("/api/auth/session")).status_code == 200
        changed = await in_good_time(ada.patch("/api/users/me", json={"display_name": "x"}))
        assert changed.status_code == status
        logged_in = await in_good_time(ada.post("/api/auth/login", json={"username": "ada", "password": PASSWORD}))
        assert logged_in.status_code == status
        # what cannot be put on record did not happen
        assert (await in_good_time(ada.get("/api/roles"))).status_code == (503 if read_only == "on" else 403)
    await all_returned(server)


# Hanging


@pytest.fixture
def hanging(spare: PostgreSQL) -> Iterator[Callable[[], None]]:
    """Hangs the server that may be stopped; it goes on at the end at the latest."""
    try:
        yield spare.hang
    finally:
        spare.go_on()


async def test_a_postgresql_that_hangs_is_503_in_good_time_and_well_when_it_goes_on(
    doomed: Server, spare: PostgreSQL, hanging: Callable[[], None]
):
    ada = await doomed.person("ada")
    assert (await ada.get("/api/users/me")).status_code == 200
    hanging()
    waiting = [
        unavailable(ada.get("/api/users/me")),
        unavailable(ada.patch("/api/users/me", json={"display_name": "x"})),
        unavailable(doomed.nobody().post("/api/users", json=EVE)),
        *(unavailable(ada.get(f"/api/users?limit={number}")) for number in range(1, 40)),
    ]
    await asyncio.gather(*waiting)
    started = time.perf_counter()
    for _ in range(10):  # it is known now, so that nobody waits any more
        await unavailable(ada.get("/api/users/me"))
        assert (await ada.get("/readyz")).status_code == 503
    assert time.perf_counter() - started < 1.0
    assert (await ada.get("/livez")).status_code == 200
    spare.go_on()

    async def is_well() -> bool:
        return (await ada.get("/api/users/me")).status_code == 200

    await until(5, is_well)
    assert (await ada.patch("/api/users/me", json={"display_name": "y"})).status_code == 200
    assert (await doomed.nobody().post("/api/users", json=EVE)).status_code == 201
    await all_returned(doomed)


@on_postgresql
async def test_a_statement_that_is_slow_is_not_a_server_that_hangs(server: Server, settings: Settings, ada: Person):
    async with connected(settings) as other, other.transaction():
        await other.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", ada.id)
        changing = asyncio.create_task(ada.patch("/api/users/me", json={"display_name": "late"}))
        done, _ = await asyncio.wait((changing,), timeout=watchdog.UNEASY_SECONDS + watchdog.PROBE_SECONDS + 1)
        assert not done
        assert (await ada.get("/api/users/me")).status_code == 200
    assert (await changing).status_code == 200
    await all_returned(server)


@given(database__pooler="transaction", database__statement_timeout="1s")
async def test_behind_a_pooler_one_that_hangs_is_given_up_by_the_timeout(
    spare: PostgreSQL, flags: dict[str, Any], hanging: Callable[[], None]
):
    name = f"t{os.urandom(6).hex()}"
    server = Server(settings_for(spare.create(name, template="template"), **flags))
    async with server.running():
        ada = await server.person("ada")
        hanging()
        await unavailable(ada.get("/api/users?limit=1"))
        await unavailable(ada.patch("/api/users/me", json={"display_name": "x"}))
        spare.go_on()
        assert (await ada.get("/api/users/me")).status_code == 200
    spare.drop(name)


# SQLite


@on_sqlite
async def test_every_connection_has_the_pragmas(server: Server):  # L06
    database = server.runtime.database
    for engine in (database._writer, database._reader):
        async with engine.connect() as connection:
            found = {
                pragma: (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one()
                for pragma in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
            }
        assert found == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 5000}


@on_sqlite
async def test_twenty_writers_of_two_processes_never_find_the_file_locked(server: Server, settings: Settings):  # L06
    ada = await server.person("ada")
    second = Server(settings)
    async with second.running():
        there = Person(second)
        there.access_token = ada.access_token
        statuses: Counter[int] = Counter()
        longest, deadline = 0.0, time.monotonic() + 3

        async def write(person: Person, number: int) -> None:
            nonlocal longest
            while time.monotonic() < deadline:
                started = time.perf_counter()
                body = {"attributes": {f"n{number}": time.perf_counter()}}
                statuses[(await person.patch("/api/users/me", json=body)).status_code] += 1
                longest = max(longest, time.perf_counter() - started)

        await asyncio.gather(*(write(person, number) for number in range(10) for person in (ada, there)))
    assert set(statuses) == {200}
    assert statuses[200] > 50
    assert longest < GOOD_TIME
    (version,) = await server.rows("SELECT version FROM users")
    assert version == (statuses[200] + 1,)


@on_sqlite
async def test_a_file_that_another_process_holds_is_503_and_no_fault(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "SQLITE_BUSY_MILLISECONDS", 200)
    server = Server(settings_for(database_url))
    async with server.running():
        ada = await server.person("ada")
        holder = sqlite3.connect(Path(database_url.partition("///")[2]), isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            await unavailable(ada.patch("/api/users/me", json={"display_name": "x"}))
            await unavailable(server.nobody().post("/api/users", json=EVE))
            await unavailable(ada.get("/api/roles"))  # a refusal that cannot be put on record
            assert (await ada.get("/api/users/me")).status_code == 200
            holder.execute("ROLLBACK")
        finally:
            holder.close()
        assert (await ada.patch("/api/users/me", json={"display_name": "x"})).status_code == 200
        await all_returned(server)


@on_sqlite
async def test_who_queues_behind_a_locked_file_does_not_wait_as_long_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "SQLITE_BUSY_MILLISECONDS", 500)
    server = Server(settings_for(database_url))
    async with server.running():
        ada = await server.person("ada")
        holder = sqlite3.connect(Path(database_url.partition("///")[2]), isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            started = time.perf_counter()
            calls = [unavailable(ada.patch("/api/users/me", json={"display_name": "x"})) for _ in range(10)]
            await asyncio.gather(*calls)
            assert time.perf_counter() - started < 2.5  # ten times the patience would be five
        finally:
            holder.close()
        assert (await ada.patch("/api/users/me", json={"display_name": "x"})).status_code == 200
        async with server.runtime.database._writer.connect() as connection:
            assert (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one() == 500
        await all_returned(server)


@on_sqlite
async def test_a_full_disk_is_503_and_still_read(database_url: str):
    server = Server(settings_for(database_url))
    async with server.running():
        ada = await server.person("ada")
        async with server.runtime.database._writer.connect() as connection:
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # SQLITE_FULL, as a full disk
        made: list[str] = []
        for number in range(200):
            body = {"username": f"guest{number}", "email": f"guest{number}@example.com", "password": PASSWORD}
            answer = await in_good_time(server.nobody().post("/api/users", json=body))
            if answer.status_code != 201:
                await problem_of(answer, 503, "database_unavailable")
                break
            made.append(body["username"])
        else:
            pytest.fail("the file never was full")
        assert (await ada.get("/api/users/me")).status_code == 200
        found = await server.rows("SELECT username FROM users WHERE username <> 'ada'")
        assert sorted(name for (name,) in found) == sorted(made)
        assert len(await server.events("user.created")) == len(made) + 1
        await server.runtime.database._writer.dispose()  # the next connection has room again
        assert (await server.nobody().post("/api/users", json=EVE)).status_code == 201
        await all_returned(server)


@on_sqlite
async def test_a_file_that_cannot_be_written_is_503_and_still_read(server: Server, ada: Person):  # M06
    async with server.runtime.database._writer.connect() as connection:
        await connection.exec_driver_sql("PRAGMA query_only = ON")
    await unavailable(ada.patch("/api/users/me", json={"display_name": "x"}))
    await unavailable(ada.post("/api/auth/login", json={"username": "ada", "password": PASSWORD}))
    assert (await ada.get("/api/users/me")).status_code == 200
    await server.runtime.database._writer.dispose()  # the next connection may write
    assert (await ada.patch("/api/users/me", json={"display_name": "x"})).status_code == 200


@on_sqlite
async def test_readers_do_not_wait_for_a_writer(server: Server, ada: Person):
    async with server.runtime.database.begin() as session:
        await session.execute(text("UPDATE users SET display_name = 'unseen'"))
        answer = await in_good_time(ada.get("/api/users/me"))
        assert (await answer.get_json())["display_name"] is None
