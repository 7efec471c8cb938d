"""The database of the process: its pools, its transactions, and what its faults mean to a client.

Two doors. `begin()` opens a short write transaction that commits when the block is left and rolls back when it raises;
`read()` opens a connection for reading, where each statement sees what is committed at that moment. Nobody holds either
while a password is hashed or a response is written.

On PostgreSQL readers and writers have connections of their own, `database.pool_size` together.

SQLite has one writer: writes go through a pool of one connection that starts with BEGIN IMMEDIATE, so that they queue
here and not in the file's lock; readers have connections of their own (WAL).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import QueuePool

from usermgmt.errors import DatabaseUnavailable
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.engines import answers, postgresql_engine, sqlite_engine
from usermgmt.storage.faults import RepeatableConflict, commits_doubted, faults_translated, was_cut
from usermgmt.storage.loader import Loader
from usermgmt.storage.rows import Rows, StatementCache
from usermgmt.storage.statement_spans import trace_statements
from usermgmt.storage.watchdog import Watchdog
from usermgmt.telemetry import current_request, tracing

SQLITE_READERS = 4
SQLITE_WRITER_TIMEOUT = 5.0
READERS_SHARE = 40  # percent of the connections that PostgreSQL's readers have for themselves

K = TypeVar("K")
V = TypeVar("V")

Fetch = Callable[[Rows, Sequence[K]], Awaitable[Mapping[K, V]]]
"""Reads the values of several keys in one statement."""


class Database:
    """Opens transactions and reads for one process, and says in our own words when it cannot."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._told = (0, 0)
        self._loaders: dict[Fetch[Any, Any], Loader[Any, Any]] = {}
        self._statements = StatementCache()
        self.is_sqlite = settings.is_sqlite
        self._replica: AsyncEngine | None = None
        self._watchdog: Watchdog | None = None
        self._replica_watchdog: Watchdog | None = None
        if self.is_sqlite:
            patience = max(SQLITE_WRITER_TIMEOUT, settings.pool_timeout.total_seconds())
            self._writer = sqlite_engine(settings.url, size=1, timeout=patience, immediate=True)
            self._reader = sqlite_engine(
                settings.url, size=SQLITE_READERS, timeout=settings.pool_timeout.total_seconds(), immediate=False
            )
        else:
            readers = settings.pool_size * READERS_SHARE // 100
            watchdog = self._watchdog = self._watchdog_of(settings.url)
            self._writer = postgresql_engine(
                settings, settings.url, size=settings.pool_size - readers, watchdog=watchdog
            )
            # a flood of writes that wait for each other's locks leaves these connections to who only reads
            self._reader = self._reading(
                postgresql_engine(settings, settings.url, size=readers, watchdog=watchdog) if readers else self._writer
            )
            if settings.read_url:
                watchdog = self._replica_watchdog = self._watchdog_of(settings.read_url)
                self._replica = self._reading(
                    postgresql_engine(settings, settings.read_url, size=settings.pool_size, watchdog=watchdog)
                )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A write transaction: committed when the block is left, rolled back when it raises.

        Raises `DatabaseUnavailable` when the database is away, busy beyond the timeouts or read-only, `OutcomeUnknown`
        when it went away during the commit, and `RepeatableConflict` when the transaction lost to another
        one.
        """
        with faults_translated():
            async with AsyncSession(self._writer, expire_on_commit=False) as session:
                await session.begin()
                yield session
                with commits_doubted():
                    await session.commit()

    @asynccontextmanager
    async def read(self, *, may_lag: bool = False) -> AsyncIterator[AsyncSession]:
        """A connection for reading; raises `DatabaseUnavailable` like `begin`. With `may_lag` it is the replica's where
        there is one and it answers: what it gives may be a moment old.
        """
        engine = self._replica if may_lag and self._replica is not None else self._reader
        try:
            with faults_translated():
                async with AsyncSession(engine, expire_on_commit=False, autoflush=False) as session:
                    if engine is self._replica and not await answers(session.connection):
                        await session.close()
                        session.bind = self._reader
                    yield session
        except RepeatableConflict as conflict:  # a standby cancels a read that its replay cannot wait for (40001)
            raise DatabaseUnavailable from conflict

    @asynccontextmanager
    async def read_rows(self, *, may_lag: bool = False) -> AsyncIterator[Rows]:
        """A connection for reading rows, without the cost of objects; as `read` otherwise."""
        try:
            with faults_translated():
                async with self._lagging(may_lag) as connection:
                    yield Rows(connection, await self._driver_of(connection), self._statements)
        except RepeatableConflict as conflict:
            raise DatabaseUnavailable from conflict

    @asynccontextmanager
    async def _lagging(self, may_lag: bool) -> AsyncIterator[AsyncConnection]:
        """A connection of the replica where it may be and answers, else of the database itself."""
        if may_lag and self._replica is not None:
            replica = self._replica.connect()
            if await answers(replica.start):
                try:
                    yield replica
                finally:
                    await replica.close()
                return
        async with self._reader.connect() as connection:
            yield connection

    async def _driver_of(self, connection: AsyncConnection) -> Any:  # asyncpg's connection, which has no common type
        """The connection without SQLAlchemy; None where statements need it. Behind a pooler they need a transaction."""
        if self.is_sqlite or self._settings.is_pooled:
            return None
        return (await connection.get_raw_connection()).driver_connection

    async def coalesced(self, fetch: Fetch[K, V], key: K) -> V | None:
        """The value of one key as it is now, in one statement with whoever else asks `fetch` at the same time.

        Never for what a write depends on. Raises `DatabaseUnavailable`.
        """
        loader = self._loaders.get(fetch)
        if loader is None:
            loader = self._loaders[fetch] = self._loader(fetch)
        started = time.perf_counter()
        try:
            if not tracing.is_on():
                return await loader.load(key)
            with tracing.step(f"coalesced {fetch.__name__}"):
                return await loader.load(key)
        finally:
            current_request.add_wait(time.perf_counter() - started)

    def _watchdog_of(self, url: str) -> Watchdog | None:
        """Who watches over a server. Behind a pooler nobody does: there a probe may wait for others to be done."""
        if self._settings.is_pooled:
            return None
        return Watchdog(postgresql_engine(self._settings, url, size=1))

    def _reading(self, engine: AsyncEngine) -> AsyncEngine:
        """The engine as readers use it. A pooler gives each transaction another connection, so that what is prepared
        and what runs it must be in one; without it a statement needs no transaction.
        """
        if self._settings.is_pooled:
            return engine
        return engine.execution_options(isolation_level="AUTOCOMMIT")

    def _loader(self, fetch: Fetch[K, V]) -> Loader[K, V]:
        async def read(keys: Sequence[K]) -> Mapping[K, V]:
            async with self.read_rows() as rows:
                return await fetch(rows, keys)

        async def read_again(keys: Sequence[K]) -> Mapping[K, V]:
            """Once more when the connection turns out to have been cut: it was not asked before its use."""
            try:
                return await read(keys)
            except DatabaseUnavailable as error:
                if not was_cut(error):
                    raise
            return await read(keys)

        return Loader(read_again, patience=self._settings.pool_timeout.total_seconds())

    def coalesced_since(self) -> tuple[int, int]:
        """How many keys were looked up by coalesced reads since the last call, and by how many statements."""
        keys, statements = self._told
        loaders = self._loaders.values()
        self._told = sum(each.keys for each in loaders), sum(each.statements for each in loaders)
        return self._told[0] - keys, self._told[1] - statements

    def pools(self) -> Iterator[tuple[str, int, int]]:
        """Each pool's name, how many connections it may have, and how many are in use."""
        for name, engine in self._engines():
            if isinstance(engine.pool, QueuePool):
                yield name, engine.pool.size(), engine.pool.checkedout()

    def trace_statements(self) -> None:
        """Have each statement of a traced request be a span of its trace, from now on."""
        for _, engine in self._engines():
            trace_statements(engine)

    def _engines(self) -> Iterator[tuple[str, AsyncEngine]]:
        """One engine for each pool, which hears of all its statements: few connections are shared by all."""
        yield "write", self._writer
        if self._reader.pool is not self._writer.pool:
            yield "read", self._reader
        if self._replica is not None:
            yield "replica", self._replica

    async def is_answering(self) -> bool:
        """Whether one trivial read succeeds now."""
        try:
            async with self.read() as session:
                await session.execute(text("SELECT 1"))
        except DatabaseUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Close every connection. SQLite's threads end with it."""
        for watchdog in (self._watchdog, self._replica_watchdog):
            if watchdog is not None:
                await watchdog.close()
        await self._reader.dispose()
        if self._replica is not None:
            await self._replica.dispose()
        await self._writer.dispose()
