"""Statements on the record. Events are added and read; only erasing and pruning ever touch one again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Table,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit.events import Event, TargetType
from usermgmt.audit.models import AuditEvent, AuditHead, AuditSeal
from usermgmt.groups.reach import is_within
from usermgmt.permissions import EVERYONE, Reach
from usermgmt.storage.inserts import insert_if_absent
from usermgmt.storage.pages import Position, Sort, page_statement
from usermgmt.users.models import User

ONLY_ROW = 1
NEWEST_FIRST = Sort(AuditEvent.at, AuditEvent.id, descending=True)

_INSERT_EVENT = insert(cast("Table", AuditEvent.__table__)).inline()  # built once: every write has an event


@dataclass(frozen=True, slots=True)
class EventFilters:
    """Which events; all given conditions hold together. `reach` is whose events may be seen at all."""

    owner: UUID | None = None
    actor: UUID | None = None
    target: str | None = None
    event: str | None = None
    outcome: str | None = None
    address: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    reach: Reach = EVERYONE


async def insert_event(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Add an event."""
    await session.execute(_INSERT_EVENT, [dict(values)])


async def list_events(
    session: AsyncSession, filters: EventFilters, *, position: Position | None, limit: int
) -> Sequence[AuditEvent]:
    """Up to `limit` + 1 events from `position`, newest first."""
    statement = page_statement(_filtered(select(AuditEvent), filters), NEWEST_FIRST, position, limit)
    return (await session.scalars(statement)).all()


async def has_user(session: AsyncSession, user_id: UUID, reach: Reach) -> bool:
    """Whether an account exists and is within reach."""
    found = select(exists().where(User.id == user_id, User.deleted_at.is_(None), is_within(user_id, reach)))
    return bool((await session.execute(found)).scalar_one())


async def update_erased(session: AsyncSession, user_id: UUID, *, names: Collection[str]) -> None:
    """Take the personal data of an account out of the record. The events stay, and still verify.

    Where one of its names was typed, its id takes the name's place.
    """
    is_nobody = AuditEvent.actor_id.is_(None) & AuditEvent.actor_name.is_(None)
    own = or_(AuditEvent.actor_id == user_id, (AuditEvent.owner_id == user_id) & is_nobody)
    gone = {"actor_name": None, "address": None, "user_agent": None, "salt": None}
    await session.execute(update(AuditEvent).where(own).values(**gone))
    typed = (AuditEvent.target_type == TargetType.LOGIN_NAME) & AuditEvent.target_id.in_(sorted(names))
    await session.execute(update(AuditEvent).where(typed).values(**gone, target_id=str(user_id)))


# The chain


async def insert_head(session: AsyncSession, values: Mapping[str, Any]) -> bool:
    """Begin the chain; False when it was begun."""
    return await insert_if_absent(session, AuditHead, {"id": ONLY_ROW, **values})


async def find_head(session: AsyncSession) -> AuditHead | None:
    """The end of the chain."""
    return (await session.scalars(select(AuditHead).where(AuditHead.id == ONLY_ROW))).one_or_none()


async def lock_head(session: AsyncSession, *, is_patient: bool = False) -> AuditHead | None:
    """The end of the chain, held until the transaction ends; None when another holds it, unless one waits."""
    held = select(AuditHead).where(AuditHead.id == ONLY_ROW).with_for_update(skip_locked=not is_patient)
    return (await session.scalars(held.execution_options(populate_existing=True))).one_or_none()


