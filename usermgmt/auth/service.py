"""Signing in, signing out, and telling who a token stands for. Refreshing is in `usermgmt.auth.refreshing`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, Outcome, TargetType
from usermgmt.auth import queries
from usermgmt.errors import MissingCredentials, SessionEnded, Unauthenticated
from usermgmt.permissions import Rights
from usermgmt.runtime import Runtime
from usermgmt.security.hashing import Verdict
from usermgmt.security.names import login_name_key
from usermgmt.security.principal import Caller, Principal
from usermgmt.security.tokens import AccessClaims, RefreshClaims
from usermgmt.sessions import queries as session_queries
from usermgmt.sessions import service as sessions
from usermgmt.sessions.models import RevocationReason, Session
from usermgmt.sessions.queries import RefreshedSession
from usermgmt.sessions.service import Opened
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.throttle import service as throttle
from usermgmt.throttle.models import Bucket
from usermgmt.users import queries as user_queries
from usermgmt.users.models import Status, User
from usermgmt.users.service import UserView, view_of

NOBODY = UUID(int=0)


class InvalidCredentials(Unauthenticated):
    """Unknown name, wrong password, disabled or deleted account: the answer never tells which."""

    code = "invalid_credentials"
    detail = "The username or the password is wrong."


class InvalidRefreshToken(Unauthenticated):
    """The refresh token is not one that this server made, or its session is unknown."""

    code = "invalid_refresh_token"
    detail = "The refresh token is not valid."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a sign-in or a refresh gives. Lifetimes are in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    refresh_expires_in: int


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A fresh sign-in: the tokens, and the account."""

    tokens: TokenPair
    view: UserView


@dataclass(frozen=True, slots=True)
class CurrentSession:
    """The caller's session and account."""

    session: Session
    view: UserView
    rights: Rights


async def log_in(runtime: Runtime, caller: Caller, name: str, password: str) -> SignedIn:
    """Open a session for whoever knows the password of the account with this username or e-mail address.

    Every refusal is `InvalidCredentials` after the same work; it is recorded with its reason. An outdated hash is
    replaced. `TooManyAttempts` when the guesses at this name or from this network are used up, whoever the name leads
    to. `Overloaded` when too many passwords wait to be verified.
    """
    async with runtime.hasher.place() as place:  # before anything is asked of the database: a flood ends here
        named = await _find_by_name(runtime, caller, name)
        counters = throttle.login_counters(runtime, caller.client, named.key, is_familiar=named.is_familiar)
        async with throttle.counted(runtime, *counters) as attempt:
            user = named.user
            stored = user.password_hash if user is not None else None
            verdict = await runtime.hasher.verify(password, stored, place=place)
            is_right = user is not None and verdict.matches and user.status == Status.ACTIVE
            exhausted = await attempt.settle(succeeded=is_right)
    if user is None or not is_right:
        await _record_failure(runtime, caller, name, named, verdict, exhausted)
        raise InvalidCredentials
    rehashed = await runtime.hasher.hash(password) if verdict.is_outdated else None
    signed_in = await _open_session(runtime, caller, user, rehashed)
    if signed_in is None:  # disabled, deleted or given another password while this one was verified
        await _record_failure(runtime, caller, name, named, verdict, [])
        raise InvalidCredentials
    return signed_in


@repeated_on_conflict
async def log_out(
    runtime: Runtime, caller: Caller, *, access_token: AccessClaims | None, refresh_token: str | None
) -> None:
    """End the session that the access token, the refresh token, or each of them names. Repeating it changes nothing.

    Refused: `MissingCredentials` without either, `InvalidRefreshToken` for one we did not make.
    """
    named = set[tuple[UUID, UUID]]()
    if refresh_token is not None:
        claims = runtime.refresh_tokens.read(refresh_token)
        if claims is None:
            raise InvalidRefreshToken
        named.add((claims.user_id, claims.session_id))
    if access_token is not None:
        named.add((access_token.user_id, access_token.session_id))
    if not named:
        raise MissingCredentials
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        for user_id, session_id in sorted(named):
            await sessions.end_session(session, caller, user_id, session_id, at=now, reason=RevocationReason.SIGNED_OUT)


@repeated_on_conflict
async def log_out_everywhere(runtime: Runtime, caller: Caller, *, keep_this: bool) -> None:
    """End the caller's sessions: all, or all but the one it calls from. `SessionEnded` unless that one is alive."""
    principal = caller.principal
    if principal is None:
        raise SessionEnded
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await sessions.end_all_sessions(
            session,
            caller,
            principal.user_id,
            at=now,
            reason=RevocationReason.SIGNED_OUT,
            keep=principal.session_id if keep_this else None,
        )


