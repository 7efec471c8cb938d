"""`make faults`: lets one thing fail after another under steady load, prints one table, and tells each broken promise.

Everything runs on this machine, as processes of its own: PostgreSQL and Valkey from their wheels, `usermgmt serve`, and
a small TCP proxy. Exit code 1 when a promise was broken.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic

from benchmarks.faults import of_postgresql, of_processes, of_sqlite, of_valkey
from benchmarks.faults.books import balance
from benchmarks.faults.fault import Fault, Verdict, judge
from benchmarks.faults.of_sqlite import small_disk
from benchmarks.faults.proxy import Proxy
from benchmarks.faults.scene import DURABLE, Scene, new_server, place, renew, staged
from benchmarks.faults.traffic import Call
from tests.servers import PostgreSQL, Valkey

FAULTS = (*of_postgresql.FAULTS, *of_sqlite.FAULTS, *of_valkey.FAULTS, *of_processes.FAULTS)
WARM_SECONDS = 1.0
CALM_SECONDS = 2.0
REPEATS = 50
HEADINGS = ("fault", "requests", "failed", "slowest", "recovered", "lost", "half", "what failed")
WIDTHS = (44, 8, 6, 8, 9, 4, 4)


def main() -> None:
    """Run the faults that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="shorter faults")
    parser.add_argument("--list", action="store_true", help="tell the names of the faults")
    options = parser.parse_args()
    chosen = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    if options.list:
        for fault in chosen:
            print(f"{fault.name:14} {fault.what}")
        return
    sys.exit(asyncio.run(_run(chosen, pace=0.4 if options.quick else 1.0)))


async def _run(faults: Sequence[Fault], *, pace: float) -> int:
    """Run them one after another; the exit code."""
    started = monotonic()
    _print_row(HEADINGS)
    verdicts = []
    async with AsyncExitStack() as stack:
        ground = Ground(stack)
        for fault in faults:
            verdicts.append(await _tried(fault, ground, pace))
            _print(verdicts[-1])
    broken = sum(len(verdict.broken) for verdict in verdicts)
    print(f"{len(verdicts)} faults in {monotonic() - started:.0f} s, {broken or 'no'} broken promises")
    return 1 if broken else 0


class Ground:
    """The PostgreSQL server that faults have in common, started when the first one wants it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        """`stack` is what ends it."""
        self._stack = stack
        self._server: PostgreSQL | None = None

    async def server(self) -> PostgreSQL:
        """The server, with a prepared database."""
        if self._server is None:
            self._server = await asyncio.to_thread(new_server)
            self._stack.push_async_callback(asyncio.to_thread, self._server.remove)
        return self._server


async def _tried(fault: Fault, ground: Ground, pace: float) -> Verdict:
    """Let one fault happen under load, wait until all is calm, and hold the books."""
    async with place() as folder, _databases(fault, Scene(fault.kind, folder, pace), ground) as scene:
        async with staged(scene, settings=fault.settings, words=fault.words, rate=fault.rate):
            await asyncio.sleep(WARM_SECONDS)
            await fault.happen(scene)
            await _calm(scene, fault.recovery)
            await scene.load.rest()
            first = await balance(scene.rows, scene.load.calls)
            repeats = await _repeats(scene)
            second = await balance(scene.rows, repeats)
            first.half += second.half
            first.lost += second.lost
        await _verify(scene)
        return judge(fault, scene, first, repeats)


@asynccontextmanager
async def _databases(fault: Fault, scene: Scene, ground: Ground) -> AsyncIterator[Scene]:
    """What the fault needs of databases and of the way to them."""
    async with AsyncExitStack() as stack:
        if fault.kind == "sqlite":
            folder = stack.enter_context(small_disk(scene.folder)) if fault.on_small_disk else scene.folder
            scene.url = f"sqlite:///{folder}/faults.db"
            yield scene
            return
        # whoever is promoted stays it: a pair of its own
        scene.postgresql = await (Ground(stack) if fault.has_standby else ground).server()
        if fault.has_standby:
            scene.standby = await asyncio.to_thread(_standby, scene.postgresql)
            stack.push_async_callback(asyncio.to_thread, scene.standby.remove)
        await asyncio.to_thread(renew, scene.postgresql)
        if fault.through_proxy:
            scene.proxy = Proxy(scene.postgresql.port)
            await scene.proxy.start()
            stack.push_async_callback(scene.proxy.stop)
        if fault.has_valkey:
            scene.valkey = Valkey()
            await asyncio.to_thread(scene.valkey.start)
            stack.push_async_callback(asyncio.to_thread, scene.valkey.kill)
        yield scene


def _standby(primary: PostgreSQL) -> PostgreSQL:
    """A standby without which nothing is acknowledged."""
    standby = PostgreSQL(DURABLE, primary=primary)
    standby.start()
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    primary.execute("SELECT pg_reload_conf()")
    return standby


async def _calm(scene: Scene, recovery: float) -> None:
    """Go on until no request has failed for a while, or it is clear that it does not recover."""
    deadline = scene.healed + recovery + CALM_SECONDS
    while monotonic() < deadline:
        await asyncio.sleep(0.1)  # the load goes on meanwhile
        last = max((call.ended for call in scene.load.calls if not call.is_good), default=0.0)
        if monotonic() - max(last, scene.healed) > CALM_SECONDS:
            return


async def _repeats(scene: Scene) -> list[Call]:
    """Repeat registrations that did not succeed, under their keys: each is made, once."""
    names = [call.name for call in scene.load.calls if call.kind == "register" and not call.is_good]
    return [await scene.load.repeat(name) for name in names[-REPEATS:]]


async def _verify(scene: Scene) -> None:
    """The record still verifies, and a SQLite file is whole."""
    done = await asyncio.to_thread(scene.run, "audit", "verify")
    if done.returncode:
        scene.broken.append(f"audit verify: {done.stderr.decode() or done.stdout.decode()}")
    if scene.kind == "sqlite":
        found = await scene.rows("PRAGMA integrity_check"), await scene.rows("PRAGMA foreign_key_check")
        if found != ([("ok",)], []):
            scene.broken.append(f"the file is damaged: {found}")


def _print(verdict: Verdict) -> None:
    fault, recovered = verdict.fault, verdict.recovered
    _print_row(
        (
            fault.what,
            str(verdict.requests),
            str(verdict.failed.total()),
            f"{verdict.slowest:.2f} s",
            "never" if recovered is None else f"{recovered:.2f} s",
            str(len(verdict.balance.lost)),
            str(len(verdict.balance.half)),
            ", ".join([*(f"{name} × {count}" for name, count in verdict.failed.most_common()), *verdict.notes]),
        )
    )
    for promise in verdict.broken:
        print(f"    BROKEN: {promise}", flush=True)


def _print_row(cells: Sequence[str]) -> None:
    fixed = [
        f"{cell:{'<' if place == 0 else '>'}{width}}"
        for place, (cell, width) in enumerate(zip(cells, WIDTHS, strict=False))
    ]
    print("  ".join([*fixed, cells[-1]]), flush=True)


if __name__ == "__main__":
    main()
