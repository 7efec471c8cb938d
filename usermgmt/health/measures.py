"""The states of this process that metrics tell: taken at intervals, and before they are told."""

import time
from collections.abc import Callable
from datetime import timedelta

from usermgmt.runtime import Runtime
from usermgmt.telemetry import metrics

INTERVAL = timedelta(seconds=metrics.SAMPLE_SECONDS)


class Sampling:
    """Takes them at every interval, and how late the event loop came to it: only who is called by a timer knows."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """`now` tells seconds."""
        self._now = now
        self._due: float | None = None

    async def take(self, runtime: Runtime) -> None:
        """Take them, `INTERVAL` after the last time was done."""
        late = self._now() - self._due if self._due is not None else 0.0
        metrics.set_gauges({metrics.loop_lag: max(0.0, late)})
        try:
            await sample(runtime)
        finally:
            self._due = self._now() + INTERVAL.total_seconds()


async def sample(runtime: Runtime) -> None:
    """Take them now."""
    metrics.set_gauges(
        {
            metrics.hash_running: runtime.hasher.running,
            metrics.hash_waiting: runtime.hasher.waiting,
            metrics.draining: runtime.is_draining,
            metrics.memory: metrics.resident_bytes(),
        }
    )
    metrics.note_start()
    for name, size, used in runtime.database.pools():
        metrics.pool_size.labels(name).set(size)
        metrics.pool_used.labels(name).set(used)
    keys, statements = runtime.database.coalesced_since()
    metrics.read_keys.inc(keys)
    metrics.read_statements.inc(statements)
