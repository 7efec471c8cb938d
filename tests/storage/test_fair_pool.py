"""Connections go to who asked first, and none is lost by who stops waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util.concurrency import greenlet_spawn
from sqlalchemy.util.queue import Empty

from tests.people import Server
from usermgmt.errors import DatabaseUnavailable
from usermgmt.storage.database import Database
from usermgmt.storage.fair_pool import FairQueue

WAITING = 5


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"database.pool_size": 2, "database.pool_timeout": "300ms"}


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
    database = server.runtime.database
    size = database._reader.pool.size()
    asked = served_so_far = 0
    overtaken = list[int]()

    async def ask(times: int) -> None:
        nonlocal asked, served_so_far
        for _ in range(times):
            before = asked
            asked += 1
            async with database.read() as session:
                await take_connection(session)
                overtaken.append(served_so_far - before)
                served_so_far += 1

    await asyncio.gather(*(ask(1) for _ in range(20)))  # connections are made
    overtaken.clear()
    await asyncio.gather(*(ask(20) for _ in range(20)))
    assert max(overtaken) <= 2 * size  # whose statements ran beside this one's
    assert_settled(database)


async def test_what_is_given_back_is_not_for_who_comes_just_then():
    queue = FairQueue[str](1)
    waiting = asyncio.create_task(greenlet_spawn(queue.get, True, 5.0))
    await asyncio.sleep(0)
    queue.put_nowait("connection")
    with pytest.raises(Empty):
        queue.get_nowait()
    assert await waiting == "connection"


async def test_what_was_handed_to_one_who_is_cancelled_goes_to_the_next():
    queue = FairQueue[str](1)
    leaving, staying = (asyncio.create_task(greenlet_spawn(queue.get, True, 5.0)) for _ in range(2))
    await asyncio.sleep(0)
    queue.put_nowait("connection")
    leaving.cancel()  # it has not run since
    assert await staying == "connection"
    assert (leaving.cancelled(), queue.qsize()) == (True, 0)
    queue.put_nowait("connection")
    assert queue.get_nowait() == "connection"


async def test_one_who_was_just_cancelled_is_passed_over():
    queue = FairQueue[str](1)
    leaving, staying = (asyncio.create_task(greenlet_spawn(queue.get, True, 5.0)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    queue.put_nowait("connection")  # before the one that left could say so
    assert await staying == "connection"
    assert queue.qsize() == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's writers wait for longer
async def test_patience_ends_and_what_comes_later_is_served(server: Server):
    database, order = server.runtime.database, list[object]()
    async with every_writer(database):
        calls = [served(database, number, order) for number in range(WAITING)]
        refused = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in refused} == {DatabaseUnavailable}
    await served(database, "later", order)
    assert order == ["later"]
    assert_settled(database)
