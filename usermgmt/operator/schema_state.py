"""How far the schema of a database is. Alembic is not asked, and need not be loaded, where nothing is to be migrated:
its table holds one revision, and each migration's file names its own and the one before it.
"""

import re
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from usermgmt.errors import DatabaseUnavailable
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.engines import THROUGH_A_POOLER, driver_url
from usermgmt.storage.faults import faults_translated

SQLITE_WAIT_SECONDS = 60

_NUMBERS = re.compile(r"(?P<number>[0-9]{4})(?:_from_(?P<oldest>[0-9]{4}))?")
"""A revision: its number, and the oldest whose release's code runs on it. Without that, only its own release's does."""


_NAMED = re.compile(r'^(?P<which>down_revision|revision) = (?:"(?P<name>\w+)"|None)$', re.MULTILINE)


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


@cache
def _revisions() -> Mapping[str, str | None]:
    """Each migration of this release, and the one before it."""
    found = dict[str, str | None]()
    for file in sorted((scripts() / "versions").glob("*.py")):
        names = {match["which"]: match["name"] for match in _NAMED.finditer(file.read_text(encoding="utf-8"))}
        found[names["revision"]] = names["down_revision"]
    return found


def head() -> str:
    """The revision that this release needs."""
    found = _revisions()
    heads = found.keys() - set(found.values())
    if len(heads) != 1:
        raise RuntimeError(f"there is no one last migration in {scripts()}")
    return heads.pop()


def is_known(revision: str) -> bool:
    """Whether this release has the migration of this name."""
    return revision in _revisions()


async def state(settings: DatabaseSettings) -> SchemaState:
    """Tell the revision of the database beside the one this release needs. Makes no file that is not there."""
    if settings.is_sqlite and not settings.sqlite_file.exists():
        return SchemaState(None, head())
    async with connected(settings) as connection:
        return SchemaState(await connection.run_sync(current_revision), head())


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at; leaves no transaction open."""
    revision = None
    if connection.dialect.has_table(connection, "alembic_version"):
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    connection.rollback()
    return revision


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
        open_sqlite_once(settings.sqlite_file)
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


def open_sqlite_once(path: Path, statement: str = "") -> None:
    """Find out in this thread that a file cannot be opened: aiosqlite's would die noisily of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnavailable from error
