"""Statements on the chores. Taking one is a single conditional statement: of several processes one succeeds."""

from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.maintenance.models import ChoreRun

CLOCK_SKEW = timedelta(minutes=2)
"""A time further ahead than it can be was written by a clock that was wrong, and is not believed."""


async def find_chore(session: AsyncSession, name: str) -> ChoreRun | None:
    """What is known of a chore."""
    return (await session.scalars(select(ChoreRun).where(ChoreRun.name == name))).one_or_none()


async def insert_claim(
    session: AsyncSession, name: str, holder: str, *, now: datetime, lease: timedelta, due_within: timedelta | None
) -> bool:
    """Take a chore that nobody holds; False when somebody does. With `due_within`, the longest time until it is due
    again, only when it is due.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    held = ChoreRun.held_until
    conditions = [or_(held.is_(None), held <= now, held > now + lease + CLOCK_SKEW)]
    if due_within is not None:
        conditions.append(or_(ChoreRun.due_at <= now, ChoreRun.due_at > now + due_within + CLOCK_SKEW))
    claimed = (
        insert(ChoreRun)
        .values(name=name, holder=holder, held_until=now + lease, due_at=now, succeeded_at=None)
        .on_conflict_do_update(
            index_elements=[ChoreRun.name],
            set_={"holder": holder, "held_until": now + lease},
            where=conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1],
        )
        .returning(ChoreRun.name)
    )
    return (await session.execute(claimed)).one_or_none() is not None


async def update_lease(session: AsyncSession, name: str, holder: str, *, held_until: datetime) -> bool:
    """Go on holding a chore; False when somebody else has taken it."""
    extended = await session.execute(
        update(ChoreRun)
        .where(ChoreRun.name == name, ChoreRun.holder == holder)
        .values(held_until=held_until)
        .returning(ChoreRun.name)
    )
    return extended.one_or_none() is not None


async def update_released(
    session: AsyncSession, name: str, holder: str, *, due_at: datetime, succeeded_at: datetime | None
) -> None:
    """Let go of a chore, done or (`succeeded_at` None) not."""
    values = {"holder": None, "held_until": None, "due_at": due_at}
    if succeeded_at is not None:
        values["succeeded_at"] = succeeded_at
    await session.execute(update(ChoreRun).where(ChoreRun.name == name, ChoreRun.holder == holder).values(values))
