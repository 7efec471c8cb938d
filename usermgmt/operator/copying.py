"""Copying every table of one database into another, SQLite or PostgreSQL, and proving that the copy is one.

Rows pass as the types of our tables give them, so each database writes them in its own way. Reading is one snapshot,
writing one transaction: whatever fails, the target is as empty as before. Memory holds one batch of rows.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import JSON, Table, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.ip_rules.models import IpRuleVersion
from usermgmt.operator.console import Refusal
from usermgmt.operator.snapshots import one_transaction, snapshot
from usermgmt.roles.models import Role, RolePermission
from usermgmt.schema import metadata
from usermgmt.settings import DatabaseSettings
from usermgmt.storage.bulk import CopyWriter, Writer
from usermgmt.storage.faults import RepeatableConflict
from usermgmt.storage.types import Base

ROWS_AT_ONCE = 2_000
DIGEST_BYTES = 16
FILLED_BY_MIGRATIONS = (Role.__tablename__, RolePermission.__tablename__, IpRuleVersion.__tablename__)

Progress = Callable[[int], None]
"""Is told how many more rows are copied, and how many are compared."""


@dataclass(slots=True)
class Summary:
    """What a table holds: how many rows, and a digest that is the same in whatever order they come."""

    rows: int = 0
    digest: int = 0

    def add(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        """Count rows in."""
        documents = [place for place, column in enumerate(table.columns) if isinstance(column.type, JSON)]
        for row in rows:
            values = list(row)
            for place in documents:
                values[place] = _plain(values[place])
            digest = hashlib.blake2b(_encode(values), digest_size=DIGEST_BYTES).digest()
            self.digest = (self.digest + int.from_bytes(digest)) % 2 ** (8 * DIGEST_BYTES)
            self.rows += 1


async def count_rows(settings: DatabaseSettings) -> int:
    """How many rows all tables have together."""
    async with snapshot(settings) as connection:
        return sum([await _count(connection, table) for table in metadata.sorted_tables])


async def copy(source: DatabaseSettings, target: DatabaseSettings, progress: Progress) -> dict[str, Summary]:
    """Copy every table into a target that is migrated and empty; what each holds there, by its name.

    Refused when the target is not empty, does not take a row, or does not hold afterwards what the source holds.
    """
    copied: dict[str, Summary] = {}
    async with snapshot(source) as reading, one_transaction(target) as writing:
        await _require_empty(writing)
        for table in reversed(metadata.sorted_tables):
            await writing.execute(table.delete())
        for table in metadata.sorted_tables:
            async with _faults_told(table):
                copied[table.name] = await _copy_table(table, reading, writing, progress)
        for table in metadata.sorted_tables:
            if await _summary(table, writing, progress) != copied[table.name]:
                raise Refusal(f"The copy of {table.name} differs; nothing was kept.", code="copy_differs")
        await _require_references(writing)
        await writing.commit()
        await writing.execute(text("ANALYZE"))  # a planner that knows nothing reads whole tables
        await writing.commit()
    return copied


async def _require_empty(connection: AsyncConnection) -> None:
    """Refuse a target with rows that no migration put there, and keep others from adding any."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"LOCK TABLE {', '.join(metadata.tables)} IN EXCLUSIVE MODE"))
    filled = [table.name for table in metadata.sorted_tables if await _has_rows(connection, table)]
    if filled:
        raise Refusal(f"The target is not empty: it has rows in {', '.join(filled)}.", code="not_empty")


async def _has_rows(connection: AsyncConnection, table: Table) -> bool:
    statement = select(1).select_from(table).limit(1)
    if table.name in FILLED_BY_MIGRATIONS:
        statement = select(1).select_from(Role).where(~Role.built_in).limit(1)
    return (await connection.execute(statement)).first() is not None


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def _copy_table(table: Table, reading: AsyncConnection, writing: AsyncConnection, progress: Progress) -> Summary:
    model, summary = _models()[table.name], Summary()
    writer = CopyWriter(writing) if writing.dialect.name == "postgresql" else Writer(writing)
    columns = [column.name for column in table.columns]
    async for rows in _batches(table, reading):
        summary.add(table, rows)
        await writer.write(model, columns, writer.bind_rows(model, columns, rows))
        progress(len(rows))
    return summary


async def _summary(table: Table, connection: AsyncConnection, progress: Progress) -> Summary:
    summary = Summary()
    async for rows in _batches(table, connection):
        summary.add(table, rows)
        progress(len(rows))
    return summary


async def _batches(table: Table, connection: AsyncConnection) -> AsyncIterator[Sequence[Sequence[Any]]]:
    statement = select(table).execution_options(yield_per=ROWS_AT_ONCE)
    async with connection.stream(statement) as result:
        async for rows in result.partitions():
            yield rows


async def _require_references(connection: AsyncConnection) -> None:
    """What PostgreSQL sees to itself: that no row refers to one that is not there."""
    if connection.dialect.name == "sqlite" and (await connection.execute(text("PRAGMA foreign_key_check"))).first():
        raise Refusal("A row refers to one that is not there; nothing was kept.", code="copy_differs")


@asynccontextmanager
async def _faults_told(table: Table) -> AsyncIterator[None]:
    """Make one line of what the target refuses: SQLite, for one, holds texts that are longer than PostgreSQL allows."""
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError, RepeatableConflict) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error.__cause__ or error
        first = str(cause).partition("\n")[0]
        raise Refusal(f"{table.name} could not be copied; nothing was kept: {first}", code="copy_failed") from None


def _models() -> dict[str, type[Base]]:
    return {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}


def _plain(document: Any) -> Any:  # a JSON document
    """A document whose numbers are written in one way: PostgreSQL gives 1e16 back as a whole number."""
    match document:
        case dict():
            return {key: _plain(value) for key, value in document.items()}
        case list():
            return [_plain(value) for value in document]
        case float() if document.is_integer():
            return str(int(document))
        case int() if not isinstance(document, bool):
            return str(document)
    return document


_encode = msgspec.json.Encoder(order="deterministic").encode
