"""Connections go to who asked first, and none is lost by who stops waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.util import await_
from sqlalchemy.util.concurrency import greenlet_spawn
from sqlalchemy.util.queue import Empty

from tests.people import Server
from usermgmt.errors import DatabaseUnavailable
from usermgmt.storage.database import Database
from usermgmt.storage.fair_pool import FairPool, FairQueue

WAITING = 5


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"database.pool_size": 2, "database.pool_timeout": getattr(request, "param", "30s")}


@asynccontextmanager
async def every_writer(database: Database) -> AsyncIterator[None]:
    """Holds all connections of writers."""
    writers = {name: size for name, size, _ in database.pools()}["write"]
    async with AsyncExitStack() as stack:
        for _ in range(writers):
            await take_connection(await stack.enter_async_context(database.begin()))
        yield


async def take_connection(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1"))


async def served(database: Database, name: object, order: list[object]) -> None:
    async with database.begin() as session:
        await take_connection(session)
        order.append(name)


def assert_settled(database: Database) -> None:
    """Nothing is out of the pools."""
    assert [used for _, _, used in database.pools()] == [0] * len(list(database.pools()))


async def test_nobody_is_overtaken(server: Server):
    engine = server.runtime.database._reader
    asked = taken = 0
    overtaken = list[int]()

    async def ask(times: int) -> None:
        nonlocal asked, taken
        for _ in range(times):
            before = asked
            asked += 1
            connection = await engine.raw_connection()
            overtaken.append(taken - before)
            taken += 1
            await asyncio.sleep(0)  # it is used for a turn of the loop
            await greenlet_spawn(connection.close)

    await asyncio.gather(*(ask(1) for _ in range(20)))  # connections are made
    overtaken.clear()
    await asyncio.gather(*(ask(20) for _ in range(20)))
    assert max(overtaken) <= 2 * engine.pool.size()  # who got the others
    assert_settled(server.runtime.database)


async def test_what_is_given_back_is_not_for_who_comes_just_then():
    queue = FairQueue[str](1)
    waiting = asyncio.create_task(greenlet_spawn(queue.get, True, 5.0))
    await asyncio.sleep(0)  # it asks
    queue.put_nowait("connection")
    with pytest.raises(Empty):
        queue.get_nowait()
    assert await waiting == "connection"


async def test_what_was_handed_to_one_who_is_cancelled_goes_to_the_next():
    queue = FairQueue[str](1)
    leaving, staying = (asyncio.create_task(greenlet_spawn(queue.get, True, 5.0)) for _ in range(2))
    await asyncio.sleep(0)  # it asks
    queue.put_nowait("connection")
    leaving.cancel()  # it has not run since
    assert await staying == "connection"
    assert (leaving.cancelled(), queue.qsize()) == (True, 0)
    queue.put_nowait("connection")
    assert queue.get_nowait() == "connection"


async def test_one_who_was_just_cancelled_is_passed_over():
    queue = FairQueue[str](1)
    leaving, staying = (asyncio.create_task(greenlet_spawn(queue.get, True, 5.0)) for _ in range(2))
    await asyncio.sleep(0)  # they ask
    leaving.cancel()
    queue.put_nowait("connection")  # before the one that left could say so
    assert await staying == "connection"
    assert queue.qsize() == 0


async def test_one_whose_coroutine_is_closed_is_passed_over():
    queue = FairQueue[str](1)
    leaving = queue._turn(5.0)
    leaving.send(None)
    leaving.close()
    queue.put_nowait("connection")
    assert queue.get_nowait() == "connection"


async def test_where_a_connection_could_not_be_made_the_next_tries():
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=FairPool, pool_size=1, max_overflow=0, pool_timeout=2)
    failing = [True]

    @event.listens_for(engine.sync_engine, "do_connect")
    def connect(*_: Any) -> None:
        if failing and failing.pop():
            await_(asyncio.sleep(0.05))  # meanwhile others ask
            raise OSError("not now")

    async def ask() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT 1"))).scalar_one())

    first, *others = await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)
    assert (type(first), others) == (OSError, [1, 1, 1])
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's writers wait for longer
@pytest.mark.parametrize("flags", ["300ms"], indirect=True)
async def test_patience_ends_and_what_comes_later_is_served(server: Server):
    database, order = server.runtime.database, list[object]()
    async with every_writer(database):
        calls = [served(database, number, order) for number in range(WAITING)]
        refused = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in refused} == {DatabaseUnavailable}
    await served(database, "later", order)
    assert order == ["later"]
    assert_settled(database)
