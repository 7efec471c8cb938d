"""Doing what must be done again and again: in each process what concerns its memory, in one process of the whole
deployment what concerns the data they share.

Who does a shared chore is settled by a row that is held for a minute at a time, so that it works behind a pooler and
on every database alike. It saves work and nothing else: a batch is right, too, when two processes do it at once.
"""

import asyncio
import contextlib
import secrets as random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from usermgmt.errors import DatabaseUnavailable
from usermgmt.maintenance import queries
from usermgmt.runtime import Runtime
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.telemetry import error_tracking, metrics

LEASE = timedelta(minutes=1)
"""Longer than a batch takes. When a process dies in the middle, another one goes on after it."""

FIRST_LOOK = timedelta(seconds=30)
"""A process looks at each chore so soon after its start, or those that are seldom due would wait for long lives."""

PAUSE_SECONDS = 0.02  # between two batches, in which others have the database
EARLY = 0.1
"""The share of an interval by which a chore may come early: two clocks never tell exactly the same time."""

log = structlog.get_logger("usermgmt.chores")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that every process does for itself, at an interval. It may fail: what it keeps in memory stays as it
    was, and it is tried again.
    """

    name: str
    interval: timedelta
    do: Callable[[Runtime], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class SharedChore:
    """Something that one process does for all, at an interval: `do` is one batch in short transactions, and gives how
    many rows it did. A batch of `full` rows has another one after it; with None there is one batch.
    """

    name: str
    interval: timedelta
    do: Callable[[Runtime], Awaitable[int]]
    full: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A chore that was done."""

    rows: int
    seconds: float


@asynccontextmanager
async def doing(runtime: Runtime, own: Sequence[Chore], shared: Sequence[SharedChore]) -> AsyncIterator[None]:
    """Do the chores while the block runs."""
    holder = new_holder()
    tasks = [asyncio.create_task(_repeat(runtime, each)) for each in own]
    tasks += [asyncio.create_task(_take_turns(runtime, each, holder)) for each in shared]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_holder() -> str:
    """A name under which a process holds chores."""
    return random.token_hex(8)


async def run_chore(runtime: Runtime, chore: SharedChore, holder: str, *, if_due: bool = False) -> Run | None:
    """Do a shared chore now, batch after batch; None when somebody else does it, or with `if_due` when it is not due.

    Raises what the chore raises; it is due again after its interval.
    """
    began, started = runtime.clock.now(), time.perf_counter()
    if not await _claim(runtime, chore, holder, at=began, if_due=if_due):
        return None
    due_at = began + chore.interval * (1 - EARLY)
    try:
        rows = await _batches(runtime, chore, holder)
    except Exception:
        metrics.chores_failed.labels(chore.name).inc()
        with contextlib.suppress(DatabaseUnavailable):  # then it is let go by itself
            await _release(runtime, chore, holder, due_at=due_at, succeeded_at=None)
        raise
    now, seconds = runtime.clock.now(), time.perf_counter() - started
    await _release(runtime, chore, holder, due_at=due_at, succeeded_at=now)
    metrics.observe_chore(chore.name, at=now.timestamp(), rows=rows, seconds=seconds)
    return Run(rows, seconds)


async def find_last_success(runtime: Runtime, chore: SharedChore) -> datetime | None:
    """When any process last did a chore."""
    async with runtime.database.read() as session:
        found = await queries.find_chore(session, chore.name)
    return found.succeeded_at if found is not None else None


async def _batches(runtime: Runtime, chore: SharedChore, holder: str) -> int:
    """Do a chore to its end, or until it is somebody else's; how many rows."""
    total = 0
    while True:
        done = await chore.do(runtime)
        total += done
        if chore.full is None or done < chore.full or not await _extend(runtime, chore, holder):
            return total
        await asyncio.sleep(PAUSE_SECONDS)


@repeated_on_conflict
async def _claim(runtime: Runtime, chore: SharedChore, holder: str, *, at: datetime, if_due: bool) -> bool:
    due_within = chore.interval if if_due else None
    async with runtime.database.begin() as session:
        return await queries.insert_claim(session, chore.name, holder, now=at, lease=LEASE, due_within=due_within)


@repeated_on_conflict
async def _extend(runtime: Runtime, chore: SharedChore, holder: str) -> bool:
    async with runtime.database.begin() as session:
        return await queries.update_lease(session, chore.name, holder, held_until=runtime.clock.now() + LEASE)


@repeated_on_conflict
async def _release(
    runtime: Runtime, chore: SharedChore, holder: str, *, due_at: datetime, succeeded_at: datetime | None
) -> None:
    async with runtime.database.begin() as session:
        await queries.update_released(session, chore.name, holder, due_at=due_at, succeeded_at=succeeded_at)


async def _take_turns(runtime: Runtime, chore: SharedChore, holder: str) -> None:
    """Look at a shared chore at its interval, and do it when it is due and nobody else does."""
    teller = _Teller(chore.name)
    metrics.chores_done.labels(chore.name).set(runtime.clock.now().timestamp())  # it is not late before it was due
    await asyncio.sleep(min(chore.interval, FIRST_LOOK).total_seconds())
    while True:
        async with teller.telling():
            await _look(runtime, chore, holder)
        await asyncio.sleep(chore.interval.total_seconds())


async def _look(runtime: Runtime, chore: SharedChore, holder: str) -> None:
    """Reading first keeps the processes whose turn it is not from writing."""
    async with runtime.database.read() as session:
        found = await queries.find_chore(session, chore.name)
    if found is not None and found.succeeded_at is not None:
        metrics.chores_done.labels(chore.name).set(found.succeeded_at.timestamp())
    if found is None or not _is_waiting(found.due_at, found.held_until, runtime.clock.now(), chore):
        await run_chore(runtime, chore, holder, if_due=True)


def _is_waiting(due_at: datetime, held_until: datetime | None, now: datetime, chore: SharedChore) -> bool:
    is_held = held_until is not None and now < held_until <= now + LEASE + queries.CLOCK_SKEW
    return is_held or now < due_at <= now + chore.interval + queries.CLOCK_SKEW


async def _repeat(runtime: Runtime, chore: Chore) -> None:
    """Do a chore of this process at its interval."""
    teller = _Teller(chore.name)
    while True:
        await asyncio.sleep(chore.interval.total_seconds())
        async with teller.telling():
            try:
                await chore.do(runtime)
            except Exception:
                metrics.chores_failed.labels(chore.name).inc()
                raise
            metrics.chores_done.labels(chore.name).set_to_current_time()


class _Teller:
    """Says once that a chore fails, and once that it succeeds again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_failing = False
        metrics.expect(metrics.chores_failed, [name])

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Keep what the block raises from ending the chore."""
        try:
            yield
        except Exception as error:
            if not self._is_failing:
                fault = None if isinstance(error, DatabaseUnavailable) else error
                log.warning("chore_failing", chore=self._name, reason=type(error).__name__, exc_info=fault)
                if fault is not None:
                    error_tracking.tell(fault, chore=self._name)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("chore_succeeding_again", chore=self._name)
        self._is_failing = False
