"""Connections for work on a whole database: one long transaction, without the time limits of requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from usermgmt.operator.configuration import unfit
from usermgmt.operator.console import Reason, Refusal
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.engines import driver_url, read_document
from usermgmt.storage.faults import faults_translated

SQLITE_WAIT_SECONDS = 10
NO_LIMITS = {"statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "application_name": "usermgmt db"}


@asynccontextmanager
async def snapshot(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection that sees the database as it was at one moment, however long it reads; writers go on.

    REPEATABLE READ on PostgreSQL, one deferred transaction on SQLite. Raises `DatabaseUnavailable`.
    """
    engine = _sqlite(settings, "BEGIN") if settings.is_sqlite else _postgresql(settings, "REPEATABLE READ")
    async with _connected(engine) as connection:
        await connection.execute(text("SELECT version_num FROM alembic_version"))  # the first read sets the moment
        yield connection


@asynccontextmanager
async def one_transaction(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection whose changes are kept only by `commit()`; what is done before is undone when the block raises."""
    engine = _sqlite(settings, "BEGIN IMMEDIATE") if settings.is_sqlite else _postgresql(settings, "READ COMMITTED")
    async with _connected(engine) as connection:
        yield connection


def require_file(settings: DatabaseSettings) -> None:
    """Refuse a SQLite database that is not there, rather than make an empty one."""
    if settings.is_sqlite and not settings.sqlite_file.exists():
        raise Refusal(f"There is no database at {settings.sqlite_file}.", code="no_database")


def refuse_pooler(settings: DatabaseSettings) -> None:
    """Refuse an address behind a pooler: what is set for a session there would be set for others too."""
    if settings.is_pooled and not settings.is_sqlite:
        raise unfit(
            [
                Reason(
                    "leads to a pooler; for this command name the server itself,"
                    " with USERMGMT_DATABASE__URL and USERMGMT_DATABASE__POOLER=none",
                    "database.url",
                )
            ]
        )


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        with faults_translated():
            async with engine.connect() as connection:
                yield connection
    finally:
        await engine.dispose()


def _postgresql(settings: DatabaseSettings, isolation: str) -> AsyncEngine:
    return create_async_engine(
        driver_url(settings.url),
        poolclass=NullPool,
        isolation_level=isolation,
        json_deserializer=read_document,
        hide_parameters=True,
        connect_args={"timeout": settings.connect_timeout.total_seconds(), "server_settings": NO_LIMITS},
    )


def _sqlite(settings: DatabaseSettings, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        driver_url(settings.url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": SQLITE_WAIT_SECONDS},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: object) -> None:  # the DBAPI has no common type
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:  # SQLAlchemy's event passes its own connection
        connection.exec_driver_sql(begin)

    return engine
