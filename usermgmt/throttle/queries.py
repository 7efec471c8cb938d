"""Statements on the counters of guesses. Each is one atomic step: counting is exact however many guess at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import Table, bindparam, case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningInsert

from usermgmt.storage.types import UtcDateTime
from usermgmt.throttle.models import Bucket, Throttle

CLOCK_SKEW = timedelta(seconds=60)
"""How far ahead of ours the clock may have been that began a window; one that began later is not believed."""

VERIFYING = timedelta(seconds=30)
"""Longer than a guess can take to be verified; what is pending longer was left behind by a process that died."""

# Every sign-in counts, and writing such a statement costs more than running it: each is written once.
_TABLE = cast("Table", Throttle.__table__)
_COLUMNS = _TABLE.c
_NOW = bindparam("now", type_=UtcDateTime())
_IS_OVER = or_(
    _COLUMNS.window_started_at <= bindparam("ended_since"), _COLUMNS.window_started_at > bindparam("cannot_begin_after")
)
_PENDING = case((_COLUMNS.attempted_at <= bindparam("given_up_since"), 0), else_=_COLUMNS.pending)
_IS_THIS = (_COLUMNS.key == bindparam("of_key")) & (_COLUMNS.bucket == bindparam("of_bucket"))
_ONE_LESS = case((_COLUMNS.pending > 0, _COLUMNS.pending - 1), else_=0)
_FOUND = select(_COLUMNS.failures, _COLUMNS.pending, _COLUMNS.window_started_at).where(_IS_THIS)
_SETTLED = (
    update(_TABLE)
    .where(_IS_THIS)
    .values(pending=_ONE_LESS, failures=_COLUMNS.failures + bindparam("more"))
    .returning(_COLUMNS.failures)
)
_CLEARED = update(_TABLE).where(_IS_THIS).values(pending=_ONE_LESS, failures=0)


@dataclass(frozen=True, slots=True)
class Window:
    """The period of a counter, seen from now."""

    now: datetime
    period: timedelta


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter stands at."""

    failures: int
    pending: int
    window_started_at: datetime


async def insert_attempt(session: AsyncSession, key: str, bucket: Bucket, *, limit: int, window: Window) -> bool:
    """Take one of the guesses that are left; False when none is. A window that is over begins anew."""
    values = {
        **_this(key, bucket),
        "now": window.now,
        "ended_since": window.now - window.period,
        "cannot_begin_after": window.now + CLOCK_SKEW,
        "given_up_since": window.now - VERIFYING,
        "most": limit,
    }
    return (await session.execute(_taken(session.get_bind().dialect.name), values)).one_or_none() is not None


@cache
def _taken(dialect: str) -> ReturningInsert[Any]:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return (
        insert(_TABLE)
        .values(
            key=bindparam("of_key"),
            bucket=bindparam("of_bucket"),
            failures=0,
            pending=1,
            attempted_at=_NOW,
            window_started_at=_NOW,
        )
        .on_conflict_do_update(
            index_elements=[_COLUMNS.key, _COLUMNS.bucket],
            set_={
                "failures": case((_IS_OVER, 0), else_=_COLUMNS.failures),
                "pending": case((_IS_OVER, 1), else_=_PENDING + 1),
                "attempted_at": _NOW,
                "window_started_at": case((_IS_OVER, _NOW), else_=_COLUMNS.window_started_at),
            },
            where=or_(_IS_OVER, _COLUMNS.failures + _PENDING < bindparam("most")),
        )
        .returning(_COLUMNS.key)
    )


async def find_count(session: AsyncSession, key: str, bucket: Bucket) -> Count | None:
    """What a counter stands at."""
    row = (await session.execute(_FOUND, _this(key, bucket))).one_or_none()
    return None if row is None else Count(row.failures, row.pending, row.window_started_at)


async def update_settled(session: AsyncSession, key: str, bucket: Bucket, *, failures: int) -> int | None:
    """Give back a guess that was taken, and count it as a failure when `failures` is 1; what the failures are now."""
    settled = await session.execute(_SETTLED, {**_this(key, bucket), "more": failures})
    now: int | None = settled.scalar_one_or_none()
    return now


async def update_cleared(session: AsyncSession, key: str, bucket: Bucket) -> None:
    """Give back a guess that was right, and forget the failures before it."""
    await session.execute(_CLEARED, _this(key, bucket))


def _this(key: str, bucket: Bucket) -> dict[str, Any]:
    return {"of_key": key, "of_bucket": bucket}


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
