"""Coalesced reads: what many requests look up at the same time is one statement.

A read that is asked for waits for the loop's turn to end; then one statement reads the keys of all that asked. While
`MOST_AT_ONCE` statements run, further keys gather for the next. A statement that runs already is never joined, so what
a caller gets was read after it asked: no session and no right is served stale.

Only for reads that nothing is decided on by a later write; those read in their own transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from usermgmt.errors import DatabaseUnavailable

K = TypeVar("K")
V = TypeVar("V")

MOST_KEYS = 100
MOST_AT_ONCE = 2


class Loader(Generic[K, V]):
    """Reads values by their keys through `fetch`, which gives those of the keys that exist."""

    def __init__(self, fetch: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], *, patience: float) -> None:
        """`patience` is how many seconds a key waits for its statement to begin."""
        self.statements = 0
        self.keys = 0
        self._fetch = fetch
        self._patience = patience
        self._gathered: dict[K, list[asyncio.Future[V | None]]] = {}
        self._since = 0.0
        self._is_due = False
        self._running: set[asyncio.Task[None]] = set()

    async def load(self, key: K) -> V | None:
        """The value of a key as it is now, None where there is none.

        Raises what reading raised, and `DatabaseUnavailable` when no statement could begin in time.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[V | None] = loop.create_future()
        if not self._gathered:
            self._since = loop.time()
        self._gathered.setdefault(key, []).append(waiter)
        if not self._is_due and len(self._running) < MOST_AT_ONCE:
            self._is_due = True
            loop.call_soon(self._dispatch, context=Context())  # of no request: the statement is everybody's
        elif loop.time() - self._since > self._patience:
            self._give_up()
        return await waiter

    def _dispatch(self) -> None:
        """Begin statements for what has gathered."""
        self._is_due = False
        loop = asyncio.get_running_loop()
        while self._gathered and len(self._running) < MOST_AT_ONCE:
            keys = list(self._gathered)[:MOST_KEYS]
            batch = {key: self._gathered.pop(key) for key in keys}
            self._since = loop.time()
            task = loop.create_task(self._read(batch))
            self._running.add(task)
            task.add_done_callback(self._follow)

    def _follow(self, done: asyncio.Task[None]) -> None:
        self._running.discard(done)
        if not self._is_due:
            self._dispatch()

    async def _read(self, batch: dict[K, list[asyncio.Future[V | None]]]) -> None:
        """Read a batch and tell everybody who waits; those who left meanwhile are passed over."""
        self.statements += 1
        self.keys += len(batch)
        try:
            found = await self._fetch(list(batch))
        except asyncio.CancelledError:
            _fail(batch.values(), DatabaseUnavailable())
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):  # one of them cannot be read: which?
                for key, waiters in batch.items():
                    await self._read({key: waiters})
            else:
                _fail(batch.values(), error)
            return
        for key, waiters in batch.items():
            value = found.get(key)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(value)

    def _give_up(self) -> None:
        """Refuse those who wait behind statements that do not end."""
        refused, self._gathered = self._gathered, {}
        _fail(refused.values(), DatabaseUnavailable("The database is busy. Try again shortly."))


def _fail(batch: Iterable[list[asyncio.Future[V | None]]], error: Exception) -> None:
    for waiters in batch:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
