"""The base of all tables and the column types that mean the same on both databases."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Dialect, MetaData, String, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import DateTime, TypeDecorator, TypeEngine


class Base(DeclarativeBase):
    """The base of every table. Names of constraints and indexes are written where they are declared."""

    metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC: `TIMESTAMPTZ` on PostgreSQL; on SQLite, which has no zones, the zone is restored.

    A naive value is a programming error and is refused before it reaches the database.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database."""
        return dialect.type_descriptor(TIMESTAMP(timezone=True) if dialect.name == "postgresql" else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time; hand SQLite the naive UTC it stores."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a time without a zone cannot be stored")
        return value if dialect.name == "postgresql" else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy calls it so
        """Give the time back in UTC."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def key_text(length: int) -> TypeEngine[str]:
    """Text that is looked up, sorted and compared by its bytes on both databases (`COLLATE "C"` on PostgreSQL)."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def json_document() -> TypeEngine[Any]:
    """A JSON document: `JSONB` on PostgreSQL, text on SQLite."""
    return JSON().with_variant(JSONB(), "postgresql")


def long_text() -> TypeEngine[str]:
    """Text without a length of its own; the code that writes it bounds it."""
    return Text()
