"""The threads that hash: few, of low priority, and entered only by whom they will serve soon.

A caller is refused when it would wait longer than a client would.
"""

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from usermgmt.errors import Overloaded

T = TypeVar("T")
Observer = Callable[[float, float], None]
"""Is told of each hash how long it waited and how long it took, in seconds."""

WEIGHT_OF_NEWEST = 0.2
WEIGHT_OF_LONGER = 0.5
LEAST_PATIENCE_AT_TURN = 1.0  # seconds; a shorter queue is bounded where it is entered
SOONEST_LOOK = 0.8  # seconds, likewise
NICEST = 19
SPREAD = (0.8, 1.2)  # of the patience: who came together is not told together, nor comes back together
WHOLE_WAIT = 1.8  # times the longest wait for a thread: what the way to the answer may take
SECOND_LOOK = 0.32  # of the longest wait: after it who still waits is told whether it is in vain, in 0.8 of 2.5 seconds
FURTHER_LOOKS = 0.1  # seconds from each look to the next


@dataclass(slots=True)
class Place:
    """A place in the queue of hashes, for one of them."""

    asked: float
    is_used: bool = False


@dataclass(slots=True, eq=False)
class _Job:
    """A job that waits or runs, with the times at which it was asked for and begun."""

    asked: float
    begun: float = 0.0
    is_refused: bool = False
    look: asyncio.TimerHandle | None = None


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
        bounds the queue, and `patience` is about how long a place in it is waited for; `around` each wait for a job is
        a block of its own.
        """
        self.workers = workers or processors()
        self._max_wait = max_wait.total_seconds()
        self._look_after = max(SECOND_LOOK * self._max_wait, SOONEST_LOOK)
        self._patience = patience.total_seconds()
        self._observe, self._observe_refusal, self._around = observe, observe_refusal, around
        self._pool = ThreadPoolExecutor(self.workers, "hash", initializer=_lower_priority, initargs=(nice,))
        self._seconds = seconds
        self._admitted = 0
        self._queue: dict[_Job, None] = {}  # what waits for a thread, in order
        self._begun: dict[_Job, None] = {}  # what runs, the oldest first
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many hashes are being computed."""
        return len(self._begun)

    @property
    def waiting(self) -> int:
        """How many wait for a thread."""
        return max(0, self._admitted - self.running)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Take a place in the queue before the work that leads to a hash, so that nobody does that work in vain.

        Where there is none, wait a moment for one: who comes again at once when refused would cost more than who waits.
        Raises `Overloaded`.
        """
        asked = time.perf_counter()
        if self._expected_wait() > self._longest_wait():
            patience = self._patience * random.uniform(*SPREAD)  # noqa: S311 - it is no secret
            await asyncio.sleep(patience)
            self._admit(already=patience)
        else:
            self._admit()
        taken = Place(asked)
        try:
            yield taken
        finally:
            if not taken.is_used:
                self._leave()

    async def run(self, job: Callable[[], T], place: Place | None = None) -> T:
        """Run a job in the pool unless it would wait too long. A caller that goes away takes its job along."""
        if place is None or place.is_used:
            self._admit()
            waiting = _Job(time.perf_counter())
        else:
            place.is_used = True
            waiting = _Job(place.asked)
        with self._lock:
            self._queue[waiting] = None
        future = self._pool.submit(self._timed, job, waiting)
        future.add_done_callback(self._leave)  # when it is computed or dropped, not when its caller stops waiting
        future.add_done_callback(lambda _: self._queue.pop(waiting, None))
        in_seconds = waiting.asked + self._look_after - time.perf_counter()
        waiting.look = asyncio.get_running_loop().call_later(in_seconds, self._look_again, waiting, future)
        try:
            with self._around():
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if waiting.is_refused:
                raise Overloaded(retry_after=math.ceil(self._seconds)) from None
            raise
        finally:
            waiting.look.cancel()

    async def close(self) -> None:
        """Stop the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self, *, already: float = 0.0) -> None:
        wait = self._expected_wait()
        if wait > 0 and already + wait > self._longest_wait():
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

    def _longest_wait(self) -> float:
        """What may be waited: less where the job itself takes long, since its answer is waited for too."""
        return max(0.0, min(self._max_wait, WHOLE_WAIT * self._max_wait - self._seconds))

    def _look_again(self, waiting: _Job, future: "Future[Any]") -> None:
        """Refuse who still waits and would wait too long by what is known now: at the begin of a flood a job takes
        ten times what the last ones took, and whoever learns that at its turn only has waited for seconds in vain.
        Where a job takes longer than until this look, nobody knows when the next one begins: then nobody waits for it.
        """
        with self._lock:
            queue, oldest = [*self._queue], next(iter(self._begun), None)
        if waiting not in queue:
            return
        now = time.perf_counter()
        runs = now - oldest.begun if oldest is not None else 0.0
        seconds = max(self._seconds, runs)
        left = (queue.index(waiting) + 1) / self.workers * seconds - runs
        if seconds > self._look_after or now - waiting.asked + left > self._max_wait:
            waiting.is_refused = future.cancel()
            if waiting.is_refused:
                self._observe_refusal()
        else:
            waiting.look = asyncio.get_running_loop().call_later(FURTHER_LOOKS, self._look_again, waiting, future)

    def _timed(self, job: Callable[[], T], waiting: _Job) -> T:
        """Run in a thread, keeping a moving average of the time it takes, quick to grow and slow to fall.

        Who was let in by a time that has grown since and waited too long is refused.
        """
        waiting.begun = time.perf_counter()
        waited = waiting.begun - waiting.asked
        with self._lock:
            del self._queue[waiting]
        if waited > max(self._max_wait, LEAST_PATIENCE_AT_TURN):
            self._observe_refusal()
            raise Overloaded(retry_after=math.ceil(self._seconds))
        with self._lock:
            self._begun[waiting] = None
        try:
            return job()
        finally:
            with self._lock:
                del self._begun[waiting]
                spent = time.perf_counter() - waiting.begun
                weight = WEIGHT_OF_LONGER if spent > self._seconds else WEIGHT_OF_NEWEST
                self._seconds += weight * (spent - self._seconds)
            self._observe(waited, spent)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lower_priority(nice: int) -> None:
    """Give way to the event loop: the higher the niceness, the smaller this thread's share of a busy processor. It is
    added to that of the process, whose event loop may have one too.
    """
    try:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(NICEST, os.getpriority(os.PRIO_PROCESS, thread) + nice))
    except (OSError, AttributeError):
        return
