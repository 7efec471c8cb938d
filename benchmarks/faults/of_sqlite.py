"""What the disk and other processes can do to a SQLite file."""

import asyncio
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.fault import Fault
from benchmarks.faults.scene import Scene

DISK = "disk"
DISK_MEGABYTES = 16


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A place for the file: for root a disk of its own that can be filled, else the folder."""
    if os.geteuid() != 0:
        yield folder
        return
    disk = folder / DISK
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def disk_full(scene: Scene) -> None:
    """No file can grow: the disk is full, or, where no disk can be mounted, the process may write no longer files."""
    scene.begin_fault()
    with _filled(scene.file.parent) if scene.file.parent.name == DISK else _limited(scene):
        await scene.wait(8)
    scene.heal()
    if not any(call.is_write and call.status == 503 for call in scene.load.calls):
        scene.broken.append("nothing noticed that the disk was full")


async def locked(scene: Scene) -> None:
    """Another process has the file for itself."""
    holder = sqlite3.connect(scene.file, isolation_level=None, timeout=5)
    await asyncio.sleep(0)
    holder.execute("BEGIN EXCLUSIVE")
    scene.begin_fault()
    await scene.wait(10)
    holder.execute("ROLLBACK")
    scene.heal()
    holder.close()


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _limited(scene: Scene) -> Iterator[None]:
    pid = scene.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in scene.file.parent.glob(f"{scene.file.name}*"))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


FAULTS = (
    Fault("full", "SQLite: the disk is full", disk_full, kind="sqlite", reads_go_on=True, on_small_disk=True),
    Fault("locked", "SQLite: another process locks the file", locked, kind="sqlite", reads_go_on=True, slowest=5.0),
)
