"""Coalesced reads: one statement for who asks together, nothing that was read before it was asked for."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count

import pytest

from tests.people import Person, Server
from usermgmt.errors import DatabaseUnavailable
from usermgmt.storage.loader import MOST_AT_ONCE, MOST_KEYS, Loader


class Table:
    """What is read, one statement after another, each held until it is let go."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.statements: list[list[int]] = []
        self.fault: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def fetch(self, keys: Sequence[int]) -> Mapping[int, str]:
        self.statements.append(list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}  # what is there when the statement begins
        await self.free.wait()
        if self.fault is not None:
            raise self.fault
        return found


@pytest.fixture
async def table() -> Table:
    return Table()


@pytest.fixture
def loader(table: Table) -> Loader[int, str]:
    return Loader(table.fetch, patience=60)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_together_shares_a_statement(table: Table, loader: Loader[int, str]):
    table.rows = {key: f"row {key}" for key in range(20)}
    found = await asyncio.gather(*(loader.load(key % 25) for key in range(50)))
    assert found == [table.rows.get(key % 25) for key in range(50)]
    assert [sorted(keys) for keys in table.statements] == [list(range(25))]
    assert (loader.statements, loader.keys) == (1, 25)


async def test_a_statement_is_bounded(table: Table, loader: Loader[int, str]):
    table.rows = {key: str(key) for key in range(3 * MOST_KEYS)}
    found = await asyncio.gather(*map(loader.load, table.rows))
    assert found == list(table.rows.values())
    assert [len(keys) for keys in table.statements] == [MOST_KEYS] * 3


async def test_what_is_given_was_read_after_it_was_asked_for(table: Table, loader: Loader[int, str]):
    table.rows, _ = {1: "old"}, table.free.clear()
    early = asyncio.create_task(loader.load(1))
    await turn()
    table.rows = {1: "new"}
    late = asyncio.create_task(loader.load(1))
    await turn()
    table.free.set()
    assert (await early, await late) == ("old", "new")


async def test_keys_gather_while_enough_statements_run(table: Table, loader: Loader[int, str]):
    table.rows, _ = {key: str(key) for key in range(100)}, table.free.clear()
    asked = []
    for key in range(30):
        asked.append(asyncio.create_task(loader.load(key)))
        await turn()
    assert len(table.statements) == MOST_AT_ONCE
    table.free.set()
    assert await asyncio.gather(*asked) == [str(key) for key in range(30)]
    assert len(table.statements) == MOST_AT_ONCE + 1


async def test_a_fault_reaches_everybody_who_waited_for_it_and_nobody_else(table: Table, loader: Loader[int, str]):
    table.fault = DatabaseUnavailable()
    outcomes = await asyncio.gather(*(loader.load(key % 3) for key in range(9)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 9
    table.fault, table.rows = None, {1: "well"}
    assert await loader.load(1) == "well"


async def test_somebody_who_leaves_takes_nobody_along(table: Table, loader: Loader[int, str]):
    table.rows, _ = {1: "one", 2: "two"}, table.free.clear()
    leaving = [asyncio.create_task(loader.load(1)) for _ in range(3)]
    staying = [asyncio.create_task(loader.load(key)) for key in (1, 2)]
    await turn()
    for task in leaving:
        task.cancel()
    await turn()
    table.free.set()
    assert await asyncio.gather(*staying) == ["one", "two"]
    assert all(task.cancelled() for task in leaving)
    assert len(table.statements) == 1


async def test_who_would_wait_for_ever_is_refused(table: Table):
    loader = Loader(table.fetch, patience=0.0)
    table.free.clear()
    running = []
    for key in range(MOST_AT_ONCE):
        running.append(asyncio.create_task(loader.load(key)))
        await turn()
    first = asyncio.create_task(loader.load(98))
    await turn()
    second = asyncio.create_task(loader.load(99))
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 2
    table.free.set()
    assert await asyncio.gather(*running) == [None] * MOST_AT_ONCE


# Through HTTP


async def test_a_crowd_that_reads_its_profile_costs_few_statements(server: Server, ada: Person, bob: Person):
    loaders = server.runtime.database._loaders
    before = {fetch: (loader.keys, loader.statements) for fetch, loader in loaders.items()}
    answers = await asyncio.gather(*(person.get("/api/users/me") for person in (ada, bob) * 40))
    assert [answer.status_code for answer in answers] == [200] * 80
    assert {(await answer.get_json())["username"] for answer in answers} == {"ada", "bob"}
    for fetch, loader in loaders.items():
        statements = loader.statements - before.get(fetch, (0, 0))[1]
        assert 1 <= statements <= 20, fetch


async def test_a_revoked_session_is_refused_by_the_next_request_of_a_crowd(server: Server, ada: Person):
    stop = asyncio.Event()
    numbers = count()

    async def read() -> None:
        while not stop.is_set():
            next(numbers)
            await ada.get("/api/users/me")

    crowd = [asyncio.create_task(read()) for _ in range(16)]
    for _ in range(10):
        person = Person(server, username="ada", password=ada.password)
        await person.log_in()
        assert (await person.get("/api/users/me")).status_code == 200
        assert (await person.post("/api/auth/logout")).status_code == 204
        answers = await asyncio.gather(*(person.get("/api/users/me") for _ in range(5)))
        assert [answer.status_code for answer in answers] == [401] * 5
    stop.set()
    await asyncio.gather(*crowd)
    assert next(numbers) > 100


async def test_a_right_that_is_taken_away_is_gone_at_the_next_request(server: Server, admin: Person, ada: Person):
    for _ in range(5):
        assert (await admin.put(f"/api/users/{ada.id}/roles/manager")).status_code == 204
        assert {a.status_code for a in await asyncio.gather(*(ada.get("/api/users") for _ in range(8)))} == {200}
        assert (await admin.delete(f"/api/users/{ada.id}/roles/manager")).status_code == 204
        assert {a.status_code for a in await asyncio.gather(*(ada.get("/api/users") for _ in range(8)))} == {403}
