"""Refreshing: one refresh token exchanged for the next, and what becomes of a session whose token was stolen."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, Outcome
from usermgmt.auth.service import InvalidRefreshToken, TokenPair, pair_of
from usermgmt.errors import Unauthenticated
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.security.tokens import RefreshClaims
from usermgmt.sessions import queries as session_queries
from usermgmt.sessions.models import RevocationReason, Session
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.telemetry import metrics
from usermgmt.throttle import service as throttle


class SessionExpired(Unauthenticated):
    """The session's time is over: it was idle too long, or reached its absolute limit."""

    code = "session_expired"
    detail = "This session has expired. Sign in again."


class SessionRevoked(Unauthenticated):
    """The session was ended: signed out, taken back, or its refresh token was used twice."""

    code = "session_revoked"
    detail = "This session was ended. Sign in again."


@repeated_on_conflict
async def refresh(runtime: Runtime, caller: Caller, presented: str) -> TokenPair:
    """Exchange a refresh token for a new pair; exactly one exchange moves the session on.

    The token just before the current one gives the same successor again within `tokens.refresh_grace` (a lost answer,
    two tabs). Any older one, or that one later, was stolen or copied: the session is revoked, which is recorded once,
    and refused with `SessionRevoked` (RFC 9700, section 4.14.2). Also `InvalidRefreshToken`, `SessionExpired`, and
    `TooManyAttempts` for tokens that were never issued; a genuine one is never held up by them.
    """
    claims = runtime.refresh_tokens.read(presented)
    if claims is None:
        metrics.refreshed.labels("forged").inc()
        await throttle.count_failure(runtime, throttle.refresh_counter(runtime, caller.client))
        raise InvalidRefreshToken
    now = runtime.clock.now()
    idle_expires_at = now + runtime.settings.tokens.session_idle_lifetime
    async with runtime.database.begin() as session:
        moved = await session_queries.update_generation(
            session,
            claims.user_id,
            claims.session_id,
            presented=claims.generation,
            now=now,
            idle_expires_at=idle_expires_at,
        )
        if moved is not None:
            metrics.refreshed.labels("new").inc()
            await audit.record(
                session,
                Event.SESSION_REFRESHED,
                caller=caller,
                at=now,
                user_id=claims.user_id,
                session_id=claims.session_id,
            )
            return pair_of(runtime, moved, now)
        row = await session_queries.find_session(session, claims.user_id, claims.session_id)
        if row is not None and _is_repeat(runtime, row, claims, now):
            metrics.refreshed.labels("repeated").inc()
            return pair_of(runtime, row, now)
        refusal = await _refuse_refresh(session, caller, row, claims, now)
    metrics.refreshed.labels("refused").inc()
    raise refusal


def _is_repeat(runtime: Runtime, row: Session, claims: RefreshClaims, now: datetime) -> bool:
    """Whether the token just before the current one is presented again within the grace, to a live session."""
    return (
        row.is_live(now)
        and row.generation == claims.generation + 1
        and now - row.refreshed_at <= runtime.settings.tokens.refresh_grace
    )


async def _refuse_refresh(
    session: AsyncSession, caller: Caller, row: Session | None, claims: RefreshClaims, now: datetime
) -> Unauthenticated:
    """Say why a refresh token is refused; one that was used before ends its session, and that is recorded."""
    if row is None or claims.generation > row.generation:
        return InvalidRefreshToken()
    if row.revoked_at is not None:
        return SessionRevoked()
    if row.ends_at <= now:
        return SessionExpired()
    revoked = await session_queries.update_revoked(
        session, claims.user_id, claims.session_id, now=now, reason=RevocationReason.REFRESH_REUSED
    )
    if revoked:
        metrics.sessions_revoked.labels(RevocationReason.REFRESH_REUSED).inc()
        await audit.record(
            session,
            Event.SESSION_REFRESH_REUSED,
            caller=caller,
            at=now,
            user_id=claims.user_id,
            session_id=claims.session_id,
            outcome=Outcome.FAILURE,
            details={"presented": claims.generation, "current": row.generation},
        )
    return SessionRevoked()
