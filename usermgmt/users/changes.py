"""Accounts: changing, deleting and restoring them.

Whoever acts on an account must hold every right that the account holds; and whatever happens, one active admin stays.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.errors import Conflict, FieldError, PermissionMissing, Stale, UserNotFound, ValidationFailed
from usermgmt.permissions import Permission, Reach
from usermgmt.roles import queries as role_queries
from usermgmt.roles import service as roles
from usermgmt.roles.service import ExceedsOwnRights
from usermgmt.runtime import Runtime
from usermgmt.security.names import canonical_email, prefix_key, username_key
from usermgmt.security.principal import Caller
from usermgmt.sessions import service as sessions
from usermgmt.sessions.models import RevocationReason
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.users import ownership, queries
from usermgmt.users.models import MAX_ATTRIBUTES_BYTES, Status, User, are_attributes_too_long
from usermgmt.users.service import FieldNotPermitted, UserView, admin_kept, login_names_of, take_names, view_of


class UserNotDeleted(Conflict):
    """Only a deleted account can be restored."""

    code = "user_not_deleted"
    detail = "This user is not deleted."


class UserChanged(Stale):
    """The account is no longer at the version that `If-Match` names, or changed while this request was checked."""

    code = "user_changed"
    detail = "The user has changed since you read it."


class Changes(TypedDict, total=False):
    """What is to be set. A key that is absent is left alone; `attributes` is the whole new document."""

    username: str
    email: str
    display_name: str | None
    attributes: dict[str, Any]
    password: str
    status: Status
    roles: list[str]


Expected = Callable[[int], bool]
"""Whether a change is for the version that an account has."""


def any_version(_version: int) -> bool:
    """Whichever version it has."""
    return True


@dataclass(frozen=True, slots=True)
class Demand:
    """A wish to change an account: what to set, what proves that it is the owner, and which versions it is for.

    `merge_attributes`, when given, makes the new attributes from the present ones (RFC 7396).
    """

    changes: Changes
    current_password: str | None = None
    is_expected: Expected = any_version
    merge_attributes: Callable[[dict[str, Any]], dict[str, Any]] | None = None


@repeated_on_conflict
async def update_user(runtime: Runtime, caller: Caller, user_id: UUID, demand: Demand) -> UserView:
    """Set fields of an account, all or none, with the record of it.

    A new password ends the account's other sessions; a new e-mail address is unverified; disabling ends every session.
    Refused: `UserNotFound`, `FieldNotPermitted`, `ExceedsOwnRights`, `UserChanged`, `UsernameTaken`, `EmailTaken`,
    `LastAdmin`, `ValidationFailed` for what only the present account makes invalid, `PermissionMissing` for one's own
    account where the right does not reach it, `Overloaded`; for one's own password, name or address without proof:
    `RecentSignInRequired`, `WrongCurrentPassword`, `TooManyAttempts`.
    """
    changes = demand.changes
    if "status" in changes and not caller.has_anywhere(Permission.USERS_WRITE):
        raise FieldNotPermitted
    if "roles" in changes and not caller.has(Permission.ROLES_GRANT):
        raise FieldNotPermitted
    reach = caller.reach(Permission.USERS_WRITE, or_own="status" not in changes)
    await _refuse_early(runtime, caller, user_id, reach)
    verified = await ownership.prove_for_change(
        runtime, caller, user_id, changes=changes, current_password=demand.current_password
    )
    new_hash = await runtime.hasher.hash(changes["password"]) if "password" in changes else None
    now = runtime.clock.now()
    may_remove_admin = "status" in changes or "roles" in changes
    async with runtime.database.begin() as session, admin_kept(session, needed=may_remove_admin):
        user = await held_user(session, caller, user_id, reach, is_expected=demand.is_expected)
        if verified is not None and user.password_changed_at != verified.password_changed_at:
            raise UserChanged
        _refuse_own_name(runtime, user, changes)
        values = _columns(user, demand, new_hash, now)
        regranted = "roles" in changes and await _replace_roles(session, caller, user_id, changes["roles"], now)
        updated = await write_version(session, user, values, now) if values or regranted else user
        await _follow_up(session, caller, updated, values, now)
        return await view_of(session, updated)


@repeated_on_conflict
async def delete_user(
    runtime: Runtime,
    caller: Caller,
    user_id: UUID,
    *,
    current_password: str | None = None,
    is_expected: Expected = any_version,
) -> None:
    """Delete an account: it leaves every answer, its sessions end, its names stay reserved until it is erased.

    Refused: `UserNotFound`, `ExceedsOwnRights`, `UserChanged`, `LastAdmin`; for one's own account also
    `PermissionMissing`, `WrongCurrentPassword`, `TooManyAttempts`, `Overloaded` and, without `users:delete`,
    `RecentSignInRequired`.
    """
    has_to_prove = current_password is not None or not caller.has(Permission.USERS_DELETE)
    if caller.is_user(user_id) and has_to_prove:
        await ownership.confirm_owner(runtime, caller, user_id, current_password)
    now, reach = runtime.clock.now(), caller.reach(Permission.USERS_DELETE, or_own=True)
    async with runtime.database.begin() as session, admin_kept(session):
        user = await held_user(session, caller, user_id, reach, is_expected=is_expected)
        await write_version(session, user, {"deleted_at": now}, now)
        await sessions.end_all_sessions(session, caller, user_id, at=now, reason=RevocationReason.USER_DELETED)
        await audit.record(session, Event.USER_DELETED, caller=caller, at=now, user_id=user_id)


@repeated_on_conflict
async def restore_user(runtime: Runtime, caller: Caller, user_id: UUID) -> UserView:
    """Undo a deletion: the account is as it was, but signed out. Refused: `UserNotFound`, `UserNotDeleted`,
    `ExceedsOwnRights`.
    """
    now, reach = runtime.clock.now(), caller.reach(Permission.USERS_DELETE)
    async with runtime.database.begin() as session:
        user = await queries.find_user_for_update(session, user_id, reach)
        if user is None:
            raise UserNotFound
        await roles.check_covered(session, caller, user_id)
        if user.deleted_at is None:
            raise UserNotDeleted
        restored = await write_version(session, user, {"deleted_at": None}, now)
        await audit.record(session, Event.USER_RESTORED, caller=caller, at=now, user_id=user_id)
        return await view_of(session, restored)


# Who may


async def _refuse_early(runtime: Runtime, caller: Caller, user_id: UUID, reach: Reach) -> None:
    """Refuse what the transaction would refuse, before a password is hashed for nothing."""
    if caller.is_user(user_id):
        return
    async with runtime.database.read() as session:
        if await queries.find_user(session, user_id, reach) is None:
            raise UserNotFound
        await roles.check_covered(session, caller, user_id)


async def held_user(
    session: AsyncSession, caller: Caller, user_id: UUID, reach: Reach, *, is_expected: Expected = any_version
) -> User:
    """The account, held against other writers, after all that may refuse the caller has had its say."""
    user = await queries.find_user_for_update(session, user_id, reach)
    if user is None and caller.is_user(user_id):
        raise PermissionMissing  # the caller's right does not reach their own account
    if user is None or user.deleted_at is not None:
        raise UserNotFound
    if not caller.is_user(user_id):
        await roles.check_covered(session, caller, user_id)
    if not is_expected(user.version):
        raise UserChanged
    return user


# What changes


def _refuse_own_name(runtime: Runtime, user: User, changes: Changes) -> None:
    """Refuse a new password that is a name of the account; names that come with it were looked at in the body."""
    names = [name for name in (user.username, user.email, user.display_name) if name]
    problem = runtime.password_policy.problem(changes["password"], names=names) if "password" in changes else None
    if problem is not None:
        raise ValidationFailed([FieldError(code=problem.code, detail=problem.detail, pointer="/password")])


def _columns(user: User, demand: Demand, new_hash: str | None, now: datetime) -> dict[str, Any]:
    """The columns whose values change, with their new values."""
    changes = demand.changes
    wanted: dict[str, Any] = {}
    if "username" in changes:
        wanted |= {"username": changes["username"], "username_key": username_key(changes["username"])}
    if "email" in changes:
        address = canonical_email(changes["email"])
        wanted |= {"email": address.address, "email_key": address.key}
        if address.key != user.email_key:
            wanted["email_verified_at"] = None
    if "display_name" in changes:
        name = changes["display_name"]
        wanted |= {"display_name": name, "display_name_key": prefix_key(name) if name else None}
    if "attributes" in changes:
        wanted["attributes"] = changes["attributes"]
    if demand.merge_attributes is not None:
        wanted["attributes"] = _bounded(demand.merge_attributes(user.attributes))
    if "status" in changes:
        wanted["status"] = changes["status"]
    if new_hash is not None:
        wanted |= {"password_hash": new_hash, "password_changed_at": now}
    return {column: value for column, value in wanted.items() if not _is_same(getattr(user, column), value)}


def _is_same(present: Any, wanted: Any) -> bool:
    """Whether a column keeps its value. Documents are compared as JSON: to Python 1, 1.0 and true are one value."""
    if isinstance(present, dict):
        return json.dumps(present, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    return bool(present == wanted)


def _bounded(attributes: dict[str, Any]) -> dict[str, Any]:
    """Refuse a merge that outgrew what an account may carry."""
    if are_attributes_too_long(attributes):
        raise ValidationFailed([_ATTRIBUTES_TOO_LONG])
    return attributes


async def write_version(session: AsyncSession, user: User, values: dict[str, Any], now: datetime) -> User:
    """Write columns and the next version, exchanging login names where they change."""
    before = login_names_of(user)
    updated = await queries.update_user(session, user.id, version=user.version, values={**values, "updated_at": now})
    if updated is None:
        raise UserChanged
    after = login_names_of(updated)
    for name in sorted(name for name, kind in before.items() if after.get(name) != kind):
        await queries.delete_login_name(session, name, user_id=user.id)
    taken = {name: kind for name, kind in after.items() if before.get(name) != kind}
    await take_names(session, user.id, taken)
    return updated


async def _follow_up(session: AsyncSession, caller: Caller, user: User, values: dict[str, Any], now: datetime) -> None:
    """End the sessions that the change ends, and record what was done."""
    disabled = values.get("status") == Status.DISABLED
    if disabled:
        await sessions.end_all_sessions(session, caller, user.id, at=now, reason=RevocationReason.USER_DISABLED)
    elif "password_hash" in values:
        own = caller.principal.session_id if caller.principal and caller.is_user(user.id) else None
        await sessions.end_all_sessions(
            session, caller, user.id, at=now, reason=RevocationReason.PASSWORD_CHANGED, keep=own
        )
    if "status" in values:
        event = Event.USER_DISABLED if disabled else Event.USER_ENABLED
        await audit.record(session, event, caller=caller, at=now, user_id=user.id)
    if "password_hash" in values:
        await audit.record(session, Event.PASSWORD_CHANGED, caller=caller, at=now, user_id=user.id)
    fields = sorted(values.keys() & _RECORDED_FIELDS)
    if fields:
        await audit.record(
            session, Event.USER_UPDATED, caller=caller, at=now, user_id=user.id, details={"fields": fields}
        )


async def _replace_roles(
    session: AsyncSession, caller: Caller, user_id: UUID, names: Sequence[str], now: datetime
) -> bool:
    """Make the roles held over everything exactly these; what is given and what is taken must be within reach.

    Whether anything changed.
    """
    held, wanted = set((await role_queries.list_role_names(session, [user_id]))[user_id]), set(names)
    await roles.check_grantable(session, caller, names)
    taken = await role_queries.find_roles(session, held - wanted)
    if not all(caller.covers(roles.rights_of(role)) for role in taken.values()):
        raise ExceedsOwnRights
    for role in sorted(wanted - held):
        await roles.grant_role(session, caller, user_id, role, at=now)
    for role in sorted(held - wanted):
        await roles.revoke_role(session, caller, user_id, role, at=now)
    return held != wanted


_RECORDED_FIELDS = frozenset({"username", "email", "display_name", "attributes"})
_ATTRIBUTES_TOO_LONG = FieldError(
    code="too_long",
    detail=f"The attributes would be longer than {MAX_ATTRIBUTES_BYTES} bytes of JSON.",
    pointer="/attributes",
)
