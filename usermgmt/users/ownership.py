"""Proof that it is the owner who changes or deletes an account: a recent sign-in, or the password once more.

A stolen access token must not become a stolen account. Wrong passwords are counted within the session that sends them,
so whoever stole a token can neither guess on nor keep the owner, who has another session, from proving themselves.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, Outcome
from usermgmt.errors import FieldError, Forbidden, RecentSignInRequired, UserNotFound, ValidationFailed
from usermgmt.runtime import Runtime
from usermgmt.security.names import canonical_email
from usermgmt.security.principal import Caller
from usermgmt.throttle import service as throttle
from usermgmt.users import queries
from usermgmt.users.models import User


class WrongCurrentPassword(Forbidden):
    """`current_password` is not the account's password."""

    code = "wrong_current_password"
    detail = "The current password is wrong."


async def prove_for_change(
    runtime: Runtime, caller: Caller, user_id: UUID, *, changes: Mapping[str, Any], current_password: str | None
) -> User | None:
    """Have the owner prove themselves where the change is sensitive; the account whose password was verified."""
    if not caller.is_user(user_id) or not {"password", "username", "email"} & changes.keys():
        return None
    async with runtime.database.read() as session:
        user = await queries.find_user(session, user_id)
    if user is None:
        raise UserNotFound
    if "password" in changes and current_password is None and user.password_hash is not None:
        raise ValidationFailed([_CURRENT_PASSWORD_REQUIRED])
    if "password" in changes or _renames(user, changes):
        return await confirm_owner(runtime, caller, user_id, current_password)
    return None


async def confirm_owner(runtime: Runtime, caller: Caller, user_id: UUID, password: str | None) -> User | None:
    """Accept a recent sign-in, or verify the password if one was sent; a wrong one is counted, recorded and refused.

    Refused: `RecentSignInRequired`, `WrongCurrentPassword`, `TooManyAttempts`.
    """
    if password is None:
        if not _is_fresh(runtime, caller):
            raise RecentSignInRequired
        return None
    async with throttle.counted(runtime, throttle.session_counter(runtime, caller)) as attempt:
        async with runtime.database.read() as session:
            user = await queries.find_user(session, user_id)
        verdict = await runtime.hasher.verify(password, user.password_hash if user else None)
        is_owner = user is not None and verdict.matches
        exhausted = await attempt.settle(succeeded=is_owner)
    if is_owner:
        return user
    async with runtime.database.begin() as session:
        events = [Event.REAUTHENTICATION_FAILED, *([Event.REAUTHENTICATION_THROTTLED] if exhausted else [])]
        for event in events:
            await audit.record(
                session, event, caller=caller, at=runtime.clock.now(), user_id=user_id, outcome=Outcome.FAILURE
            )
    raise WrongCurrentPassword


def _is_fresh(runtime: Runtime, caller: Caller) -> bool:
    """Whether the caller proved who they are a short while ago (`tokens.fresh_lifetime`)."""
    if caller.principal is None:
        return caller.is_operator
    return caller.principal.is_fresh(runtime.settings.tokens.fresh_lifetime, at=runtime.clock.now())


def _renames(user: User, changes: Mapping[str, Any]) -> bool:
    username, email = changes.get("username"), changes.get("email")
    return (username is not None and username != user.username) or (
        email is not None and canonical_email(email).address != user.email
    )


_CURRENT_PASSWORD_REQUIRED = FieldError(
    code="current_password_required", detail="Send your current password too.", pointer="/current_password"
)
