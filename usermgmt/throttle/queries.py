"""Statements on the counters of guesses. Each is one atomic step: counting is exact however many guess at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.throttle.models import Bucket, Throttle

CLOCK_SKEW = timedelta(seconds=60)
"""How far ahead of ours the clock may have been that began a window; one that began later is not believed."""

VERIFYING = timedelta(seconds=30)
"""Longer than a guess can take to be verified; what is pending longer was left behind by a process that died."""


@dataclass(frozen=True, slots=True)
class Window:
    """The period of a counter, seen from now."""

    now: datetime
    period: timedelta

    @property
    def is_over(self) -> ColumnElement[bool]:
        """Whether a counter's window has ended, or cannot have begun."""
        began = Throttle.window_started_at
        return or_(began <= self.now - self.period, began > self.now + CLOCK_SKEW)

    @property
    def pending(self) -> ColumnElement[int]:
        """How many guesses are being verified."""
        return case((Throttle.attempted_at <= self.now - VERIFYING, 0), else_=Throttle.pending)


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter stands at."""

    failures: int
    pending: int
    window_started_at: datetime


async def insert_attempt(session: AsyncSession, key: str, bucket: Bucket, *, limit: int, window: Window) -> bool:
    """Take one of the guesses that are left; False when none is. A window that is over begins anew."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    fresh = {"failures": 0, "pending": 1, "attempted_at": window.now, "window_started_at": window.now}
    taken = (
        insert(Throttle)
        .values(key=key, bucket=bucket, **fresh)
        .on_conflict_do_update(
            index_elements=[Throttle.key, Throttle.bucket],
            set_={
                "failures": case((window.is_over, 0), else_=Throttle.failures),
                "pending": case((window.is_over, 1), else_=window.pending + 1),
                "attempted_at": window.now,
                "window_started_at": case((window.is_over, window.now), else_=Throttle.window_started_at),
            },
            where=or_(window.is_over, Throttle.failures + window.pending < limit),
        )
        .returning(Throttle.key)
    )
    return (await session.execute(taken)).one_or_none() is not None


async def find_count(session: AsyncSession, key: str, bucket: Bucket) -> Count | None:
    """What a counter stands at."""
    found = await session.execute(
        select(Throttle.failures, Throttle.pending, Throttle.window_started_at).where(
            Throttle.key == key, Throttle.bucket == bucket
        )
    )
    row = found.one_or_none()
    return None if row is None else Count(row.failures, row.pending, row.window_started_at)


async def update_settled(session: AsyncSession, key: str, bucket: Bucket, *, failures: int) -> int | None:
    """Give back a guess that was taken, and count it as a failure when `failures` is 1; what the failures are now."""
    settled = await session.execute(
        update(Throttle)
        .where(Throttle.key == key, Throttle.bucket == bucket)
        .values(
            pending=case((Throttle.pending > 0, Throttle.pending - 1), else_=0),
            failures=Throttle.failures + failures,
        )
        .returning(Throttle.failures)
    )
    return settled.scalar_one_or_none()


async def update_cleared(session: AsyncSession, key: str, bucket: Bucket) -> None:
    """Give back a guess that was right, and forget the failures before it."""
    await session.execute(
        update(Throttle)
        .where(Throttle.key == key, Throttle.bucket == bucket)
        .values(pending=case((Throttle.pending > 0, Throttle.pending - 1), else_=0), failures=0)
    )


async def delete_past(session: AsyncSession, bucket: Bucket, *, before: datetime, limit: int) -> int:
    """Forget counters whose window began before a time, up to a number of them; how many."""
    old = (
        select(Throttle.key)
        .where(Throttle.bucket == bucket, Throttle.window_started_at < before)
        .order_by(Throttle.window_started_at)
        .limit(limit)
    )
    gone = await session.execute(
        delete(Throttle)
        .where(Throttle.bucket == bucket, Throttle.key.in_(old), Throttle.window_started_at < before)
        .returning(Throttle.key)
    )
    return len(gone.all())


async def delete_counter(session: AsyncSession, key: str, bucket: Bucket) -> None:
    """Forget one counter."""
    await session.execute(delete(Throttle).where(Throttle.key == key, Throttle.bucket == bucket))