async def insert_seal(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Add a seal."""
    await session.execute(insert(AuditSeal).values(**values))


async def list_seals(session: AsyncSession, *, after: int, limit: int) -> Sequence[AuditSeal]:
    """The next seals of the chain."""
    statement = select(AuditSeal).where(AuditSeal.seq > after).order_by(AuditSeal.seq).limit(limit)
    return (await session.scalars(statement)).all()


async def find_seal(session: AsyncSession, seq: int) -> AuditSeal | None:
    """One seal."""
    return (await session.scalars(select(AuditSeal).where(AuditSeal.seq == seq))).one_or_none()


async def find_last_seq(session: AsyncSession) -> int:
    """The number of the last seal; 0 when there is none."""
    return (await session.execute(select(func.coalesce(func.max(AuditSeal.seq), 0)))).scalar_one()


async def list_entries(
    session: AsyncSession, *, since: datetime, until: datetime, last_seq: int
) -> Sequence[tuple[datetime, datetime, bytes]]:
    """The times and the entries of the seals up to a number that have events of a time."""
    rows = await session.execute(
        select(AuditSeal.first_at, AuditSeal.last_at, AuditSeal.entries)
        .where(AuditSeal.last_at >= since, AuditSeal.first_at <= until, AuditSeal.seq <= last_seq)
        .order_by(AuditSeal.seq)
    )
    return [(first_at, last_at, entries) for first_at, last_at, entries in rows]


async def list_unsealed(
    session: AsyncSession, *, after: tuple[datetime, UUID], until: datetime, limit: int
) -> Sequence[AuditEvent]:
    """The next events after a place in their order."""
    statement = (
        select(AuditEvent)
        .where(_place() > tuple_(*_literals(after)), AuditEvent.at <= until)
        .order_by(AuditEvent.at, AuditEvent.id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def list_ids(
    session: AsyncSession, *, after: tuple[datetime, UUID] | None, until: tuple[datetime, UUID], limit: int
) -> Sequence[tuple[datetime, UUID]]:
    """The places of events between two places, or from the first on, up to a number of them."""
    start = [_place() > tuple_(*_literals(after))] if after is not None else []
    rows = await session.execute(
        select(AuditEvent.at, AuditEvent.id)
        .where(*start, _place() <= tuple_(*_literals(until)))
        .order_by(AuditEvent.at, AuditEvent.id)
        .limit(limit)
    )
    return [(at, event_id) for at, event_id in rows]


async def list_events_by_id(
    session: AsyncSession, ids: Collection[UUID], *, since: datetime, until: datetime
) -> Sequence[AuditEvent]:
    """The events with these ids, of a time."""
    found = select(AuditEvent).where(AuditEvent.at.between(since, until), AuditEvent.id.in_(list(ids)))
    return (await session.scalars(found)).all()


async def has_erasure(session: AsyncSession, user_id: UUID) -> bool:
    """Whether it is on record that an account was erased, and it is gone."""
    is_recorded = exists().where(AuditEvent.owner_id == user_id, AuditEvent.event == Event.USER_ERASED)
    found = select(is_recorded & ~exists().where(User.id == user_id))
    return bool((await session.execute(found)).scalar_one())


async def count_events(session: AsyncSession, *, after: tuple[datetime, UUID]) -> int:
    """How many events there are after a place."""
    counted = select(func.count()).select_from(AuditEvent).where(_place() > tuple_(*_literals(after)))
    return (await session.execute(counted)).scalar_one()


async def count_unsealed(
    session: AsyncSession, *, after: tuple[datetime, UUID], most: int
) -> tuple[int, datetime | None]:
    """How many events there are after a place, up to a number of them, and when the first of them was."""
    places = select(AuditEvent.at).where(_place() > tuple_(*_literals(after))).order_by(AuditEvent.at, AuditEvent.id)
    waiting = places.limit(most).subquery()
    count, oldest = (await session.execute(select(func.count(), func.min(waiting.c.at)).select_from(waiting))).one()
    return count, oldest


async def find_event_after(session: AsyncSession, at: datetime) -> AuditEvent | None:
    """The first event later than a time."""
    found = select(AuditEvent).where(AuditEvent.at > at).order_by(AuditEvent.at, AuditEvent.id).limit(1)
    return (await session.scalars(found)).one_or_none()


async def delete_events(session: AsyncSession, ids: Collection[UUID], *, since: datetime, until: datetime) -> None:
    """Remove events whose retention is over."""
    await session.execute(delete(AuditEvent).where(AuditEvent.at.between(since, until), AuditEvent.id.in_(list(ids))))


async def delete_seal(session: AsyncSession, seq: int) -> None:
    """Remove a seal whose events are removed."""
    await session.execute(delete(AuditSeal).where(AuditSeal.seq == seq))


def _place() -> ColumnElement[Any]:
    """The order of events: by time, and by id where times are equal."""
    return tuple_(AuditEvent.at, AuditEvent.id)


def _literals(place: tuple[datetime, UUID]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return literal(place[0], AuditEvent.at.type), literal(place[1], AuditEvent.id.type)


def _filtered(statement: Select[Any], filters: EventFilters) -> Select[Any]:
    equal = {
        AuditEvent.owner_id: filters.owner,
        AuditEvent.actor_id: filters.actor,
        AuditEvent.target_id: filters.target,
        AuditEvent.event: filters.event,
        AuditEvent.address: filters.address,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if filters.outcome is not None:  # in the text of the statement: the index of failures has no others
        conditions.append(AuditEvent.outcome == literal(filters.outcome, String, literal_execute=True))
    if not filters.reach.is_everyone:
        conditions.append(is_within(AuditEvent.owner_id, filters.reach))
    if filters.since is not None:
        conditions.append(AuditEvent.at >= filters.since)
    if filters.until is not None:
        conditions.append(AuditEvent.at < filters.until)
    return statement.where(*conditions)
