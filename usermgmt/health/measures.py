"""The states of this process that metrics tell: taken at intervals, and before they are told."""

import asyncio
import time
from datetime import timedelta

from usermgmt.runtime import Runtime
from usermgmt.telemetry import metrics

INTERVAL = timedelta(seconds=metrics.SAMPLE_SECONDS)


async def sample(runtime: Runtime) -> None:
    """Take them now."""
    started = time.perf_counter()
    await asyncio.sleep(0)
    metrics.set_gauges(
        {
            metrics.loop_lag: time.perf_counter() - started,
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
