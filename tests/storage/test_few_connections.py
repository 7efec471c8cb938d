"""Who has which connections: what reads never takes a writer's, and a pool that all share is one pool."""

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from tests.conftest import settings_for
from tests.people import Server
from usermgmt.errors import DatabaseUnavailable, OutcomeUnknown
from usermgmt.roles.models import Role
from usermgmt.storage.bounded_reads import find_within
from usermgmt.storage.database import Database
from usermgmt.telemetry import tracing

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
NUMBER = select(func.count()).select_from(Role).where(Role.built_in)


class Recorded:
    """A span that counts how often it was ended, and with which fault."""

    def __init__(self, statement: str) -> None:
        self.statement, self.ends, self.faults = statement, 0, list[str]()

    def fail(self, kind: str) -> None:
        self.faults.append(kind)

    def end(self) -> None:
        self.ends += 1


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """The spans of statements that begin in this test."""
    begun: list[Recorded] = []

    def begin_statement(_: str, statement: str) -> Recorded:
        begun.append(Recorded(statement))
        return begun[-1]

    monkeypatch.setattr(tracing, "begin_statement", begin_statement)
    return begun


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"database.pool_timeout": "200ms", "database.pooler": getattr(request, "param", "none")}


async def count(server: Server) -> int | None:
    found: int | None = await find_within(server.runtime.database, NUMBER, {}, patience=timedelta(seconds=5))
    return found


async def test_counting_takes_no_connection_of_a_writer(server: Server):
    database = server.runtime.database
    writers = {name: size for name, size, _ in database.pools()}["write"]
    async with AsyncExitStack() as stack:
        for _ in range(writers):
            session = await stack.enter_async_context(database.begin())
            await session.execute(text("SELECT 1"))  # which takes the connection
        assert await count(server) == 3


@on_postgresql
@pytest.mark.parametrize("flags", ["none", "transaction"], indirect=True)
async def test_the_patience_of_a_count_ends_with_it(server: Server):
    database = server.runtime.database

    async def timeout() -> str:
        async with database.read() as session:
            return str((await session.execute(text("SHOW statement_timeout"))).scalar_one())

    before = await timeout()
    slow = select(func.pg_sleep(30))
    assert await find_within(database, slow, {}, patience=timedelta(milliseconds=50)) is None
    assert (await count(server), await timeout()) == (3, before)
    assert [used for _, _, used in database.pools()] == [0, 0]


@on_postgresql
async def test_a_pool_for_all_is_one_pool_whose_statements_are_heard_once(database_url: str, spans: list[Recorded]):
    database = Database(settings_for(database_url, **{"database.pool_size": 2}).database)
    try:
        assert list(database.pools()) == [("write", 2, 0)]
        database.trace_statements()
        async with database.read() as session:
            await session.execute(NUMBER)
        async with database.read_rows() as rows:
            await rows.fetch(NUMBER, {})
        assert [span.ends for span in spans if "roles" in span.statement] == [1, 1]
    finally:
        await database.close()


@on_postgresql
async def test_a_statement_that_the_driver_runs_ends_its_span_when_it_fails(server: Server, spans: list[Recorded]):
    database = server.runtime.database
    database.trace_statements()
    with pytest.raises(Exception, match="division by zero"):
        async with database.read_rows() as rows:
            await rows.fetch(select(text("1 / (count(*) - count(*))")).select_from(Role), {})
    assert [(span.ends, span.faults) for span in spans if "roles" in span.statement] == [(1, ["22012"])]


@on_postgresql
async def test_a_commit_that_fails_ends_no_span_again(server: Server, spans: list[Recorded]):
    database = server.runtime.database
    database.trace_statements()
    with pytest.raises((DatabaseUnavailable, OutcomeUnknown)):  # noqa: PT012 - what raises is the commit
        async with database.begin() as session:
            process = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await server.rows(f"SELECT pg_terminate_backend({process})")
    assert any("pg_backend_pid" in span.statement for span in spans)
    assert {(span.ends, *span.faults) for span in spans} == {(1,)}
