"""The read that every request with a token makes: is the session alive, is the account active, what may it do."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.sessions.models import Session
from usermgmt.users.models import Status, User


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that is good now, with the name of its account."""

    username: str
    authenticated_at: datetime


async def find_live_session(
    session: AsyncSession, user_id: UUID, session_id: UUID, *, now: datetime
) -> LiveSession | None:
    """A session that is neither revoked nor over, of an account that may sign in."""
    found = await session.execute(
        select(User.username, Session.authenticated_at)
        .join(Session, Session.user_id == User.id)
        .where(
            User.id == user_id,
            User.status == Status.ACTIVE,
            User.deleted_at.is_(None),
            Session.user_id == user_id,
            Session.id == session_id,
            Session.revoked_at.is_(None),
            Session.expires_at > now,
            Session.idle_expires_at > now,
        )
    )
    row = found.one_or_none()
    return None if row is None else LiveSession(row.username, row.authenticated_at)
