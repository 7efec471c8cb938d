"""What a process does beside answering requests: each thing again and again, as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from usermgmt.errors import DatabaseUnavailable
from usermgmt.runtime import Runtime
from usermgmt.telemetry import error_tracking, metrics

log = structlog.get_logger("usermgmt.chores")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do at an interval. It may fail: what it keeps in memory stays as it was, and it is tried again."""

    name: str
    interval: timedelta
    do: Callable[[Runtime], Awaitable[object]]


@asynccontextmanager
async def doing(runtime: Runtime, chores: Sequence[Chore]) -> AsyncIterator[None]:
    """Do the chores while the block runs."""
    tasks = [asyncio.create_task(_repeat(runtime, chore)) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(runtime: Runtime, chore: Chore) -> None:
    """Say once that it fails, and once that it succeeds again."""
    is_failing = False
    metrics.expect(metrics.chores_failed, [chore.name])
    while True:
        await asyncio.sleep(chore.interval.total_seconds())
        try:
            await chore.do(runtime)
        except Exception as error:
            metrics.chores_failed.labels(chore.name).inc()
            if not is_failing:
                fault = None if isinstance(error, DatabaseUnavailable) else error
                log.warning("chore_failing", chore=chore.name, reason=type(error).__name__, exc_info=fault)
                if fault is not None:
                    error_tracking.tell(fault, chore=chore.name)
            is_failing = True
        else:
            metrics.chores_done.labels(chore.name).set_to_current_time()
            if is_failing:
                log.info("chore_succeeding_again", chore=chore.name)
            is_failing = False
