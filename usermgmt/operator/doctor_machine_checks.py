"""What `usermgmt doctor` finds on this machine: its clock, its processor, its disks, its limits, what is installed."""

import asyncio
import os
import resource
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

from usermgmt import __version__
from usermgmt.http import connection
from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation, Needs
from usermgmt.operator.doctor_settings_checks import OTHERS, mode_of
from usermgmt.security.hashing import PasswordHasher

QUICKEST_HASH, SLOWEST_HASH = 0.1, 1.0
LOWEST_COST = 10  # OWASP Password Storage Cheat Sheet
TIMES = 3
MOST_SECONDS_OFF = 2.0
GIB = 1 << 30
LEAST_SHARE_FREE, LEAST_BYTES_FREE = 0.1, GIB
LEAST_BYTES_TO_GO_ON = GIB // 10
MOST_WAL_BYTES = 256 << 20
FILES_BESIDE_CONNECTIONS = 64
PYTHONS = ((3, 11), (3, 13))

check = Checklist()


@check("machine.python")
async def software_is_what_was_tested(installation: Installation) -> AsyncIterator[Finding]:
    """Python and the framework are of versions that were tested."""
    python = ".".join(map(str, sys.version_info[:3]))
    quart = version("quart")
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield warning(f"Python {python} was not tested with this release.", "Use Python 3.11, 3.12 or 3.13.")
    if installation.settings.server.fast_path and not connection.is_tested(quart):
        yield warning(
            f"Quart {quart} was not tested with the fast path, which is off: requests cost about twice as much.",
            f"Install Quart {connection.TESTED_WITH}x.",
        )
    yield ok(f"usermgmt {__version__} runs on Python {python}, Quart {quart}, Hypercorn {version('hypercorn')}.")


@check("machine.hash")
async def hash_costs_what_it_should(installation: Installation) -> AsyncIterator[Finding]:
    """One hash takes long enough to slow guesses down, and not so long that nobody can sign in."""
    cost = installation.settings.passwords.bcrypt_cost
    seconds = await seconds_of_a_hash(cost)
    took = f"A hash at passwords.bcrypt_cost = {cost} takes {seconds * 1000:.0f} ms here"
    calibrate = "`usermgmt passwords calibrate` proposes a cost for this machine."
    if cost < LOWEST_COST:
        yield error(f"{took}; stolen hashes are guessed quickly below cost {LOWEST_COST}.", calibrate)
    elif seconds < QUICKEST_HASH:
        yield warning(f"{took}, which slows a guesser down too little.", calibrate)
    elif seconds > SLOWEST_HASH:
        yield warning(f"{took}: people wait, and few can sign in at once.", calibrate)
    else:
        yield ok(f"{took}.")


async def seconds_of_a_hash(cost: int) -> float:
    """What one hash takes, the median of a few."""
    hasher = PasswordHasher(cost=cost, peppers=[("doctor", b"doctor")])
    times = []
    try:
        for _ in range(TIMES):
            started = time.perf_counter()
            await asyncio.to_thread(hasher.hash_now, "a password of usual length")
            times.append(time.perf_counter() - started)
    finally:
        await hasher.close()
    return statistics.median(times)


@check("machine.files")
async def enough_files_may_be_open(installation: Installation) -> AsyncIterator[Finding]:
    """As many files may be open as there may be connections."""
    server, database = installation.settings.server, installation.settings.database
    needed = server.max_connections + 2 * database.pool_size + FILES_BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok(
            f"{'Any number of' if soft == resource.RLIM_INFINITY else soft} files may be open, {needed} may be needed."
        )
        return
    yield warning(
        f"Only {soft} files may be open here; server.max_connections = {server.max_connections} may need {needed}.",
        f"Raise the limit where the server starts (`ulimit -n {needed}`, or LimitNOFILE={needed} for systemd;"
        f" the hard limit is {'none' if hard == resource.RLIM_INFINITY else hard}), or lower server.max_connections.",
    )


