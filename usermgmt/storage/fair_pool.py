"""A pool whose connections go to who asked first.

SQLAlchemy's wakes who has waited longest, but whoever asks before that one runs takes the connection, and the one that
waited goes to the end of the line: under load a few wait until their patience ends, while others never wait. Here a
connection that is given back while somebody waits is handed over. A wait is a future and a timer, and no task.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import Literal, TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty, Full

T = TypeVar("T")

logging.getLogger(__name__).setLevel(logging.WARNING)  # SQLAlchemy tells what a pool does by the name of its class


class FairQueue(AsyncAdaptedQueue[T]):
    """The free connections of a pool, and who waits for one."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:  # noqa: FBT002 - its signature
        super().__init__(maxsize, use_lifo)
        self._free: deque[T] = deque()
        self._waiting: deque[asyncio.Future[T]] = deque()

    def empty(self) -> bool:
        """Whether none is free."""
        return not self._free

    def full(self) -> bool:
        """Whether all are free."""
        return 0 < self.maxsize <= len(self._free)

    def qsize(self) -> int:
        """How many are free."""
        return len(self._free)

    def put_nowait(self, item: T) -> None:
        """Give one back: to who waits longest, if anybody does."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        if self.full():
            raise Full
        self._free.append(item)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002, FBT002 - its signature
        """Give one back, at once: there is room for all that were taken."""
        self.put_nowait(item)

    def get_nowait(self) -> T:
        """Take one that is free; nobody waits while one is."""
        if not self._free:
            raise Empty
        return self._free.pop() if self.use_lifo else self._free.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> T:  # noqa: FBT002 - its signature
        """Take one, and wait up to `timeout` seconds for it; raises `Empty`."""
        if self._free or not block:
            return self.get_nowait()
        return await_(self._turn(timeout))

    async def _turn(self, seconds: float | None) -> T:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        self._waiting.append(waiter)
        ending = loop.call_later(seconds, self._give_up, waiter) if seconds is not None else None
        try:
            return await waiter
        except BaseException:
            if not waiter.done() or waiter.cancelled():
                waiter.cancel()
                self._forget(waiter)
            elif waiter.exception() is None:  # it was handed over just as who waited was cancelled
                with suppress(Full):  # of a pool that was disposed of meanwhile
                    self.put_nowait(waiter.result())
            raise
        finally:
            if ending is not None:
                ending.cancel()

    def wake_one(self) -> None:
        """Tell who waits longest that a connection may be made in place of one that could not be."""
        for waiter in self._waiting:
            if not waiter.done():
                self._give_up(waiter)
                return

    def _give_up(self, waiter: asyncio.Future[T]) -> None:
        if not waiter.done():
            waiter.set_exception(Empty())
            self._forget(waiter)

    def _forget(self, waiter: asyncio.Future[T]) -> None:
        with suppress(ValueError):  # whoever gives back may have passed over it
            self._waiting.remove(waiter)


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool with another line of those who wait. When a connection could not be made, the first of them
    tries; SQLAlchemy's would let them all wait until their patience ends.
    """

    _queue_class = FairQueue[ConnectionPoolEntry]
    _pool: FairQueue[ConnectionPoolEntry]

    def _dec_overflow(self) -> Literal[True]:
        result = super()._dec_overflow()
        self._pool.wake_one()
        return result
