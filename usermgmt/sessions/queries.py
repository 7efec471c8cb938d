"""Statements on sessions. Those of requests name the user, so that they reach one place of a distributed database;
those that count sessions or remove what is over go through all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.sessions.models import RevocationReason, Session, is_live
from usermgmt.storage.explain import estimate_rows


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """Whether a sign-in comes from where the account never signed in before. The first of all is neither."""

    is_new_network: bool
    is_new_device: bool


@dataclass(frozen=True, slots=True)
class RefreshedSession:
    """A session as it stands after a refresh."""

    user_id: UUID
    id: UUID
    generation: int
    idle_expires_at: datetime
    expires_at: datetime


_TABLE = cast("Table", Session.__table__)
_IS_LIVE = is_live(Session, bindparam("at"))
_MOVE = (  # built once: every refresh is this statement
    update(_TABLE)
    .where(
        _TABLE.c.user_id == bindparam("of_user"),
        _TABLE.c.id == bindparam("of_id"),
        _TABLE.c.generation == bindparam("presented"),
        *is_live(_TABLE.c, bindparam("at")),
    )
    .values(generation=bindparam("next"), refreshed_at=bindparam("at"), idle_expires_at=bindparam("idle_until"))
    .returning(_TABLE.c.expires_at)
)
_OWN = _TABLE.c.user_id == bindparam("of_user")
_FROM_NETWORK = _TABLE.c.network == bindparam("from_network")
_INSERT = insert(_TABLE).inline()
_HAS_SESSION_FROM = select(exists().where(_OWN, _FROM_NETWORK))
_ACQUAINTANCE = select(
    exists().where(_OWN),
    exists().where(_OWN, _FROM_NETWORK),
    exists().where(_OWN, _TABLE.c.user_agent.is_not_distinct_from(bindparam("from_device"))),
)
_OWN_LIVE = (_OWN, *is_live(_TABLE.c, bindparam("at")))
_REVOKE_OLDEST = (  # as the others of a sign-in: writing such a statement costs more than running it
    update(_TABLE)
    .where(
        *_OWN_LIVE,
        _TABLE.c.id.not_in(select(_TABLE.c.id).where(*_OWN_LIVE).order_by(_TABLE.c.id.desc()).limit(bindparam("keep"))),
    )
    .values(revoked_at=bindparam("at"), revoked_reason=bindparam("reason"))
    .returning(_TABLE.c.id)
)

LIVE_SESSIONS = select(func.count()).where(
    _TABLE.c.refreshed_at >= bindparam("since"),
    _TABLE.c.refreshed_at < bindparam("until"),
    *is_live(_TABLE.c, bindparam("at")),
)
"""How many live sessions were last refreshed in a period; it reads all of them."""


async def insert_session(
    session: AsyncSession,
    *,
    user_id: UUID,
    session_id: UUID,
    at: datetime,
    idle_expires_at: datetime,
    expires_at: datetime,
    address: str | None,
    network: str,
    user_agent: str | None,
) -> Session:
    """Add a session at generation 0."""
    added = Session(
        user_id=user_id,
        id=session_id,
        generation=0,
        created_at=at,
        authenticated_at=at,
        refreshed_at=at,
        idle_expires_at=idle_expires_at,
        expires_at=expires_at,
        address=address,
        network=network,
        user_agent=user_agent,
    )
    await session.execute(_INSERT, {column.key: getattr(added, column.key) for column in _TABLE.columns})
    return added


async def has_session_from(session: AsyncSession, user_id: UUID, network: str) -> bool:
    """Whether a network ever signed in to an account."""
    found = await session.execute(_HAS_SESSION_FROM, {"of_user": user_id, "from_network": network})
    return bool(found.scalar_one())


async def find_acquaintance(
    session: AsyncSession, user_id: UUID, *, network: str, user_agent: str | None
) -> Acquaintance:
    """What the earlier sign-ins to an account tell about one that is made now."""
    values = {"of_user": user_id, "from_network": network, "from_device": user_agent}
    found = await session.execute(_ACQUAINTANCE, values)
    has_any, has_network, has_device = found.one()
    return Acquaintance(is_new_network=has_any and not has_network, is_new_device=has_any and not has_device)


async def list_live_sessions(session: AsyncSession, user_id: UUID, *, now: datetime) -> Sequence[Session]:
    """The sessions of a user that are good now, newest first."""
    statement = select(Session).where(*_of_live(user_id, now)).order_by(Session.id.desc())
    return (await session.scalars(statement)).all()


async def count_live_sessions(session: AsyncSession, *, now: datetime, most: int) -> int:
    """How many sessions are good now, up to a number of them."""
    some = select(Session.id).where(*_IS_LIVE).limit(most).subquery()
    return (await session.execute(select(func.count()).select_from(some), {"at": now})).scalar_one()


async def estimate_live_sessions(session: AsyncSession, *, now: datetime) -> int:
    """About how many sessions are good now, by PostgreSQL's statistics."""
    return await estimate_rows(session, select(Session.id).where(*_IS_LIVE), {"at": now})


