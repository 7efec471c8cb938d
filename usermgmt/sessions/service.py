"""Sessions: opening and ending them inside the transactions of other use cases, listing them, and revoking them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.errors import NotFound
from usermgmt.groups import service as groups
from usermgmt.identifiers import new_id
from usermgmt.permissions import Permission
from usermgmt.roles import service as roles
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.sessions import queries
from usermgmt.sessions.models import RevocationReason, Session
from usermgmt.sessions.queries import Acquaintance
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.telemetry import metrics

BATCH = 500
SAMPLE_INTERVAL = timedelta(seconds=15)
MOST_COUNTED = 10_000


metrics.expect(metrics.sessions_revoked, RevocationReason)


class WhichSessions(StrEnum):
    """Which of the caller's sessions, or of an account's, end."""

    THIS = "this"
    OTHERS = "others"
    ALL = "all"


class SessionNotFound(NotFound):
    """The account has no live session with this id."""

    code = "session_not_found"
    detail = "There is no such session."


@dataclass(frozen=True, slots=True)
class Opened:
    """A fresh session, and whether it comes from where the account never signed in before."""

    session: Session
    acquaintance: Acquaintance


async def open_session(
    runtime: Runtime, session: AsyncSession, caller: Caller, user_id: UUID, *, at: datetime
) -> Opened:
    """Put a fresh sign-in on record. Beyond `tokens.max_sessions` the oldest sessions end.

    The caller of this function holds the user's row, or two sign-ins at once could leave one session too many.
    """
    tokens, client = runtime.settings.tokens, caller.client
    acquaintance = await queries.find_acquaintance(
        session, user_id, network=client.network, user_agent=client.user_agent
    )
    opened = await queries.insert_session(
        session,
        user_id=user_id,
        session_id=new_id(),
        at=at,
        idle_expires_at=at + min(tokens.session_idle_lifetime, tokens.session_lifetime),
        expires_at=at + tokens.session_lifetime,
        address=client.address,
        network=client.network,
        user_agent=client.user_agent,
    )
    reason = RevocationReason.TOO_MANY_SESSIONS
    ended = await queries.update_oldest_revoked(session, user_id, keep=tokens.max_sessions, now=at, reason=reason)
    if ended:
        await _record_ended(session, caller, user_id, len(ended), at=at, reason=reason)
    metrics.sessions_opened.inc()
    return Opened(opened, acquaintance)


async def sample_live(runtime: Runtime) -> None:
    """Take how many sessions are live, for metrics: exactly while they are few, else by the database's statistics."""
    now = runtime.clock.now()
    async with runtime.database.read(may_lag=True) as session:
        about = 0 if runtime.database.is_sqlite else await queries.estimate_live_sessions(session, now=now)
        if about < MOST_COUNTED:
            about = await queries.count_live_sessions(session, now=now, most=MOST_COUNTED)
    metrics.sessions_live.set(about)


async def list_sessions(runtime: Runtime, caller: Caller, user_id: UUID) -> Sequence[Session]:
    """The live sessions of one's own account, or of one that `sessions:manage` reaches; else `UserNotFound`."""
    async with runtime.database.read() as session:
        await groups.check_user_within(session, caller, user_id, Permission.SESSIONS_MANAGE)
        return await queries.list_live_sessions(session, user_id, now=runtime.clock.now())


@repeated_on_conflict
async def revoke_session(runtime: Runtime, caller: Caller, user_id: UUID, session_id: UUID) -> None:
    """End one session at once. Refused: `UserNotFound`, `ExceedsOwnRights`, `SessionNotFound` for one that does not
    exist or has ended.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        reason = await _check_may_end(session, caller, user_id)
        row = await queries.find_session(session, user_id, session_id)
        if row is None or not row.is_live(now):
            raise SessionNotFound
        if not await end_session(session, caller, user_id, session_id, at=now, reason=reason):
            raise SessionNotFound


@repeated_on_conflict
async def revoke_sessions(runtime: Runtime, caller: Caller, user_id: UUID, *, keep_current: bool) -> int:
    """End every session of an account, or all but the one that the caller calls from; how many. Refused:
    `UserNotFound`, `ExceedsOwnRights`.
    """
    now = runtime.clock.now()
    keep = caller.principal.session_id if keep_current and caller.principal is not None else None
    async with runtime.database.begin() as session:
        reason = await _check_may_end(session, caller, user_id)
        return await end_all_sessions(session, caller, user_id, at=now, reason=reason, keep=keep)


@repeated_on_conflict
async def forget_ended(runtime: Runtime) -> int:
    """Remove a batch of the sessions whose retention is over; how many there were."""
    before = runtime.clock.now() - runtime.settings.retention.sessions
    async with runtime.database.begin() as session:
        revoked = await queries.delete_revoked(session, before=before, limit=BATCH)
        return revoked + await queries.delete_expired(session, before=before, limit=BATCH - revoked)


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
    metrics.sessions_revoked.labels(reason).inc()
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
        await _record_ended(session, caller, user_id, len(ended), at=at, reason=reason)
    return len(ended)


async def _check_may_end(session: AsyncSession, caller: Caller, user_id: UUID) -> RevocationReason:
    """Refuse who may not end this account's sessions; as whom the caller ends them."""
    if caller.is_user(user_id):
        return RevocationReason.REVOKED_BY_OWNER
    await groups.check_user_within(session, caller, user_id, Permission.SESSIONS_MANAGE)
    await roles.check_covered(session, caller, user_id)
    return RevocationReason.REVOKED_BY_ADMIN


async def _record_ended(
    session: AsyncSession, caller: Caller, user_id: UUID, count: int, *, at: datetime, reason: RevocationReason
) -> None:
    metrics.sessions_revoked.labels(reason).inc(count)
    await audit.record(
        session,
        Event.SESSION_REVOKED,
        caller=caller,
        at=at,
        user_id=user_id,
        details={"reason": reason, "sessions": count},
    )
