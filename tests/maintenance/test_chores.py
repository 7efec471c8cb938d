"""What concerns shared data is done by one process of the deployment at a time, in small batches, and is noted."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.people import PASSWORD, Person, Server
from usermgmt.chores import shared_chores
from usermgmt.maintenance import service
from usermgmt.maintenance.service import Run, SharedChore
from usermgmt.runtime import Runtime
from usermgmt.sessions import service as sessions
from usermgmt.settings import Settings

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
DAY = timedelta(days=1)


@pytest.fixture
async def second(server: Server, settings: Settings) -> AsyncIterator[Server]:
    """Another process on the same database."""
    other = Server(settings)
    other.clock.ahead = server.clock.ahead
    yield other
    await other.runtime.close()


def chore(name: str = "sweeping", *, full: int | None = None, done: Callable[[], int] = lambda: 0) -> SharedChore:
    async def do(_: Runtime) -> int:
        return done()

    return SharedChore(name, timedelta(minutes=10), do, full=full)


def shared(server: Server, name: str) -> SharedChore:
    """One of the chores that a server does."""
    (found,) = [each for each in shared_chores(server.settings) if each.name == name]
    return found


async def done(server: Server, name: str) -> int:
    """Do a chore; how many rows it did."""
    run = await service.run_chore(server.runtime, shared(server, name), "me")
    assert run is not None
    return run.rows


# Who does it


async def test_of_many_processes_at_once_one_does_a_chore(server: Server, second: Server):
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def do(_: Runtime) -> int:
        begun.set()
        await goes_on.wait()
        return 3

    slow = SharedChore("slow", timedelta(minutes=10), do)
    first = asyncio.create_task(service.run_chore(server.runtime, slow, "first"))
    await begun.wait()
    others = [service.run_chore(each.runtime, slow, f"other{i}") for i, each in enumerate([server, second] * 3)]
    assert await asyncio.gather(*others) == [None] * 6
    goes_on.set()
    run = await first
    assert isinstance(run, Run)
    assert run.rows == 3
    assert await service.find_last_success(second.runtime, slow) is not None


async def test_a_chore_is_due_once_in_its_interval_whoever_did_it(server: Server, second: Server):
    assert await service.run_chore(server.runtime, chore(), "first", if_due=True) is not None
    assert await service.run_chore(second.runtime, chore(), "second", if_due=True) is None
    assert await service.run_chore(second.runtime, chore(), "second") is not None  # asked for, due or not
    for clock in (server.clock, second.clock):
        clock.move(timedelta(minutes=10))
    assert await service.run_chore(second.runtime, chore(), "second", if_due=True) is not None
    assert await service.run_chore(server.runtime, chore(), "first", if_due=True) is None


async def test_what_a_process_left_when_it_died_is_taken_over_and_what_it_comes_back_to_is_not_its_own(
    server: Server, second: Server
):
    calls = []

    def hang() -> int:
        calls.append("batch")
        if len(calls) == 1:
            server.clock.move(service.LEASE * 2)  # it sleeps longer than it holds the chore
            second.clock.move(service.LEASE * 2)
        return 1

    async def do(_: Runtime) -> int:
        rows = hang()
        if len(calls) == 1:
            assert await service.run_chore(second.runtime, chore("shared"), "second") is not None
        return rows

    long = SharedChore("shared", timedelta(minutes=10), do, full=1)
    run = await service.run_chore(server.runtime, long, "first")
    assert (run is not None and run.rows, calls) == (1, ["batch"])  # it stopped after the batch it was in


async def test_a_holder_whose_clock_was_wrong_is_not_waited_for(server: Server, second: Server):
    server.clock.move(DAY * 365)
    assert await service.run_chore(server.runtime, chore(), "ahead", if_due=True) is not None
    assert await service.run_chore(second.runtime, chore(), "right", if_due=True) is not None


async def test_a_chore_that_fails_is_let_go_and_tried_again_after_its_interval(server: Server, second: Server):
    def fail() -> int:
        raise RuntimeError("no broom")

    with pytest.raises(RuntimeError, match="no broom"):
        await service.run_chore(server.runtime, chore(done=fail), "first", if_due=True)
    assert await service.find_last_success(server.runtime, chore()) is None
    assert await service.run_chore(second.runtime, chore(), "second", if_due=True) is None
    assert await service.run_chore(second.runtime, chore(), "second") is not None


async def test_a_chore_goes_on_until_a_batch_is_not_full(server: Server):
    left = [500, 500, 7]
    run = await service.run_chore(server.runtime, chore(full=500, done=lambda: left.pop(0)), "first")
    assert (run is not None and run.rows, left) == (1007, [])


@pytest.mark.parametrize("flags", [{"audit.seal_interval": "100ms"}])
async def test_a_running_server_does_them_by_itself(server: Server, ada: Person):
    server.clock.move(timedelta(minutes=1))
    async with asyncio.timeout(30):
        while not await server.rows("SELECT 1 FROM audit_seals"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while await service.find_last_success(server.runtime, shared(server, "audit_seals")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# What is over goes


async def test_sessions_go_a_while_after_they_ended_and_not_before(server: Server, ada: Person, bob: Person):
    signed_out = await ada.elsewhere()
    assert (await signed_out.post("/api/auth/logout")).status_code == 204
    assert await done(server, "sessions") == 0
    server.clock.move(91 * DAY)
    await bob.log_in()
    assert await done(server, "sessions") == 1  # signed out 91 days ago; the others came to their end 61 days ago
    assert len(await server.rows("SELECT 1 FROM sessions")) == 3
    server.clock.move(30 * DAY)
    await bob.log_in()
    assert await done(server, "sessions") == 2
    assert (await bob.get("/api/users/me")).status_code == 200
    assert await done(server, "sessions") == 0


@pytest.mark.parametrize("flags", [{"retention.sessions": "1h"}])
async def test_how_long_sessions_are_kept_is_a_setting(server: Server, ada: Person):
    assert (await ada.post("/api/auth/logout")).status_code == 204
    server.clock.move(timedelta(minutes=59))
    assert await done(server, "sessions") == 0
    server.clock.move(timedelta(minutes=2))
    assert await done(server, "sessions") == 1


async def test_stored_answers_go_when_their_time_is_over(server: Server):
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
    once = {"Idempotency-Key": "the-very-same"}
    assert (await server.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    assert await done(server, "idempotency_keys") == 0
    assert (await server.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    server.clock.move(timedelta(hours=24))
    assert await done(server, "idempotency_keys") == 1
    assert await server.rows("SELECT 1 FROM idempotency_keys") == []
    assert (await server.nobody().post("/api/users", json=body, headers=once)).status_code == 409


async def test_two_processes_that_do_it_at_once_remove_each_row_once(server: Server, second: Server, ada: Person):
    await _add_sessions(server, 1_200, ended_days_ago=100)

    async def all_of_it(each: Server) -> int:
        total = 0
        while removed := await sessions.forget_ended(each.runtime):
            assert removed <= sessions.BATCH
            total += removed
        return total

    assert sum(await asyncio.gather(all_of_it(server), all_of_it(second))) == 1_200
    assert len(await server.rows("SELECT 1 FROM sessions")) == 1
    assert (await ada.get("/api/users/me")).status_code == 200


@on_postgresql
async def test_what_is_over_is_found_by_an_index(server: Server, ada: Person):
    await _add_sessions(server, 20_000, ended_days_ago=1)
    await server.execute(
        "INSERT INTO idempotency_keys SELECT 'user', n::text, '', 200, '', now(), now() + interval '1 day'"
        " FROM generate_series(1, 20000) n"
    )
    await server.execute(
        "INSERT INTO throttles SELECT n::text, 'account', 0, 0, now(), now() FROM generate_series(1, 20000) n"
    )
    await server.execute("ANALYZE")
    seen: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("DELETE"):
            seen[statement] = parameters

    event.listen(Engine, "before_cursor_execute", note)
    try:
        for name in ("sessions", "idempotency_keys", "throttles"):
            await done(server, name)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(seen) == 4
    for statement, parameters in seen.items():
        async with server.runtime.database.begin() as session:
            connection = await session.connection()
            found = (await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)).scalar_one()
        assert "Seq Scan" not in json.dumps(found), statement


async def _add_sessions(server: Server, count: int, *, ended_days_ago: int) -> None:
    """Sessions of everybody that were revoked, half of them, or came to their end."""
    ended = server.clock.now() - ended_days_ago * DAY
    (user_id,) = (await server.rows("SELECT id FROM users"))[0]
    columns = "user_id, id, generation, created_at, authenticated_at, refreshed_at, idle_expires_at, expires_at"
    if server.runtime.database.is_sqlite:
        numbers = f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) SELECT n FROM s)"
        made, at, owner = "printf('%032x', n)", f"'{ended:%Y-%m-%d %H:%M:%S.%f}'", f"'{user_id}'"
    else:
        numbers = f"generate_series(1, {count}) n"
        made, at, owner = "lpad(to_hex(n), 32, '0')::uuid", f"timestamptz '{ended.isoformat()}'", f"uuid '{user_id}'"
    await server.execute(
        f"INSERT INTO sessions ({columns}, revoked_at)"
        f" SELECT {owner}, {made}, 0, {at}, {at}, {at}, {at}, {at}, CASE WHEN n % 2 = 0 THEN {at} END FROM {numbers}"
    )