@check("machine.disk")
async def disks_have_room(installation: Installation) -> AsyncIterator[Finding]:
    """There is room where the server keeps files."""
    settings, places = installation.settings, dict[int, Path]()
    wanted = [settings.server.data_dir]
    if settings.database.is_sqlite:
        wanted.append(installation.settings.database.sqlite_file.parent)
    for path in wanted:
        there = nearest(path)
        places.setdefault(there.stat().st_dev, there)
    for place in places.values():
        usage = shutil.disk_usage(place)
        yield room(place, free=usage.free, total=usage.total)


def room(place: Path, *, free: int, total: int) -> Finding:
    """What is to be said of a disk."""
    told = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free at {place.resolve()}"
    mend = "Free some, or move the data to a larger disk: writes are refused when it is full."
    if free < LEAST_BYTES_TO_GO_ON:
        return error(f"{told}.", mend)
    if free < LEAST_BYTES_FREE and free < total * LEAST_SHARE_FREE:
        return warning(f"{told}.", mend)
    return ok(f"{told}.")


@check("machine.sqlite", Needs.SQLITE_FILE)
async def sqlite_file_is_in_order(installation: Installation) -> AsyncIterator[Finding]:
    """A SQLite file is private, and its log is short."""
    path = installation.settings.database.sqlite_file
    if not installation.is_development:
        yield warning(
            "The database is a SQLite file: one process can serve, on one machine.",
            "Use PostgreSQL where more is needed, and where the disk of this machine is not all there may be.",
        )
    mode = mode_of(path)
    if mode is not None and mode & OTHERS:
        yield warning(
            f"{path}, with the hash of every password, can be read by everybody on this machine (mode {mode:04o}).",
            f"chmod {mode & ~0o7:o} {path}*",
        )
    size = installation.log_bytes
    if size > MOST_WAL_BYTES:
        yield warning(
            f"Its log, {path}-wal, has {size >> 20} MiB: a reader that never ends keeps it from being merged.",
            "End programs that keep the file open, then restart the server.",
        )
    else:
        yield ok(f"The log of the SQLite file has {size >> 20} MiB.")


@check("clock.database", Needs.DATABASE)
async def clocks_agree(installation: Installation) -> AsyncIterator[Finding]:
    """This machine's clock and the database's agree."""
    if installation.settings.database.is_sqlite:
        yield ok("The database has the clock of this machine.")
        return
    async with installation.reading() as reading:
        before = installation.now()
        there = (await reading.exec_driver_sql("SELECT clock_timestamp()")).scalar_one()
        after = installation.now()
    off = max((before - there).total_seconds(), (there - after).total_seconds(), 0.0)
    if off > MOST_SECONDS_OFF:
        yield warning(
            f"This machine's clock and the database's differ by {off:.1f} s: tokens and limits are off by as much.",
            "Set both by NTP (`timedatectl set-ntp true`).",
        )
    else:
        yield ok(f"This machine's clock and the database's differ by {off * 1000:.0f} ms at most.")


@check("clock.steady")
async def clock_is_steady(installation: Installation) -> AsyncIterator[Finding]:
    """The clock did not jump while this was looked at."""
    off = abs(time.time() - time.monotonic() - installation.wall_ahead)
    if off > MOST_SECONDS_OFF:
        yield warning(
            f"The clock jumped by {off:.1f} s while it was looked at.",
            "Let NTP slew the clock in small steps (chrony, systemd-timesyncd).",
        )
    else:
        yield ok("The clock ran steadily while it was looked at.")


@check("machine.user")
async def nobody_serves_as_root(installation: Installation) -> AsyncIterator[Finding]:  # noqa: ARG001 - every check has it
    """The server needs no rights of root."""
    if os.geteuid() == 0:
        yield note("This was called as root; the server needs no such rights.", "Run it as a user of its own.")
    else:
        yield ok("This was not called as root.")


def nearest(path: Path) -> Path:
    """A path, or the nearest above it that exists."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))
