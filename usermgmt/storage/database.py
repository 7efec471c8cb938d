"""The database of the process: its pools, its transactions, and what its faults mean to a client.

Two doors. `begin()` opens a short write transaction that commits when the block is left and rolls back when it raises;
`read()` opens a connection for reading, where each statement sees what is committed at that moment. Nobody holds either
while a password is hashed or a response is written.

On PostgreSQL readers and writers have connections of their own, `database.pool_size` together.

SQLite has one writer: writes go through a pool of one connection that starts with BEGIN IMMEDIATE, so that they queue
here and not in the file's lock; readers have connections of their own (WAL).
"""

import functools
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from usermgmt.errors import DatabaseUnavailable
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.loader import Loader

SQLITE_READERS = 4
SQLITE_BUSY_MILLISECONDS = 5_000
SQLITE_WRITER_TIMEOUT = 5.0
READERS_SHARE = 40  # percent of the connections that PostgreSQL's readers have for themselves
IDLE_SECONDS = 5.0  # a connection that was used since needs no asking whether it is alive
MAX_WHOLE_DIGITS = 19  # bodies hold no longer whole number

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) that mean "not now", never "wrong":
# 08 connection, 28 and 3D no way in (a password or a database that is just being changed), 53 resources,
# 57 operator intervention and statement timeout, 55P03 lock timeout, 25006 read-only (a standby during failover),
# XX000 and 58 a fault of the server below (a distributed one says so when a node is away).
UNAVAILABLE_STATES = ("08", "28", "3D", "53", "57", "58", "55P03", "25006", "XX000")
UNAVAILABLE_SQLITE_ERRORS = tuple(
    f"SQLITE_{name}"
    for name in ("BUSY", "LOCKED", "FULL", "IOERR", "CANTOPEN", "READONLY", "PERM", "AUTH", "NOTADB", "CORRUPT")
)
# 40001 serialisation, 40P01 deadlock; 23503 foreign key: what a use case had looked up went away before it was referred
# to (a role deleted while it is given), 23505 unique: what it had found free was taken; it finds and says so when it
# looks again.
REPEATABLE_STATES = ("40001", "40P01", "23503", "23505")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

Fetch = Callable[[AsyncConnection, Sequence[K]], Awaitable[Mapping[K, V]]]
"""Reads the values of several keys in one statement."""


class RepeatableConflict(Exception):
    """Two transactions stood in each other's way and the database chose this one to give way."""


