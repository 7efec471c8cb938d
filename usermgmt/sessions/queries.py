"""Statements on sessions. Each names the user, so that it reaches one place of a distributed database."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.sessions.models import RevocationReason, Session


async def insert_session(
    session: AsyncSession,
    *,
    user_id: UUID,
    session_id: UUID,
    at: datetime,
    idle_expires_at: datetime,
    expires_at: datetime,
    address: str | None,
    user_agent: str | None,
) -> None:
    """Add a session at generation 0."""
    await session.execute(
        insert(Session).values(
            user_id=user_id,
            id=session_id,
            generation=0,
            created_at=at,
            authenticated_at=at,
            refreshed_at=at,
            idle_expires_at=idle_expires_at,
            expires_at=expires_at,
            address=address,
            user_agent=user_agent,
        )
    )


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
) -> Session | None:
    """Move a live session from the presented generation to the next; None unless this very statement did it."""
    moved = await session.scalars(
        update(Session)
        .where(
            Session.user_id == user_id,
            Session.id == session_id,
            Session.generation == presented,
            Session.revoked_at.is_(None),
            Session.expires_at > now,
            Session.idle_expires_at > now,
        )
        .values(generation=presented + 1, refreshed_at=now, idle_expires_at=idle_expires_at)
        .returning(Session)
    )
    return moved.one_or_none()


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
    statement = update(Session).where(
        Session.user_id == user_id, Session.revoked_at.is_(None), Session.expires_at > now
    )
    if keep is not None:
        statement = statement.where(Session.id != keep)
    revoked = await session.scalars(
        statement.values(revoked_at=now, revoked_reason=reason)
        .returning(Session.id)
        .execution_options(synchronize_session=False)
    )
    return revoked.all()