async def update_oldest_revoked(
    session: AsyncSession, user_id: UUID, *, keep: int, now: datetime, reason: RevocationReason
) -> Sequence[UUID]:
    """Revoke the live sessions of a user beyond the newest `keep`; their ids. Hold the user's row when it matters."""
    values = {"of_user": user_id, "at": now, "keep": keep, "reason": reason}
    return (await session.scalars(_REVOKE_OLDEST, values)).all()


async def find_session(session: AsyncSession, user_id: UUID, session_id: UUID) -> Session | None:
    """One session, live or not."""
    found = await session.scalars(select(Session).where(Session.user_id == user_id, Session.id == session_id))
    return found.one_or_none()


async def update_generation(
    session: AsyncSession,
    user_id: UUID,
    session_id: UUID,
    *,
    presented: int,
    now: datetime,
    idle_expires_at: datetime,
) -> RefreshedSession | None:
    """Move a live session from the presented generation to the next; None unless this very statement did it."""
    values = {
        "of_user": user_id,
        "of_id": session_id,
        "presented": presented,
        "next": presented + 1,
        "at": now,
        "idle_until": idle_expires_at,
    }
    moved = (await session.execute(_MOVE, values)).one_or_none()
    if moved is None:
        return None
    return RefreshedSession(user_id, session_id, presented + 1, idle_expires_at, moved.expires_at)


async def update_revoked(
    session: AsyncSession, user_id: UUID, session_id: UUID, *, now: datetime, reason: RevocationReason
) -> bool:
    """Revoke a session; False when it does not exist or is revoked already."""
    revoked = await session.execute(
        update(Session)
        .where(Session.user_id == user_id, Session.id == session_id, Session.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason)
        .returning(Session.id)
    )
    return revoked.one_or_none() is not None


async def update_all_revoked(
    session: AsyncSession,
    user_id: UUID,
    *,
    now: datetime,
    reason: RevocationReason,
    keep: UUID | None = None,
) -> Sequence[UUID]:
    """Revoke every live session of a user but `keep`; gives the ids of those that this statement revoked."""
    statement = update(Session).where(*_of_live(user_id, now))
    if keep is not None:
        statement = statement.where(Session.id != keep)
    revoked = await session.scalars(
        statement.values(revoked_at=now, revoked_reason=reason)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )
    return revoked.all()


async def delete_revoked(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Remove sessions that were revoked before a time, up to a number of them; how many."""
    return await _delete_first(session, Session.revoked_at < before, order=Session.revoked_at, limit=limit)


async def delete_expired(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Remove sessions that came to their absolute end before a time, up to a number of them; how many.

    One that was idle too long waits for that end: an index of when sessions were last used would be written by every
    refresh.
    """
    is_past = Session.revoked_at.is_(None) & (Session.expires_at < before)
    return await _delete_first(session, is_past, order=Session.expires_at, limit=limit)


async def _delete_first(
    session: AsyncSession, is_past: ColumnElement[bool], *, order: SQLColumnExpression[Any], limit: int
) -> int:
    past = select(Session.user_id, Session.id).where(is_past).order_by(order).limit(limit)
    gone = await session.execute(
        delete(Session)
        .where(tuple_(Session.user_id, Session.id).in_(past), is_past)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def _of_live(user_id: UUID, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (Session.user_id == user_id, *is_live(Session, now))
