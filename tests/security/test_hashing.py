"""Password hashing: what matches, what it costs, and who waits."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usermgmt.errors import Overloaded
from usermgmt.security import hash_pool, hashing
from usermgmt.security.hash_pool import HashPool
from usermgmt.security.hashing import PasswordHasher

PEPPERS = [("newer", b"n" * 32), ("older", b"o" * 32)]
STRANGE = [("strange", b"s" * 32)]
PASSWORD = "correct horse battery staple"
FIRST_72 = "0123456789abcdef" * 4 + "01234567"
KEYS = "\U0001f511" * 64  # 256 bytes
UNREADABLE = [
    None,
    "",
    "x",
    "\0" * 60,
    "$1$salt$digest",
    "um1$",
    "um1$newer",
    "um1$newer$",
    "um1$newer$x",
    "$2b$04$",
    "$2b$03$" + "a" * 53,
    "$2b$32$" + "a" * 53,
    "$2x$04$" + "a" * 53,
    "$2b$04$" + "ä" * 53,
    "$2b$٠٤$" + "a" * 53,
    "$2b$04x" + "a" * 53,
]

Make = Callable[..., PasswordHasher]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes hashers that end with the test."""
    made: list[PasswordHasher] = []

    def hasher(*, cost: int = 4, peppers: list[tuple[str, bytes]] = PEPPERS, **options: object) -> PasswordHasher:
        pool = HashPool(seconds=hashing.expected_seconds(cost), **options)  # type: ignore[arg-type]  # as given
        made.append(PasswordHasher(cost=cost, peppers=peppers, pool=pool))
        return made[-1]

    yield hasher
    for each in made:
        asyncio.run(each.close())


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What bcrypt is asked to do from now on: 2^cost for each call."""
    spent: list[int] = []
    hashpw, checkpw = bcrypt.hashpw, bcrypt.checkpw

    def counted_hash(password: bytes, salt: bytes) -> bytes:
        spent.append(2 ** int(salt[4:6]))
        return hashpw(password, salt)

    def counted_check(password: bytes, hashed: bytes) -> bool:
        spent.append(2 ** int(hashed[4:6]))
        return checkpw(password, hashed)

    monkeypatch.setattr(bcrypt, "hashpw", counted_hash)
    monkeypatch.setattr(bcrypt, "checkpw", counted_check)
    return spent


# What matches


@pytest.mark.parametrize(
    ("stored", "presented", "matches"),
    [
        (PASSWORD, PASSWORD, True),
        (PASSWORD, PASSWORD.upper(), False),
        (PASSWORD, "", False),
        (PASSWORD, f"{PASSWORD} ", False),  # A06: nothing is trimmed
        (f" {PASSWORD} ", PASSWORD, False),
        (f" {PASSWORD} ", f" {PASSWORD} ", True),
        ("abc\0tail1", "abc\0tail1", True),  # A06: nothing ends at a NUL
        ("abc\0tail1", "abc\0tail2", False),
        ("abc", "abc\0", False),
        (f"{FIRST_72}one", f"{FIRST_72}one", True),  # A03: nothing ends at the 72nd byte
        (f"{FIRST_72}one", f"{FIRST_72}two", False),
        (FIRST_72, f"{FIRST_72}x", False),
        (f"{FIRST_72}x", FIRST_72, False),
        (KEYS, KEYS, True),  # A02
        (KEYS, KEYS[:-1], False),
        ("密" * 24 + "码", "密" * 24 + "马", False),
        ("x" * 4096, "x" * 4096, True),
        ("x" * 4096, "x" * 4095, False),
        ("Zo\u00eb's password", "Zoe\u0308's password", True),  # A07: NFC, wherever it is typed
        ("Zoe\u0308's password", "Zo\u00eb's password", True),
        ("\u212bngstr\u00f6m", "\u00c5ngstr\u00f6m", True),
        ("\ufb01sherman", "fisherman", False),  # but nothing is taken for something else
        ("ｐassword", "password", False),
        ("", "", True),
    ],
    ids=lambda value: f"{str(value)[:20]!a}",
)
def test_a_password_is_verified_whole_and_as_typed(make: Make, stored, presented, matches):
    hasher = make()
    verdict = asyncio.run(hasher.verify(presented, hasher.hash_now(stored)))
    assert (verdict.matches, verdict.is_outdated) == (matches, False)


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_what_differs_after_the_72nd_byte_differs(one: str, other: str):  # P2
    hasher = PasswordHasher(cost=4, peppers=PEPPERS, pool=HashPool(seconds=hashing.expected_seconds(4), workers=1))
    stored = hasher.hash_now(FIRST_72 + one)
    same = hashing._normalised(one) == hashing._normalised(other)
    assert hasher._verify_now(FIRST_72 + one, stored).matches
    assert hasher._verify_now(FIRST_72 + other, stored).matches == same


@pytest.mark.parametrize("prefix", [b"$2a$", b"$2b$", b"$2y$"])
@pytest.mark.parametrize(
    ("made_from", "presented", "matches"),
    [
        (b"secret", "secret", True),
        (b"secret", "Secret", False),
        ("Zo\u00eb".encode(), "Zoe\u0308", True),
        (b"abc\0tail1", "abc\0tail2", False),
        (FIRST_72.encode(), f"{FIRST_72}anything", True),  # their makers cut them there
        (FIRST_72.encode(), f"x{FIRST_72}"[:72], False),
    ],
)
def test_a_plain_bcrypt_hash_matches_as_where_it_was_made(make: Make, prefix, made_from, presented, matches):
    stored = (prefix + bcrypt.hashpw(made_from, bcrypt.gensalt(4))[4:]).decode()
    verdict = asyncio.run(make().verify(presented, stored))
    assert (verdict.matches, verdict.is_outdated) == (matches, matches)


def test_a_stored_hash_says_its_version_and_pepper_and_is_never_the_same_twice(make: Make):
    hasher = make(cost=5)
    first, second = hasher.hash_now(PASSWORD), hasher.hash_now(PASSWORD)
    assert first != second
    assert first.startswith("um1$newer$$2b$05$")
    assert PASSWORD not in first


@pytest.mark.parametrize(
    ("cost", "peppers", "matches", "is_outdated"),
    [
        (5, PEPPERS, True, False),
        (4, PEPPERS, True, True),
        (6, PEPPERS, True, True),
        (5, PEPPERS[1:], True, True),
        (5, STRANGE, False, False),  # its pepper is configured no more
    ],
)
def test_a_hash_of_another_cost_or_pepper_is_outdated(make: Make, cost, peppers, matches, is_outdated):
    stored = make(cost=cost, peppers=peppers).hash_now(PASSWORD)
    verdict = asyncio.run(make(cost=5).verify(PASSWORD, stored))
    assert (verdict.matches, verdict.is_outdated) == (matches, is_outdated)


@pytest.mark.parametrize("stored", UNREADABLE)
def test_what_nobody_here_can_verify_matches_nothing(make: Make, stored):
    verdict = asyncio.run(make().verify(PASSWORD, stored))
    assert (verdict.matches, verdict.is_outdated) == (False, False)


# What it costs


@pytest.mark.parametrize("presented", [PASSWORD, "something else"])
@pytest.mark.parametrize("kind", ["current", "cheap", "other pepper", "unknown pepper", "plain", "unknown", "none"])
def test_every_verification_costs_the_same(make: Make, work: list[int], kind, presented):  # B02, P7
    stored = {
        "current": make(cost=7).hash_now(PASSWORD),
        "cheap": make(cost=4).hash_now(PASSWORD),
        "other pepper": make(cost=7, peppers=PEPPERS[1:]).hash_now(PASSWORD),
        "unknown pepper": make(cost=7, peppers=STRANGE).hash_now(PASSWORD),
        "plain": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode(),
        "unknown": "$1$salt$digest",
        "none": None,
    }[kind]
    work.clear()
    asyncio.run(make(cost=7).verify(presented, stored))
    assert sum(work) == 2**7


@pytest.mark.parametrize("length", [0, 8, 71, 72, 73, 4096])
def test_a_long_password_costs_no_more_than_a_short_one(make: Make, work: list[int], length):
    asyncio.run(make(cost=5).verify("x" * length, None))
    assert work == [2**5]


def test_refusing_a_caller_costs_nothing(make: Make, work: list[int]):
    hasher = make(cost=12, max_wait=timedelta(0), workers=1)
    with blocked(hasher):

        async def refused() -> None:
            with pytest.raises(Overloaded):
                await hasher.verify(PASSWORD, None)

        asyncio.run(refused())
    assert work == []


# Who waits


@contextmanager
def blocked(hasher: PasswordHasher) -> Iterator[threading.Event]:
    """Every thread of the hasher is busy until the event is set, or the block is left."""
    release, busy = threading.Event(), threading.Semaphore(0)

    def occupy() -> None:
        busy.release()
        release.wait()

    async def begin() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(hasher.pool.run(occupy)) for _ in range(hasher.workers)]

    loop = asyncio.new_event_loop()
    try:
        tasks = loop.run_until_complete(begin())
        loop.run_until_complete(asyncio.sleep(0))
        for _ in tasks:
            assert busy.acquire(timeout=10)
        yield release
    finally:
        release.set()
        loop.run_until_complete(asyncio.gather(*tasks))
        loop.close()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_queue_admits_what_can_start_in_time_and_refuses_the_next(make: Make, workers):  # M14, P21
    hasher = make(cost=4, workers=workers, max_wait=timedelta(seconds=10 * hashing.COST_12_SECONDS / 2**8))

    with blocked(hasher) as release:

        async def crowd() -> list[object]:
            tasks = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(100)]
            await asyncio.sleep(0)
            release.set()
            return await _ends(tasks)

        answers = asyncio.run(crowd())
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    hashed = [answer for answer in answers if isinstance(answer, str)]
    assert (len(hashed), len(refused)) == (10 * workers, 100 - 10 * workers)
    assert {error.headers["Retry-After"] for error in refused} == {"1"}
    assert (hasher.running, hasher.waiting) == (0, 0)
    assert isinstance(asyncio.run(hasher.hash(PASSWORD)), str)


def test_a_refusal_tells_how_long_the_queue_is(make: Make):
    hasher = make(cost=16, workers=1, max_wait=timedelta(seconds=1))
    with blocked(hasher):
        with pytest.raises(Overloaded) as refusal:
            asyncio.run(hasher.hash(PASSWORD))
        assert refusal.value.headers["Retry-After"] == "4"  # 2^16 takes sixteen times as long as 2^12


def test_the_queue_admits_less_when_hashing_is_slower_than_thought(make: Make):
    hasher = make(cost=4, workers=1, max_wait=timedelta(milliseconds=20))
    with blocked(hasher) as release:  # one job that takes a hundred times what was thought
        threading.Timer(0.3, release.set).start()
        release.wait()
    with blocked(hasher), pytest.raises(Overloaded):
        asyncio.run(hasher.hash(PASSWORD))


def test_who_waits_for_what_takes_too_long_is_told_before_its_turn(make: Make, monkeypatch):
    monkeypatch.setattr(hash_pool, "SOONEST_LOOK", 0.05)
    hasher = make(cost=4, workers=1, max_wait=timedelta(milliseconds=150))
    with blocked(hasher) as release:  # a job that takes fifty times what was thought, and more

        async def crowd() -> list[object]:
            return await _ends([asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(5)])

        ends = asyncio.run(crowd())
        assert not release.is_set()
    assert [type(end) for end in ends] == [Overloaded] * 5
    assert (hasher.running, hasher.waiting) == (0, 0)


def test_who_waits_for_many_that_are_quick_is_served_after_many_looks(make: Make, monkeypatch):
    monkeypatch.setattr(hash_pool, "SECOND_LOOK", 0.5 / 3600)
    monkeypatch.setattr(hash_pool, "SOONEST_LOOK", 0.5)
    hasher = make(cost=7, workers=1, max_wait=timedelta(hours=1))

    async def crowd() -> list[object]:
        return await _ends([asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(150)])

    assert {type(end) for end in asyncio.run(crowd())} == {str}  # the last ones after more than a second


def test_a_caller_who_goes_away_takes_the_waiting_job_along(make: Make, work: list[int]):
    hasher = make(workers=1)

    async def give_up() -> None:
        waiting = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(5)]
        await asyncio.sleep(0)
        assert (hasher.running, hasher.waiting) == (1, 5)
        for task in waiting:
            task.cancel()
        assert all(isinstance(each, asyncio.CancelledError) for each in await _ends(waiting))
        assert (hasher.running, hasher.waiting) == (1, 0)

    with blocked(hasher):
        asyncio.run(give_up())
    assert work == []
    assert (hasher.running, hasher.waiting) == (0, 0)


def test_a_caller_who_goes_away_during_the_hash_leaves_the_counts_right(make: Make):
    hasher = make(workers=1)
    release, begun = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        release.wait()

    async def leave() -> None:
        task = asyncio.create_task(hasher.pool.run(job))
        while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0)
        task.cancel()
        await _ends([task])
        assert (hasher.running, hasher.waiting) == (1, 0)  # the thread is still busy
        release.set()
        await hasher.hash(PASSWORD)
        assert (hasher.running, hasher.waiting) == (0, 0)

    asyncio.run(leave())


def test_nothing_drifts_when_callers_come_leave_and_fail(make: Make):
    hasher = make(workers=2, max_wait=timedelta(milliseconds=5))

    async def crowd() -> None:
        for _ in range(20):
            tasks = [asyncio.create_task(hasher.hash(PASSWORD)) for _ in range(8)]
            tasks += [asyncio.create_task(hasher.hash("\ud800"))]  # which cannot be encoded
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            ends = await _ends(tasks)
            kinds = str | Overloaded | asyncio.CancelledError | UnicodeEncodeError
            assert all(isinstance(end, kinds) for end in ends)
        while hasher.running:  # noqa: ASYNC110 - a thread ends it
            await asyncio.sleep(0)

    asyncio.run(crowd())
    assert (hasher.running, hasher.waiting, hasher.pool._admitted) == (0, 0, 0)


async def test_ending_drops_what_waits_and_lets_what_runs_finish():
    hasher = PasswordHasher(cost=4, peppers=PEPPERS, pool=HashPool(seconds=hashing.expected_seconds(4), workers=1))
    release, begun = threading.Event(), threading.Event()

    def job() -> str:
        begun.set()
        release.wait()
        return "done"

    running = asyncio.create_task(hasher.pool.run(job))
    while not begun.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    waiting = asyncio.create_task(hasher.hash(PASSWORD))
    await asyncio.sleep(0)
    await hasher.close()
    release.set()
    ends = await _ends([running, waiting])
    assert ends[0] == "done"
    assert isinstance(ends[1], asyncio.CancelledError)


NICENESS = """
import asyncio, os, threading
from usermgmt.security.hash_pool import HashPool
pool = HashPool(seconds=0.1, workers=1, nice=3)
print(asyncio.run(pool.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))))
"""


def test_it_gives_way_also_where_the_process_does():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    words = ("nice", "-n", "5", sys.executable, "-c", NICENESS)
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) == min(19, own + 5 + 3)


async def test_hashing_gives_way_to_the_event_loop(make: Make):
    hasher = make(nice=19, workers=1)
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await hasher.pool.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
    await hasher.close()


async def _ends(tasks: list[asyncio.Task[object]]) -> list[object]:
    return await asyncio.gather(*tasks, return_exceptions=True)
