"""Counters of requests: exact at once and across workers, bounded in memory, and never in the way when Valkey is."""

import asyncio
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from tests.servers import Valkey
from usermgmt.settings import SettingsError, load_settings
from usermgmt.storage.counters import MAX_KEYS, MemoryStore, ValkeyStore

HOUR = timedelta(hours=1)
TIMEOUT = timedelta(milliseconds=50)
PATIENCE = 15.0


class Clock:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def counting(url: str) -> AsyncIterator[ValkeyStore]:
    store = ValkeyStore(url, TIMEOUT)
    try:
        yield store
    finally:
        await store.close()


# In memory


async def test_no_more_than_the_count_is_admitted_at_once_and_it_comes_back_evenly():
    clock = Clock()
    store = MemoryStore(clock)
    seen = [await store.spend("a", 10, timedelta(seconds=60)) for _ in range(15)]
    assert [spent.is_admitted for spent in seen] == [True] * 10 + [False] * 5
    assert [spent.remaining for spent in seen[:11]] == [*range(9, -1, -1), 0]
    assert (seen[9].whole_in, seen[10].retry_after) == (60, 6)
    clock.now += 6
    assert (await store.spend("a", 10, timedelta(seconds=60))).is_admitted
    assert not (await store.spend("a", 10, timedelta(seconds=60))).is_admitted
    clock.now += 60
    assert (await store.spend("a", 10, timedelta(seconds=60))).remaining == 9


async def test_any_period_sees_at_most_twice_the_count():  # C09
    clock = Clock()
    store = MemoryStore(clock)
    admitted = []
    for _ in range(2_000):
        if (await store.spend("a", 10, timedelta(seconds=60))).is_admitted:
            admitted.append(clock.now)
        clock.now += 0.1
    assert max(sum(start <= at < start + 60 for at in admitted) for start in admitted) <= 20


async def test_a_flood_of_keys_stays_bounded_and_frees_nobody_who_is_refused():  # C10
    store = MemoryStore()
    while (await store.spend("refused", 3, HOUR)).is_admitted:
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(2 * MAX_KEYS):
        await store.spend(f"network:{number}", 3, HOUR)
    assert not (await store.spend("refused", 3, HOUR)).is_admitted
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


async def test_a_flood_of_spent_budgets_stays_bounded_too():
    store = MemoryStore()
    for number in range(MAX_KEYS + 5_000):
        await store.spend(f"network:{number}", 1, HOUR)
    assert len(store._owed) == MAX_KEYS


@pytest.mark.parametrize("count", [1, 3, 7, 1_500, 20_000, 100_000])
async def test_fractions_neither_add_nor_take_one(count: int):  # P18
    store = MemoryStore(Clock())
    admitted = [(await store.spend("a", count, timedelta(minutes=1))).is_admitted for _ in range(count + 1)]
    assert admitted == [True] * count + [False]


# With Valkey


async def test_valkey_counts_as_memory_does(valkey: Valkey):
    async with counting(valkey.url) as store:
        seen = [await store.spend("a", 5, HOUR) for _ in range(7)]
        assert not store.is_down
    assert [spent.is_admitted for spent in seen] == [True] * 5 + [False] * 2
    assert [spent.remaining for spent in seen] == [4, 3, 2, 1, 0, 0, 0]
    assert (seen[4].whole_in, 719 <= seen[5].retry_after <= 720) == (3600, True)


@pytest.mark.parametrize("count", [1, 3, 7, 1_501])
async def test_fractions_neither_add_nor_take_one_in_valkey(count: int, valkey: Valkey):  # P18
    async with counting(valkey.url) as store:
        calls = [store.spend("a", count, HOUR) for _ in range(count + 1)]
        assert sum(spent.is_admitted for spent in await asyncio.gather(*calls)) == count


async def test_keys_vanish_by_themselves(valkey: Valkey):
    async with counting(valkey.url) as store:
        for number in range(20):
            await store.spend(f"key{number}", 10, timedelta(milliseconds=500))
        assert valkey.command("DBSIZE") == b":20\r\n"
        await asyncio.sleep(0.2)  # real time, which is what it is about
        assert valkey.command("DBSIZE") != b":20\r\n"


async def test_two_workers_admit_together_what_one_would(valkey: Valkey):  # C08, P18
    async with counting(valkey.url) as one, counting(valkey.url) as other:
        for round_ in range(20):
            calls = [store.spend(f"round{round_}", 10, HOUR) for _ in range(50) for store in (one, other)]
            assert Counter(spent.is_admitted for spent in await asyncio.gather(*calls)) == {True: 10, False: 90}


async def test_the_clock_of_valkey_moved_back_locks_nobody_out_for_longer_than_a_period(valkey: Valkey):  # C09
    async with counting(valkey.url) as store:
        valkey.command("SET", "usermgmt:budget:a", "9999999999999999 3")
        refused = await store.spend("a", 10, timedelta(seconds=60))
        assert (refused.is_admitted, refused.retry_after) == (False, 6)


