"""What a service manager such as systemd is told: ready, reloading, stopping, alive (sd_notify(3)).

Outside of one, nothing is said to nobody.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def notify(*lines: str) -> None:
    """Tell the service manager, if there is one; its absence or deafness is no fault of ours."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    place = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto("\n".join(lines).encode(), place)


def reloading() -> tuple[str, str]:
    """What tells that a reload has begun; READY ends it."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def watchdog_seconds() -> float | None:
    """How often the manager is to hear that we live; None when it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    is_for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2_000_000 if microseconds.isdigit() and is_for_us else None


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Tell the manager that the event loop turns, for as long as it does."""
    seconds = watchdog_seconds()
    if not seconds:
        yield
        return
    beating = asyncio.create_task(_beat(seconds))
    try:
        yield
    finally:
        beating.cancel()


async def _beat(seconds: float) -> None:
    while True:
        notify(ALIVE)
        await asyncio.sleep(seconds)