class Database:
    """Opens transactions and reads for one process, and says in our own words when it cannot."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._loaders: dict[Fetch[Any, Any], Loader[Any, Any]] = {}
        self.is_sqlite = settings.is_sqlite
        self._replica: AsyncEngine | None = None
        if self.is_sqlite:
            patience = max(SQLITE_WRITER_TIMEOUT, settings.pool_timeout.total_seconds())
            self._writer = _sqlite_engine(settings.url, size=1, timeout=patience, immediate=True)
            self._reader = _sqlite_engine(
                settings.url, size=SQLITE_READERS, timeout=settings.pool_timeout.total_seconds(), immediate=False
            )
        else:
            readers = settings.pool_size * READERS_SHARE // 100
            self._writer = _postgresql_engine(settings, settings.url, size=settings.pool_size - readers)
            # a flood of writes that wait for each other's locks leaves these connections to who only reads
            self._reader = self._reading(
                _postgresql_engine(settings, settings.url, size=readers) if readers else self._writer
            )
            if settings.read_url:
                self._replica = self._reading(_postgresql_engine(settings, settings.read_url, size=settings.pool_size))

    @property
    def engine(self) -> AsyncEngine:
        """The engine that writes; migrations use it."""
        return self._writer

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A write transaction: committed when the block is left, rolled back when it raises.

        Raises `DatabaseUnavailable` when the database is away, busy beyond the timeouts or read-only, and
        `RepeatableConflict` when the transaction lost a deadlock or a serialisation check.
        """
        with faults_translated():
            async with AsyncSession(self._writer, expire_on_commit=False) as session, session.begin():
                yield session

    @asynccontextmanager
    async def read(self, *, may_lag: bool = False) -> AsyncIterator[AsyncSession]:
        """A connection for reading; raises `DatabaseUnavailable` like `begin`. With `may_lag` it is the replica's where
        there is one and it answers: what it gives may be a moment old.
        """
        engine = self._replica if may_lag and self._replica is not None else self._reader
        try:
            with faults_translated():
                async with AsyncSession(engine, expire_on_commit=False, autoflush=False) as session:
                    if engine is self._replica and not await _answers(session):
                        await session.close()
                        session.bind = self._reader
                    yield session
        except RepeatableConflict as conflict:  # a standby cancels a read that its replay cannot wait for (40001)
            raise DatabaseUnavailable from conflict

    @asynccontextmanager
    async def read_rows(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading rows, without the cost of objects; raises `DatabaseUnavailable` like `begin`."""
        try:
            with faults_translated():
                async with self._reader.connect() as connection:
                    yield connection
        except RepeatableConflict as conflict:
            raise DatabaseUnavailable from conflict

    async def coalesced(self, fetch: Fetch[K, V], key: K) -> V | None:
        """The value of one key as it is now, in one statement with whoever else asks `fetch` at the same time.

        Never for what a write depends on. Raises `DatabaseUnavailable`.
        """
        loader = self._loaders.get(fetch)
        if loader is None:
            loader = self._loaders[fetch] = self._loader(fetch)
        return await loader.load(key)

    def _reading(self, engine: AsyncEngine) -> AsyncEngine:
        """The engine as readers use it. A pooler gives each transaction another connection, so that what is prepared
        and what runs it must be in one; without it a statement needs no transaction.
        """
        if self._settings.pooler == "transaction":
            return engine
        return engine.execution_options(isolation_level="AUTOCOMMIT")

    def _loader(self, fetch: Fetch[K, V]) -> Loader[K, V]:
        async def read(keys: Sequence[K]) -> Mapping[K, V]:
            async with self.read_rows() as connection:
                return await fetch(connection, keys)

        async def read_again(keys: Sequence[K]) -> Mapping[K, V]:
            """Once more when the connection turns out to have been cut: it was not asked before its use."""
            try:
                return await read(keys)
            except DatabaseUnavailable as error:
                if not isinstance(error.__cause__, DBAPIError) or not error.__cause__.connection_invalidated:
                    raise
            return await read(keys)

        return Loader(read_again, patience=self._settings.pool_timeout.total_seconds())

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
        await self._reader.dispose()
        if self._replica is not None:
            await self._replica.dispose()
        await self._writer.dispose()


def repeated_on_conflict(
    use_case: Callable[Concatenate[R, P], Awaitable[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Run a use case a second time when its transaction lost to another one (`REPEATABLE_STATES`).

    Only for use cases whose last transaction holds all their writes. Losing twice is `DatabaseUnavailable`.
    """

    @functools.wraps(use_case)
    async def twice(runtime: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await use_case(runtime, *args, **kwargs)
        except RepeatableConflict:
            pass
        try:
            return await use_case(runtime, *args, **kwargs)
        except RepeatableConflict as conflict:
            raise DatabaseUnavailable from conflict

    return twice


@contextmanager
def faults_translated() -> Iterator[None]:
    """Turn the faults of driver and pool into `DatabaseUnavailable` or `RepeatableConflict`."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("The database is busy. Try again shortly.") from error
    except DBAPIError as error:
        _raise_translated(error)
        raise
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        raise DatabaseUnavailable from error


def _raise_translated(error: DBAPIError) -> None:
    """Raise our own word for a database fault that passes; return for one that is ours (a bug)."""
    state = str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")
    if state in REPEATABLE_STATES:
        raise RepeatableConflict from error
    if error.connection_invalidated or state.startswith(UNAVAILABLE_STATES):
        raise DatabaseUnavailable from error
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    if name.startswith(UNAVAILABLE_SQLITE_ERRORS):
        raise DatabaseUnavailable from error
    if isinstance(error.orig, (OSError, TimeoutError)):
        raise DatabaseUnavailable from error


def _postgresql_engine(settings: DatabaseSettings, url: str, *, size: int) -> AsyncEngine:
    """A pool of a fixed size (an overflow that opens and closes connections under load costs a third of the CPU)."""
    milliseconds = int(settings.statement_timeout.total_seconds() * 1000)
    engine = create_async_engine(
        driver_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout.total_seconds(),
        pool_use_lifo=True,  # the connections that are used have the statements prepared
        json_deserializer=_read_document,
        hide_parameters=True,  # a fault is logged with its statement: a password's hash would be among the values
        connect_args={
            "timeout": settings.connect_timeout.total_seconds(),
            "command_timeout": settings.statement_timeout.total_seconds() + 1,
            **(_POOLED if settings.pooler == "transaction" else {"server_settings": _session_settings(milliseconds)}),
        },
    )
    if settings.pooler == "transaction":
        _limit_transactions(engine, milliseconds)
    _renew_dead_connections(engine)
    return engine


def _session_settings(milliseconds: int) -> dict[str, str]:
    """What bounds a connection's statements, its waits for locks, and its rests inside a transaction."""
    return {
        "application_name": "usermgmt",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(milliseconds),
        "idle_in_transaction_session_timeout": str(milliseconds * 2),
    }


_POOLED = {"statement_cache_size": 0, "prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
"""A pooler keeps no statement that was prepared under a name: they are prepared anew, without one."""


def _limit_transactions(engine: AsyncEngine, milliseconds: int) -> None:
    """Bound each transaction: behind a pooler nothing that was set for a connection lasts."""
    bounds = {name: value for name, value in _session_settings(milliseconds).items() if name != "application_name"}
    limits = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in bounds.items())

    @event.listens_for(engine.sync_engine, "begin")
    def limit(connection: Any) -> None:  # SQLAlchemy's event passes its own connection
        connection.exec_driver_sql(limits)


async def _answers(session: AsyncSession) -> bool:
    """Whether the server at the other end takes statements now."""
    try:
        await session.connection()
    except (DBAPIError, PoolTimeout, OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError):
        return False
    return True


def _renew_dead_connections(engine: AsyncEngine) -> None:
    """Ask a connection whether it is alive before it is used, but not at every use, which would cost a round trip each:
    only after it lay idle. One that the server has closed is known without asking. Where one is dead, all are renewed.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def note_use(_: Any, record: ConnectionPoolEntry) -> None:  # the DBAPI has no common type
        record.info["used"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - record.info.get("used", math.inf) > IDLE_SECONDS:
            try:
                engine.sync_engine.dialect.do_ping(connection)
            except Exception as error:
                raise InvalidatePoolError from error


def driver_url(url: str) -> URL:
    """The address in the driver's words: what libpq calls `sslmode`, asyncpg calls `ssl`."""
    parsed = make_url(url)
    if "sslmode" not in parsed.query:
        return parsed
    return parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": parsed.query["sslmode"]})


def _whole_number(digits: str) -> int | float:
    """PostgreSQL writes the float 1e308 as 309 digits: it comes back as what was given."""
    return int(digits) if len(digits) <= MAX_WHOLE_DIGITS else float(digits)


_decode = json.JSONDecoder(parse_int=_whole_number).decode


def _read_document(text: str) -> Any:  # a JSON document
    return {} if text == "{}" else _decode(text)


def _sqlite_engine(url: str, *, size: int, timeout: float, immediate: bool) -> AsyncEngine:
    """A pool on the file with the pragmas that `docs/decisions` explains."""
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: ConnectionPoolEntry) -> None:  # the DBAPI has no common type
        connection.isolation_level = None  # the driver shall not begin transactions of its own
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            f"busy_timeout={SQLITE_BUSY_MILLISECONDS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:  # SQLAlchemy's event passes its own connection
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
