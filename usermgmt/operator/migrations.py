"""Bringing a database to the schema of this release, and telling how far it is.

Two processes may start on an empty database at once: an advisory lock (PostgreSQL) or the file's write lock (SQLite)
lets one migrate while the other waits and then finds nothing to do.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from usermgmt.errors import DatabaseUnavailable
from usermgmt.operator.configuration import unfit
from usermgmt.operator.console import Reason
from usermgmt.roles.service import synchronise_built_in_roles
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.engines import THROUGH_A_POOLER, driver_url
from usermgmt.storage.faults import faults_translated

ADVISORY_LOCK = 7_391_246_051  # any number, but the same in every release
LOCK_MILLISECONDS = 5_000
LOCK_PAUSE_SECONDS = 0.1  # between two tries: to wait inside a statement would hold a snapshot
SQLITE_WAIT_SECONDS = 60
SQLITE_PAUSE_SECONDS = 0.05  # SQLite's own waiting does not cover the change of the journal

_NUMBERS = re.compile(r"(?P<number>[0-9]{4})(?:_from_(?P<oldest>[0-9]{4}))?")
"""A revision: its number, and the oldest whose release's code runs on it. Without that, only its own release's does."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where a database stands: its revision (None when empty) and the one this release needs."""

    current: str | None
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing has to be migrated."""
        return self.current == self.head

    @property
    def is_newer_and_fit(self) -> bool:
        """Whether a newer release migrated, and says in the revision's name that code of this one runs on it."""
        newer, mine = _NUMBERS.fullmatch(self.current or ""), _NUMBERS.fullmatch(self.head)
        if newer is None or mine is None or newer["oldest"] is None:
            return False
        return int(newer["oldest"]) <= int(mine["number"]) < int(newer["number"])

    @property
    def is_fit(self) -> bool:
        """Whether this release works on it."""
        return self.is_current or self.is_newer_and_fit


def scripts() -> Path:
    """The folder of migrations: in the checkout, or inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def alembic_config() -> Config:
    """What alembic has to know: where the migrations are."""
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


def head() -> str:
    """The revision that this release needs."""
    revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if revision is None:
        raise RuntimeError(f"there are no migrations in {scripts()}")
    return revision


def is_known(revision: str) -> bool:
    """Whether this release has the migration of this name."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


async def state(settings: DatabaseSettings) -> SchemaState:
    """Tell the revision of the database beside the one this release needs. Makes no file that is not there."""
    if settings.is_sqlite and not settings.sqlite_file.exists():
        return SchemaState(None, head())
    async with connected(settings) as connection:
        return SchemaState(await connection.run_sync(_current), head())


async def upgrade(settings: DatabaseSettings, *, target: str = "head") -> SchemaState:
    """Migrate up to `target` and bring the built-in roles up to date; does nothing when nothing is pending.

    Returns the state from before. Waits for another process that is migrating. Raises `DatabaseUnavailable`. Refused
    through a pooler.
    """
    _refuse_pooler(settings)
    if settings.is_sqlite:
        await _switch_to_wal(settings.sqlite_file)
    async with connected(settings) as connection, _exclusive(connection):
        before = SchemaState(await connection.run_sync(_current), head())
        await connection.run_sync(_run, command.upgrade, target)
        if await connection.run_sync(_current) == head():
            await synchronise_built_in_roles(connection)
            await connection.commit()
        return before


async def downgrade(settings: DatabaseSettings, *, target: str) -> SchemaState:
    """Migrate down to `target` (a revision, `-1`, or `base`). Returns the state from before. Refused like `upgrade`."""
    _refuse_pooler(settings)
    async with connected(settings) as connection, _exclusive(connection):
        before = SchemaState(await connection.run_sync(_current), head())
        await connection.run_sync(_run, command.downgrade, target)
        return before


def _refuse_pooler(settings: DatabaseSettings) -> None:
    """A pooler may give each transaction another connection: the lock that keeps others out would stay in one, and be
    asked back from another.
    """
    if settings.is_pooled:
        remedy = "migrations need one connection: run `usermgmt db upgrade` with database.url at PostgreSQL itself"
        raise unfit([Reason(f"must be none here, and is transaction; {remedy}", "database.pooler")])


@asynccontextmanager
async def connected(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """One connection without the time limits of the request pool, closed with everything it started.

    Raises `DatabaseUnavailable`.
    """
    with faults_translated():
        async with _connected(settings) as connection:
            yield connection


@asynccontextmanager
async def _connected(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    sqlite = settings.is_sqlite
    if sqlite:
        _open_sqlite_once(settings.sqlite_file)
    arguments: dict[str, Any] = {"timeout": SQLITE_WAIT_SECONDS}
    if not sqlite:
        arguments = {"timeout": settings.connect_timeout.total_seconds()}
    if settings.is_pooled:
        arguments |= THROUGH_A_POOLER
    engine = create_async_engine(driver_url(settings.url), poolclass=NullPool, connect_args=arguments)
    if sqlite:
        event.listen(engine.sync_engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
        event.listen(engine.sync_engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


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


def _current(connection: Connection) -> str | None:
    """The revision that the database is at; leaves no transaction open."""
    revision = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    return revision


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


def _open_sqlite_once(path: Path, statement: str = "") -> None:
    """Find out in this thread that a file cannot be opened: aiosqlite's would die noisily of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnavailable from error


async def _switch_to_wal(path: Path) -> None:
    """Give a file the journal of the server, before a server opens it: SQLite lets only one switch and has the others
    fail at once instead of waiting, so they try again.
    """
    deadline = time.monotonic() + SQLITE_WAIT_SECONDS
    while True:
        try:
            _open_sqlite_once(path, "PRAGMA journal_mode=WAL")
        except DatabaseUnavailable as error:
            is_busy = getattr(error.__cause__, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if not is_busy or time.monotonic() > deadline:
                raise
            await asyncio.sleep(SQLITE_PAUSE_SECONDS)
        else:
            return
