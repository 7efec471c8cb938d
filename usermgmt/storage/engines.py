"""Pools of connections to PostgreSQL and to SQLite, and what is set for each connection."""

import json
import math
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from usermgmt.settings import DatabaseSettings
from usermgmt.storage.fair_pool import FairPool
from usermgmt.storage.wanted import DISTRIBUTED
from usermgmt.storage.watchdog import Watchdog
from usermgmt.strict_json import MAX_WHOLE_DIGITS
from usermgmt.telemetry import current_request

SQLITE_BUSY_MILLISECONDS = 5_000
SQLITE_LOOK_MILLISECONDS = 20
IDLE_SECONDS = 5.0  # a connection that was used since needs no asking whether it is alive


def postgresql_engine(
    settings: DatabaseSettings, url: str, *, size: int, watchdog: Watchdog | None = None
) -> AsyncEngine:
    """A pool of a fixed size (an overflow that opens and closes connections under load costs a third of the CPU)."""
    milliseconds = int(settings.statement_timeout.total_seconds() * 1000)
    engine = create_async_engine(
        driver_url(url),
        poolclass=FairPool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=settings.pool_timeout.total_seconds(),
        pool_use_lifo=True,  # the connections that are used have the statements prepared
        json_deserializer=read_document,
        hide_parameters=True,  # a fault is logged with its statement: a password's hash would be among the values
        execution_options={DISTRIBUTED: settings.distributed},
        connect_args={
            "timeout": settings.connect_timeout.total_seconds(),
            "command_timeout": settings.statement_timeout.total_seconds() + 1,
            **(THROUGH_A_POOLER if settings.is_pooled else {"server_settings": _session_settings(milliseconds)}),
        },
    )
    if settings.is_pooled:
        _limit_transactions(engine, milliseconds)
    if watchdog is not None:
        watchdog.watch(engine)
    _drop_silent_connections(engine)
    _renew_dead_connections(engine)
    _time_statements(engine)
    return engine


def _session_settings(milliseconds: int) -> dict[str, str]:
    """What bounds a connection's statements, its waits for locks, and its rests inside a transaction."""
    return {
        "application_name": "usermgmt",
        "statement_timeout": str(milliseconds),
        "lock_timeout": str(milliseconds),
        "idle_in_transaction_session_timeout": str(milliseconds * 2),
    }


THROUGH_A_POOLER = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
"""A pooler keeps no statement that was prepared under a name: they are prepared anew, without one."""


def _limit_transactions(engine: AsyncEngine, milliseconds: int) -> None:
    """Bound each transaction: behind a pooler nothing that was set for a connection lasts."""
    bounds = {name: value for name, value in _session_settings(milliseconds).items() if name != "application_name"}
    limits = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in bounds.items())

    @event.listens_for(engine.sync_engine, "begin")
    def limit(connection: Any) -> None:  # SQLAlchemy's event passes its own connection
        connection.exec_driver_sql(limits)


async def answers(connect: Callable[[], Awaitable[object]]) -> bool:
    """Whether the server at the other end takes statements now: it is asked by connecting."""
    try:
        await connect()
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


def _drop_silent_connections(engine: AsyncEngine) -> None:
    """A server that did not even say that a statement takes too long will not say that it was cancelled: do not wait
    for that.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def drop(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, TimeoutError) and context.connection is not None:
            driver = context.connection.connection.driver_connection
            assert isinstance(driver, asyncpg.Connection)
            driver.terminate()
            context.is_disconnect = True


def _time_statements(engine: AsyncEngine) -> None:
    """Add each statement's time to its request's."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(*_: Any) -> None:  # SQLAlchemy's event passes its own things
        _BEGUN.set(time.perf_counter())

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(*_: Any) -> None:
        current_request.add_wait(time.perf_counter() - _BEGUN.get())


_BEGUN: ContextVar[float] = ContextVar("statement_begun", default=0.0)


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


def read_document(text: str) -> Any:  # a JSON document
    """A document as it was given before PostgreSQL wrote its numbers anew."""
    return {} if text == "{}" else _decode(text)


def sqlite_engine(url: str, *, size: int, timeout: float, immediate: bool) -> AsyncEngine:
    """A pool on the file with the pragmas that `docs/decisions` explains."""
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        poolclass=FairPool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "do_connect")
    def make_private(*_: Any) -> None:  # SQLAlchemy's event passes its own things
        if not path or path == ":memory:":
            return
        # A new file is for its owner alone, and so is what SQLite puts beside it. One that exists is not opened:
        # closing it would drop the locks that SQLite holds on it in this process.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

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

    if immediate:
        _begin_immediately(engine)
    else:

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    _time_statements(engine)
    return engine


def _begin_immediately(engine: AsyncEngine) -> None:
    """Take the lock of the file at the beginning. Where another process kept it for all of one writer's patience, those
    who queue behind that writer only look whether it is free now.
    """
    is_locked = False

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        nonlocal is_locked
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError:
            if not is_locked:
                is_locked = True
                _wait_for_locks(connection, SQLITE_LOOK_MILLISECONDS)
            raise
        if is_locked:
            is_locked = False
            _wait_for_locks(connection, SQLITE_BUSY_MILLISECONDS)


def _wait_for_locks(connection: Connection, milliseconds: int) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout={milliseconds}")
