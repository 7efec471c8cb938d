"""Bringing a database to the schema of this release.

Two processes may start on an empty database at once: an advisory lock (PostgreSQL) or the file's write lock (SQLite)
lets one migrate while the other waits and then finds nothing to do.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.errors import DatabaseUnavailable
from usermgmt.operator.configuration import unfit
from usermgmt.operator.console import Reason, Refusal
from usermgmt.operator.schema_state import (
    SQLITE_WAIT_SECONDS,
    SchemaState,
    connected,
    current_revision,
    head,
    open_sqlite_once,
    scripts,
)
from usermgmt.roles.service import synchronise_built_in_roles
from usermgmt.settings import DatabaseSettings

ADVISORY_LOCK = 7_391_246_051  # any number, but the same in every release
LOCK_MILLISECONDS = 5_000
LOCK_PAUSE_SECONDS = 0.1  # between two tries: to wait inside a statement would hold a snapshot
SQLITE_PAUSE_SECONDS = 0.05  # SQLite's own waiting does not cover the change of the journal


def alembic_config() -> Config:
    """What alembic has to know: where the migrations are."""
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


async def upgrade(settings: DatabaseSettings, *, target: str = "head") -> SchemaState:
    """Migrate up to `target` and bring the built-in roles up to date; does nothing when nothing is pending.

    Returns the state from before. Waits for another process that is migrating. Raises `DatabaseUnavailable`. Refused
    through a pooler.
    """
    _refuse_pooler(settings)
    if settings.is_sqlite:
        await _switch_to_wal(settings.sqlite_file)
    async with connected(settings) as connection, _exclusive(connection):
        before = SchemaState(await connection.run_sync(current_revision), head())
        await connection.run_sync(_run, command.upgrade, target)
        if await connection.run_sync(current_revision) == head():
            await synchronise_built_in_roles(connection)
            await connection.commit()
        return before


async def downgrade(settings: DatabaseSettings, *, target: str) -> SchemaState:
    """Migrate down to `target` (a revision, `-1`, or `base`). Returns the state from before. Refused like `upgrade`."""
    _refuse_pooler(settings)
    async with connected(settings) as connection, _exclusive(connection):
        before = SchemaState(await connection.run_sync(current_revision), head())
        await connection.run_sync(_run, command.downgrade, target)
        return before


@contextmanager
def faults_told() -> Iterator[None]:
    """Make one line of what alembic or the database refuse while they migrate."""
    try:
        yield
    except CommandError as error:
        raise Refusal(f"{error}.", code="no_such_migration") from None
    except DBAPIError as error:
        first = str(error.orig).partition("\n")[0]
        raise Refusal(f"A migration failed and was undone: {first}", code="migration_failed") from None


def _refuse_pooler(settings: DatabaseSettings) -> None:
    """A pooler may give each transaction another connection: the lock that keeps others out would stay in one, and be
    asked back from another.
    """
    if settings.is_pooled:
        remedy = "migrations need one connection: run `usermgmt db upgrade` with database.url at PostgreSQL itself"
        raise unfit([Reason(f"must be none here, and is transaction; {remedy}", "database.pooler")])


@asynccontextmanager
async def _exclusive(connection: AsyncConnection) -> AsyncIterator[None]:
    """Keep every other migrating process out. On SQLite the BEGIN IMMEDIATE of each transaction does it."""
    if connection.dialect.name != "postgresql":
        yield
        return
    await _lock(connection)
    await connection.execute(text(f"SET lock_timeout = {LOCK_MILLISECONDS}"))
    await connection.commit()
    try:
        yield
    finally:
        await connection.rollback()
        await connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        await connection.commit()


async def _lock(connection: AsyncConnection) -> None:
    """Take the lock, asking again until it is free.

    Who waited for it inside a statement would keep a snapshot, and CREATE INDEX CONCURRENTLY waits until none is left
    that is older: the two would wait for each other.
    """
    while not (await connection.execute(select(func.pg_try_advisory_lock(ADVISORY_LOCK)))).scalar_one():
        await connection.rollback()
        await asyncio.sleep(LOCK_PAUSE_SECONDS)


def _run(connection: Connection, action: Callable[[Config, str], None], target: str) -> None:
    """Run an alembic command. SQLite has no advisory lock: there one transaction holds the look and all changes."""
    config = alembic_config()
    config.attributes["connection"] = connection
    if connection.dialect.name == "sqlite":
        with connection.begin():
            action(config, target)
    else:
        action(config, target)
        connection.commit()


async def _switch_to_wal(path: Path) -> None:
    """Give a file the journal of the server, before a server opens it: SQLite lets only one switch and has the others
    fail at once instead of waiting, so they try again.
    """
    deadline = time.monotonic() + SQLITE_WAIT_SECONDS
    while True:
        try:
            open_sqlite_once(path, "PRAGMA journal_mode=WAL")
        except DatabaseUnavailable as error:
            is_busy = getattr(error.__cause__, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if not is_busy or time.monotonic() > deadline:
                raise
            await asyncio.sleep(SQLITE_PAUSE_SECONDS)
        else:
            return
