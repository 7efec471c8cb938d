"""What can happen to the server's own processes."""

import asyncio
import os
import signal
from contextlib import suppress

import asyncpg

from benchmarks.faults.fault import BROKEN, NOTHING, Fault
from benchmarks.faults.scene import Scene

TWO = {"server__workers": "2"}
KILLS = 20
EXIT_SECONDS = 15.0


async def killed(scene: Scene) -> None:
    """All processes are killed at once under writes, and started again as a service manager does; over and over."""
    scene.load.is_writing_only = True
    scene.begin_fault()
    done = 0
    while done < KILLS * scene.pace:
        done += max(1, len(scene.workers()))
        await asyncio.sleep(1.2 * max(1, len(scene.workers())))
        for pid in [scene.process.pid, *scene.workers()]:  # the parent first: it would replace them
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(scene.process.wait)
        await scene.start()
        scene.heal()
    acknowledged = sum(call.is_write and call.is_good for call in scene.load.calls)
    scene.notes.append(f"{done} killed, {acknowledged} writes acknowledged")


async def worker_killed(scene: Scene) -> None:
    """One of two workers is killed; the other goes on, and it is replaced."""
    before = scene.workers()
    scene.begin_fault()
    os.kill(before[0], signal.SIGKILL)
    scene.heal()
    await scene.wait(6)
    after = scene.workers()
    if len(after) != 2 or before[0] in after:
        scene.broken.append(f"of the workers {before} there are {after} now")


async def ended(scene: Scene) -> None:
    """SIGTERM while requests wait for a lock: they are answered, readiness tells first, the end comes by itself."""
    connection = await asyncpg.connect(scene.server.url("faults").replace("+asyncpg", ""))
    scene.begin_fault()
    async with connection.transaction():
        await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        asking = [scene.load.ask() for _ in range(8)]
        await asyncio.sleep(0.3)
        scene.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.7)
    await connection.close()
    await asyncio.gather(*asking)
    code = await asyncio.to_thread(scene.process.wait, EXIT_SECONDS)
    if code != 0:
        scene.broken.append(f"it ended with {code}")
    refused = [call for call in scene.load.probes if call.kind == "ready" and call.status == 503]
    if not refused:
        scene.broken.append("readiness did not tell that it ends")
    await scene.start()
    scene.heal()


FAULTS = (
    Fault("ended", "SIGTERM under load, then a start", ended, fails=NOTHING, slowest=3.0, is_live=False,
          settings={**TWO, "server__drain_delay": "1s"}),
    Fault("worker", "one of two workers is killed (-9)", worker_killed, fails=BROKEN, is_live=False, settings=TWO),
    Fault("kill-9", "all processes killed (-9), again and again", killed, fails=BROKEN, is_live=False, rate=100,
          slowest=3.0, settings=TWO),
    Fault("kill-9-sqlite", "SQLite: killed (-9), again and again", killed, kind="sqlite", fails=BROKEN, is_live=False,
          rate=100, slowest=3.0),
)  # fmt: skip
