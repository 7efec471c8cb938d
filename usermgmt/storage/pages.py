"""Keyset pages: a position is the sort value and id of a row, never a row number, so that page 10,000 costs what page 1
costs and nobody sees a row twice because others came or went.

A cursor is signed and bound to whoever listed and to what was listed: it opens no other list.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from usermgmt.errors import Malformed
from usermgmt.security import encoding
from usermgmt.security.secrets import Purpose, Secrets

T = TypeVar("T")
SIGNATURE_BYTES = 16
MAX_CURSOR = 2_048

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # escaped, long keys are too long


class InvalidCursor(Malformed):
    """The cursor was changed, or belongs to another list, another caller or another installation."""

    code = "invalid_cursor"
    detail = "The cursor is not one that this list gave you."


@dataclass(frozen=True, slots=True)
class Sort:
    """An order: a column whose values may repeat, the id that makes it total, and the direction."""

    column: InstrumentedAttribute[Any]  # a time or a text
    id_column: InstrumentedAttribute[UUID]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: after this row, or before it when `backwards`."""

    value: str | datetime
    row_id: UUID
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page in order, and the positions of its neighbours."""

    items: Sequence[T]
    next: Position | None
    previous: Position | None


def page_statement(statement: Select[Any], sort: Sort, position: Position | None, limit: int) -> Select[Any]:
    """Restrict a statement to one page and one row more, which tells whether there is another page.

    The position is compared as a row value, which an index on both columns answers; spelled with OR it would not be.
    The limit is part of the text: a plan made once for all values would else suppose a tenth of the table.
    """
    backwards = position is not None and position.backwards
    descending = sort.descending != backwards
    if position is not None:
        here: ColumnElement[Any] = tuple_(sort.column, sort.id_column)
        there = tuple_(literal(position.value, sort.column.type), literal(position.row_id, sort.id_column.type))
        statement = statement.where(here < there if descending else here > there)
    order = [sort.column.desc(), sort.id_column.desc()] if descending else [sort.column.asc(), sort.id_column.asc()]
    return statement.order_by(*order).limit(literal(limit + 1, literal_execute=True))


def page_of(
    rows: Sequence[T], position: Position | None, limit: int, key: Callable[[T], tuple[str | datetime, UUID]]
) -> Page[T]:
    """Make the page of what `page_statement` found."""
    backwards = position is not None and position.backwards
    has_more = len(rows) > limit
    items = list(rows[:limit])
    if backwards:
        items.reverse()
    if not items:
        return Page(items, None, None)
    has_next = True if backwards else has_more
    has_previous = has_more if backwards else position is not None
    return Page(
        items,
        next=Position(*key(items[-1])) if has_next else None,
        previous=Position(*key(items[0]), backwards=True) if has_previous else None,
    )


def list_digest(*parts: object) -> bytes:
    """What a cursor is bound to: the caller and every filter of the list."""
    return hashlib.sha256(json.dumps([None if part is None else str(part) for part in parts]).encode()).digest()


def write_cursor(position: Position, *, digest: bytes, secrets: Secrets) -> str:
    """Sign a position for the list that `digest` names."""
    is_time = isinstance(position.value, datetime)
    value = position.value.isoformat() if isinstance(position.value, datetime) else position.value
    parts = [int(is_time), value, str(position.row_id), int(position.backwards)]
    payload = _compact(parts).encode()
    signature = secrets.making_key(Purpose.CURSOR).sign(digest + payload)[:SIGNATURE_BYTES]
    return encoding.encode(signature + payload)


def read_cursor(cursor: str, *, digest: bytes, secrets: Secrets) -> Position:
    """The position of a cursor that `write_cursor` made for this list, or `InvalidCursor`."""
    raw = encoding.decode(cursor) if len(cursor) <= MAX_CURSOR else None
    if raw is None or len(raw) <= SIGNATURE_BYTES:
        raise InvalidCursor
    signature, payload = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    if not secrets.is_signed(Purpose.CURSOR, digest + payload, signature):
        raise InvalidCursor
    is_time, value, row_id, backwards = json.loads(payload)
    return Position(datetime.fromisoformat(value) if is_time else value, UUID(row_id), bool(backwards))