async def load_principal(runtime: Runtime, claims: AccessClaims) -> Principal | None:
    """Who a verified token stands for at this instant; None when its session or account is no longer good."""
    live = await runtime.database.coalesced(queries.fetch_live_sessions, (claims.user_id, claims.session_id))
    if live is None or live.ends_at <= runtime.clock.now():
        return None
    return Principal(
        user_id=claims.user_id,
        session_id=claims.session_id,
        username=live.username,
        rights=live.rights,
        authenticated_at=live.authenticated_at,
    )


async def get_current_session(runtime: Runtime, principal: Principal) -> CurrentSession:
    """The session and account of the caller, or `SessionEnded` if they ended this very moment."""
    async with runtime.database.read() as session:
        row = await session_queries.find_session(session, principal.user_id, principal.session_id)
        user = await user_queries.find_user(session, principal.user_id)
        if row is None or user is None:
            raise SessionEnded
        return CurrentSession(row, await view_of(session, user), principal.rights)


@dataclass(frozen=True, slots=True)
class _Named:
    """Whom a name leads to: an account, or none, though the name may still be reserved for a deleted one.

    `key` stands for every spelling of the name; `is_familiar` is whether this network signed in to the account before.
    """

    key: str
    user: User | None
    is_reserved: bool
    is_familiar: bool


async def _find_by_name(runtime: Runtime, caller: Caller, name: str) -> _Named:
    """The account with this name. A name that nobody has costs the same reads."""
    key = login_name_key(name)
    async with runtime.database.read() as session:
        found = await user_queries.find_login_name(session, key or "")
        user_id = found.user_id if found is not None else NOBODY
        user = await user_queries.find_user(session, user_id)
        is_familiar = await session_queries.has_session_from(session, user_id, caller.client.network)
    return _Named(key or f"?{name}", user, is_reserved=found is not None and user is None, is_familiar=is_familiar)


async def _record_failure(
    runtime: Runtime, caller: Caller, name: str, named: _Named, verdict: Verdict, exhausted: Sequence[Bucket]
) -> None:
    """Record a failed sign-in, and that it was the last that was left; what the client is never told stands here."""
    user = named.user
    if user is None:
        reason = "deleted" if named.is_reserved else "unknown_user"
    elif user.password_hash is None:
        reason = "no_password"
    elif not verdict.matches:
        reason = "wrong_password"
    else:
        reason = "not_active"
    events = [(Event.LOGIN_FAILED, {"reason": reason})]
    events += [(Event.LOGIN_THROTTLED, {"counter": str(bucket)}) for bucket in exhausted]
    async with runtime.database.begin() as session:
        for event, details in events:
            await audit.record(
                session,
                event,
                caller=caller,
                at=runtime.clock.now(),
                user_id=user.id if user is not None else None,
                target=None if user is not None else login_name_key(name) or name,
                target_type=TargetType.USER if user is not None else TargetType.LOGIN_NAME,
                outcome=Outcome.FAILURE,
                details=details,
            )


@repeated_on_conflict
async def _open_session(runtime: Runtime, caller: Caller, user: User, rehashed: str | None) -> SignedIn | None:
    """Open the session unless the account has changed in a way that forbids it since its password was verified."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        if not await user_queries.update_last_login(
            session, user.id, password_changed_at=user.password_changed_at, now=now
        ):
            return None
        user.last_login_at = now
        if rehashed is not None and user.password_hash is not None:
            await _replace_hash(session, caller, user.id, seen=user.password_hash, stored=rehashed, now=now)
        opened = await sessions.open_session(runtime, session, caller, user.id, at=now)
        for event in _sign_in_events(opened):
            await audit.record(session, event, caller=caller, at=now, user_id=user.id, session_id=opened.session.id)
        return SignedIn(pair_of(runtime, opened.session, now), await view_of(session, user))


def _sign_in_events(opened: Opened) -> Iterator[Event]:
    yield Event.LOGIN_SUCCEEDED
    if opened.acquaintance.is_new_network:
        yield Event.LOGIN_FROM_NEW_NETWORK
    if opened.acquaintance.is_new_device:
        yield Event.LOGIN_FROM_NEW_DEVICE


async def _replace_hash(
    session: AsyncSession, caller: Caller, user_id: UUID, *, seen: str, stored: str, now: datetime
) -> None:
    if await user_queries.update_password_hash(session, user_id, seen=seen, stored=stored):
        await audit.record(session, Event.PASSWORD_REHASHED, caller=caller, at=now, user_id=user_id)


def pair_of(runtime: Runtime, row: Session | RefreshedSession, now: datetime) -> TokenPair:
    """The tokens of a session at its current generation."""
    refresh_token = runtime.refresh_tokens.issue(RefreshClaims(row.user_id, row.id, row.generation))
    return TokenPair(
        access_token=runtime.access_tokens.issue(row.user_id, row.id, now=now),
        refresh_token=refresh_token,
        expires_in=int(runtime.access_tokens.lifetime.total_seconds()),
        refresh_expires_in=max(0, int((min(row.expires_at, row.idle_expires_at) - now).total_seconds())),
    )