async def test_a_pause_of_this_process_is_not_taken_for_one_of_valkey(valkey: Valkey):
    async with counting(valkey.url) as store:
        await store.spend("a", 10, HOUR)
        asking = asyncio.create_task(store.spend("a", 10, HOUR))
        for _ in range(3):
            await asyncio.sleep(0)  # until it is on its way
        time.sleep(3 * TIMEOUT.total_seconds())  # noqa: ASYNC251 - the pause
        assert ((await asking).remaining, store.is_down) == (8, False)


async def test_who_gives_up_waiting_takes_nobody_along(valkey: Valkey):
    async with counting(valkey.url) as store:
        asking = [asyncio.create_task(store.spend("a", 10, HOUR)) for _ in range(5)]
        await asyncio.sleep(0)
        asking[1].cancel()
        seen = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in seen] == [False, True, False, False, False]
        assert not store.is_down


async def test_valkey_forgets_its_scripts_and_learns_them_again(valkey: Valkey):
    async with counting(valkey.url) as store:
        await store.spend("a", 10, HOUR)
        valkey.command("SCRIPT", "FLUSH")
        assert ((await store.spend("a", 10, HOUR)).remaining, store.is_down) == (8, False)


URLS = (
    "valkey://v",
    "valkeys://:p%40ss@v:6379/3",
    "redis://u:p@[::1]:6379",
    "rediss://v/0?ssl_ca_certs=/etc/ca.pem",
    "unix:///run/valkey.sock?db=1",
)


@pytest.mark.parametrize("url", URLS)
async def test_an_address_of_valkey(url: str):
    settings = load_settings(flags={"valkey.url": url}, environ={}, config=None)
    async with counting(settings.valkey.url.get_secret_value()) as store:
        assert not store.is_down


@pytest.mark.parametrize(
    "url",
    [
        "v",
        "http://v",
        "valkey://",
        "valkey://v:port",
        "valkey://v:0",
        "valkey://v/zero",
        "valkey://hunter2@",
        "valkey://v?a=b",
    ],
)
def test_what_is_no_address_of_valkey_is_refused_at_start_without_being_shown(url: str):
    with pytest.raises(SettingsError) as refused:
        load_settings(flags={"valkey.url": url}, environ={}, config=None)
    assert [problem.key for problem in refused.value.problems] == ["valkey.url"]
    assert "hunter2" not in str(refused.value)


# Without it


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers everything with these bytes, or nothing at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            if answer is not None:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"valkey://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"-LOADING Valkey is loading the dataset in memory\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"+OK\r\n",
        b"*2\r\n:1\r\n",
        b"*2\r\n$3\r\nabc\r\n$3\r\ndef\r\n",
        b"\x00\xff\xfe garbage",
        b":99999999999999999999\r\n",
    ],
)
async def test_whatever_valkey_answers_requests_go_on(answer: bytes | None):  # P24
    async with answering(answer) as url, counting(url) as store:
        loop = asyncio.get_running_loop()
        with capture_logs() as logs:
            for left in (2, 1, 0):
                started = loop.time()
                assert (await store.spend("a", 3, HOUR)).remaining == left
                assert loop.time() - started < 1.0
            assert not (await store.spend("a", 3, HOUR)).is_admitted
        assert [entry["event"] for entry in logs] == ["valkey_down"]


async def test_a_valkey_that_is_not_there_is_told_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with counting(f"valkey://:secret@127.0.0.1:{port}/0") as store:
        with capture_logs() as logs:
            calls = [store.spend("a", 10, HOUR) for _ in range(100)]
            admitted = sum(spent.is_admitted for spent in await asyncio.gather(*calls))
    assert admitted == 10
    assert [entry["event"] for entry in logs] == ["valkey_down"]
    assert "secret" not in str(logs)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", ["killed", "hung", "read-only"])
async def test_valkey_goes_and_comes_back_by_itself(mortal_valkey: Valkey, fault: str):  # P24
    async with counting(mortal_valkey.url) as store:
        await store.spend("a", 1_000_000, HOUR)
        with capture_logs() as logs:
            for _ in range(2):
                if fault == "killed":
                    mortal_valkey.kill()
                elif fault == "hung":
                    mortal_valkey.signal(signal.SIGSTOP)
                else:
                    mortal_valkey.command("REPLICAOF", "127.0.0.1", "1")
                for _ in range(20):
                    assert (await store.spend("a", 1_000_000, HOUR)).is_admitted
                assert store.is_down
                if fault == "killed":
                    mortal_valkey.start()
                elif fault == "hung":
                    mortal_valkey.signal(signal.SIGCONT)
                else:
                    mortal_valkey.command("REPLICAOF", "NO", "ONE")
                await until(lambda: not store.is_down)
                assert (await store.spend("a", 1_000_000, HOUR)).is_admitted
        assert [entry["event"] for entry in logs] == ["valkey_down", "valkey_back"] * 2
