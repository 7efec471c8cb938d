"""Many rows at once: COPY on PostgreSQL, one prepared INSERT on SQLite."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asyncpg
from sqlalchemy import Table
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from usermgmt.storage.faults import RepeatableConflict
from usermgmt.storage.types import Base

Bind = Callable[[Any], Any]


class Writer:
    """Adds rows to a table in the open transaction. Values are bound as the database's driver wants them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def bound(self, table: type[Base], column: str, value: Any) -> Any:  # each column has a type of its own
        """A value as the driver takes it."""
        bind = self._bind(table, column)
        return value if bind is None else bind(value)

    def bind_rows(
        self, table: type[Base], columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> Iterable[tuple[Any, ...]]:
        """Rows of values as the driver takes them."""
        binds = [(place, self._bind(table, column)) for place, column in enumerate(columns)]
        needed = [(place, bind) for place, bind in binds if bind is not None]
        for row in rows:
            values = list(row)
            for place, bind in needed:
                values[place] = bind(values[place])
            yield tuple(values)

    async def write(self, table: type[Base], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
        """Add the rows with one prepared INSERT. Raises `RepeatableConflict` when one is there already."""
        places = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {_name(table)} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - our own names
        try:
            if found := list(rows):
                await self._connection.exec_driver_sql(statement, found)
        except IntegrityError as error:
            raise RepeatableConflict from error

    def _bind(self, table: type[Base], column: str) -> Bind | None:
        dialect = self._connection.dialect
        return table.__table__.c[column].type.dialect_impl(dialect).bind_processor(dialect)


class CopyWriter(Writer):
    """Adds rows by COPY, through the driver itself."""

    async def write(self, table: type[Base], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
        """Add the rows with COPY. Raises what the driver raises, which the transaction around it translates."""
        raw = await self._connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, asyncpg.Connection)
        await driver.copy_records_to_table(_name(table), records=rows, columns=list(columns))


async def writer_of(session: AsyncSession) -> Writer:
    """The fastest way into the database of a transaction."""
    connection = await session.connection()
    return CopyWriter(connection) if connection.dialect.name == "postgresql" else Writer(connection)


def _name(table: type[Base]) -> str:
    assert isinstance(table.__table__, Table)
    return table.__table__.name
