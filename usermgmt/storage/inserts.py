"""INSERT … ON CONFLICT DO NOTHING, which both databases have but SQLAlchemy spells per dialect."""

from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.sql.dml import ReturningInsert

from usermgmt.storage.types import Base


async def insert_if_absent(
    connection: AsyncSession | AsyncConnection, table: type[Base], values: dict[str, Any]
) -> bool:
    """Insert one row; False when a unique constraint already has it.

    Exactly one of several simultaneous inserts wins; the others wait for it to commit or roll back.
    """
    bind = connection.get_bind() if isinstance(connection, AsyncSession) else connection
    target = table.__table__
    assert isinstance(target, Table)
    statement = _insert(target, bind.dialect.name)
    return (await connection.execute(statement, values)).one_or_none() is not None


@cache
def _insert(table: Table, dialect: str) -> ReturningInsert[Any]:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing().returning(next(iter(table.primary_key.columns)))
