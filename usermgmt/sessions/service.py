"""Opening sessions and ending them, inside the transactions of the use cases that sign in, out, disable or delete."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.identifiers import new_id
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.sessions import queries
from usermgmt.sessions.models import RevocationReason


async def open_session(runtime: Runtime, session: AsyncSession, caller: Caller, user_id: UUID, *, at: datetime) -> UUID:
    """Put a fresh sign-in on record; its id."""
    tokens = runtime.settings.tokens
    session_id = new_id()
    await queries.insert_session(
        session,
        user_id=user_id,
        session_id=session_id,
        at=at,
        idle_expires_at=at + min(tokens.session_idle_lifetime, tokens.session_lifetime),
        expires_at=at + tokens.session_lifetime,
        address=caller.client.address,
        user_agent=(caller.client.user_agent or "")[:512] or None,
    )
    return session_id


async def end_session(
    session: AsyncSession,
    caller: Caller,
    user_id: UUID,
    session_id: UUID,
    *,
    at: datetime,
    reason: RevocationReason,
) -> bool:
    """Revoke one session and record it; False when it had ended already."""
    if not await queries.update_revoked(session, user_id, session_id, now=at, reason=reason):
        return False
    await audit.record(
        session,
        Event.SESSION_REVOKED,
        caller=caller,
        at=at,
        user_id=user_id,
        session_id=session_id,
        details={"reason": reason},
    )
    return True


async def end_all_sessions(
    session: AsyncSession,
    caller: Caller,
    user_id: UUID,
    *,
    at: datetime,
    reason: RevocationReason,
    keep: UUID | None = None,
) -> int:
    """Revoke every live session of a user but `keep`, with one record; how many."""
    ended = await queries.update_all_revoked(session, user_id, now=at, reason=reason, keep=keep)
    if ended:
        await audit.record(
            session,
            Event.SESSION_REVOKED,
            caller=caller,
            at=at,
            user_id=user_id,
            details={"reason": reason, "sessions": len(ended)},
        )
    return len(ended)
