"""The threads that hash: few, of low priority, and entered only by whom they will serve soon.

A caller is refused when it would wait longer than a client would.
"""

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from usermgmt.errors import Overloaded

T = TypeVar("T")
Observer = Callable[[float, float], None]
"""Is told of each hash how long it waited and how long it took, in seconds."""

WEIGHT_OF_NEWEST = 0.2
WEIGHT_OF_LONGER = 0.5
LEAST_PATIENCE_AT_TURN = 1.0  # seconds; a shorter queue is bounded where it is entered


@dataclass(slots=True)
class Place:
    """A place in the queue of hashes, for one of them."""

    is_used: bool = False


class HashPool:
    """Runs jobs in a bounded pool of low-priority threads."""

    def __init__(
        self,
        *,
        seconds: float,
        workers: int = 0,
        nice: int = 0,
        max_wait: timedelta = timedelta(seconds=2.5),
        patience: timedelta = timedelta(milliseconds=750),
        observe: Observer = lambda _waited, _spent: None,
        observe_refusal: Callable[[], None] = lambda: None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`seconds` is what a job may take until one was measured; `workers` 0 means one per processor; `max_wait`
        bounds the queue, and `patience` is how long a place in it is waited for; `around` each wait for a job is a
        block of its own.
        """
        self.workers = workers or processors()
        self._max_wait = max_wait.total_seconds()
        self._patience = patience.total_seconds()
        self._observe, self._observe_refusal, self._around = observe, observe_refusal, around
        self._pool = ThreadPoolExecutor(self.workers, "hash", initializer=_lower_priority, initargs=(nice,))
        self._seconds = seconds
        self._admitted = 0
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many hashes are being computed."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return max(0, self._admitted - self._running)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Take a place in the queue before the work that leads to a hash, so that nobody does that work in vain.

        Where there is none, wait a moment for one: who comes again at once when refused would cost more than who waits.
        Raises `Overloaded`.
        """
        if self._expected_wait() > self._max_wait:
            await asyncio.sleep(self._patience)
        self._admit()
        taken = Place()
        try:
            yield taken
        finally:
            if not taken.is_used:
                self._leave()

    async def run(self, job: Callable[[], T], place: Place | None = None) -> T:
        """Run a job in the pool unless it would wait too long. A caller that goes away takes its job along."""
        if place is None or place.is_used:
            self._admit()
        else:
            place.is_used = True
        future = self._pool.submit(self._timed, job, time.perf_counter())
        future.add_done_callback(self._leave)  # when it is computed or dropped, not when its caller stops waiting
        with self._around():
            return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Stop the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self) -> None:
        wait = self._expected_wait()
        if wait > self._max_wait:
            self._observe_refusal()
            raise Overloaded(retry_after=math.ceil(wait))
        with self._lock:
            self._admitted += 1

    def _leave(self, _: object = None) -> None:
        with self._lock:
            self._admitted -= 1

    def _expected_wait(self) -> float:
        """How long a job that comes now would wait, in seconds; none while a thread is idle."""
        ahead = self._admitted - self.workers + 1
        return max(0, ahead) / self.workers * self._seconds

    def _timed(self, job: Callable[[], T], asked: float) -> T:
        """Run in a thread, keeping a moving average of the time it takes, quick to grow and slow to fall.

        Who was let in by a time that has grown since and waited too long is refused.
        """
        started = time.perf_counter()
        if started - asked > max(self._max_wait, LEAST_PATIENCE_AT_TURN):
            self._observe_refusal()
            raise Overloaded(retry_after=math.ceil(self._seconds))
        with self._lock:
            self._running += 1
        try:
            return job()
        finally:
            with self._lock:
                self._running -= 1
                spent = time.perf_counter() - started
                weight = WEIGHT_OF_LONGER if spent > self._seconds else WEIGHT_OF_NEWEST
                self._seconds += weight * (spent - self._seconds)
            self._observe(started - asked, spent)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lower_priority(nice: int) -> None:
    """Give way to the event loop: the higher the niceness, the smaller this thread's share of a busy processor."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except (OSError, AttributeError):
        return
