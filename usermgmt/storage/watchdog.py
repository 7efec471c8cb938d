"""Telling a PostgreSQL that hangs from a statement that is slow.

A server whose processes or whose machine stand still is worse than one that is gone: the kernel takes connections for
it, the network takes bytes, and everybody waits for a timeout of their own. So each process has a watchdog with one
more connection, and probes the server over it, asking for nothing, when something is asked for longer than
`UNEASY_SECONDS`. If neither the probe nor any other statement is answered within `PROBE_SECONDS`, the server hangs:
every connection to it is dropped, which ends the waiting, and nobody is let in until a probe is answered. Each time
that this happens again soon, more patience is had, so that a machine with too much to do is not given more by
connections that are dropped and made again.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

UNEASY_SECONDS = 0.75
PROBE_SECONDS = 1.0
FIRST_PROBE_SECONDS = 1.5  # where a connection has to be made for it
LONGEST_PROBE_SECONDS = 8.0
STEADY_SECONDS = 60.0
PAUSE_SECONDS = 0.25
TURNS = 10
LEAST_TURNS = 5

log = structlog.get_logger("usermgmt.database")


class ServerHangs(TimeoutError):
    """The server does not answer, so that nothing is asked of it."""


class Watchdog:
    """Watches the pools of one server."""

    def __init__(self, probing: AsyncEngine) -> None:
        """`probing` is a pool of one connection to the same server, which nobody else uses."""
        self.hangs = False
        self._probing = probing
        self._since: dict[ConnectionPoolEntry, float] = {}
        self._connections: set[asyncpg.Connection[Any]] = set()
        self._probe_connections: set[asyncpg.Connection[Any]] = set()
        self._answered = 0
        self._patience = PROBE_SECONDS
        self._hung_at = -STEADY_SECONDS
        self._watch: asyncio.Task[None] | None = None
        self._probes: set[asyncio.Task[None]] = set()
        self._collect(probing, self._probe_connections)

    def watch(self, engine: AsyncEngine) -> None:
        """Watch what is asked through a pool. To be called before anything else listens to it."""
        pool = engine.sync_engine

        @event.listens_for(pool, "do_connect")
        def connect(dialect: Dialect, record: ConnectionPoolEntry, words: Any, options: Any) -> Any:  # the driver's
            self.refuse()
            with self._asking(record):
                connection = dialect.connect(*words, **options)
            self._answered += 1
            return connection

        @event.listens_for(pool, "close")
        def note_closed(_: object, record: ConnectionPoolEntry) -> None:
            self._since.pop(record, None)

        @event.listens_for(pool, "checkout")
        def note_taken(_: object, record: ConnectionPoolEntry, __: object) -> None:
            self._note(record)

        @event.listens_for(pool, "checkin")
        def note_returned(_: object, record: ConnectionPoolEntry) -> None:
            self._since.pop(record, None)

        @event.listens_for(pool, "after_cursor_execute")
        def note_answer(*_: object) -> None:
            self._answered += 1

        self._collect(engine, self._connections)

    def refuse(self) -> None:
        """Raise `ServerHangs` while it does."""
        if self.hangs:
            raise ServerHangs

    async def close(self) -> None:
        """Watch no longer."""
        tasks = [*self._probes, *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._probing.dispose()

    def _collect(self, engine: AsyncEngine, found: "set[asyncpg.Connection[Any]]") -> None:
        """Know the connections that a pool has open."""

        @event.listens_for(engine.sync_engine, "connect")
        def add(connection: Any, _: object) -> None:  # the DBAPI has no common type
            found.add(connection.driver_connection)

        @event.listens_for(engine.sync_engine, "close")
        def discard(connection: Any, _: object) -> None:  # as above
            found.discard(connection.driver_connection)

    def _note(self, record: ConnectionPoolEntry) -> None:
        """Something is asked from now on."""
        self._since[record] = time.monotonic()
        if self._watch is None or self._watch.done():
            loop = asyncio.get_running_loop()
            self._watch = loop.create_task(self._keep_watch(), context=Context())  # of no request: it is everybody's

    @contextmanager
    def _asking(self, record: ConnectionPoolEntry) -> Iterator[None]:
        self._note(record)
        try:
            yield
        finally:
            self._since.pop(record, None)

    async def _keep_watch(self) -> None:
        """Probe now and then for as long as something is asked."""
        while self._since or self.hangs:
            await asyncio.sleep(PAUSE_SECONDS)
            if self.hangs or not self._probe_connections or self._is_uneasy():
                before = self._answered
                is_well = await self._probe() or self._answered != before
                self._judge(is_well=is_well)

    def _is_uneasy(self) -> bool:
        now = time.monotonic()
        return now - min(self._since.values(), default=now) > UNEASY_SECONDS

    def _judge(self, *, is_well: bool) -> None:
        if is_well and self.hangs:
            log.info("database_answers_again")
        elif not is_well and not self.hangs:
            log.error("database_hangs", connections=len(self._connections))
            now = time.monotonic()
            is_soon = now - self._hung_at < STEADY_SECONDS
            self._patience = min(self._patience * 2, LONGEST_PROBE_SECONDS) if is_soon else PROBE_SECONDS
            self._hung_at = now
        self.hangs = not is_well
        if not is_well:
            _drop(self._connections)

    async def _probe(self) -> bool:
        """Whether the server says anything in time; an error is an answer, and who is refused need not wait either.

        The time is counted in turns of our own loop: where this process gets no processor, the answer may be there.
        """
        patience = max(self._patience, PROBE_SECONDS if self._probe_connections else FIRST_PROBE_SECONDS)
        probe = asyncio.create_task(self._ask_nothing())
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)
        ends = time.monotonic() + 1.5 * patience
        for turn in range(TURNS):
            await asyncio.wait((probe,), timeout=patience / TURNS)
            if probe.done():
                return True
            if turn >= LEAST_TURNS and time.monotonic() > ends:
                break
        _drop(self._probe_connections)  # first: one that is cancelled would say good-bye, and wait for the answer
        probe.cancel()
        return False

    async def _ask_nothing(self) -> None:
        with suppress(Exception):  # whatever it is, it is no silence
            async with self._probing.connect() as connection:
                await connection.execute(text("SELECT 1"))


def _drop(connections: "set[asyncpg.Connection[Any]]") -> None:
    """Break them at once; whoever waits for one is told so."""
    for connection in list(connections):
        connection.terminate()
    connections.clear()
