"""Defining roles, and giving and taking them inside the transactions of other use cases.

The rule that keeps anybody from climbing: nobody makes, changes, gives or takes a role that permits more than they
may do themselves.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.errors import Conflict, FieldError, Forbidden, NotFound, ValidationFailed
from usermgmt.permissions import BUILT_IN_ROLES, CONFINABLE, Permission, Rights
from usermgmt.roles import queries
from usermgmt.roles.models import Role, RolePermission
from usermgmt.roles.queries import RoleRecord
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.storage.inserts import insert_if_absent


class RoleNotFound(NotFound):
    """There is no role with this name."""

    code = "role_not_found"
    detail = "There is no such role."


class RoleNameTaken(Conflict):
    """A role with this name exists."""

    code = "role_name_taken"
    detail = "Another role has this name."


class RoleBuiltIn(Conflict):
    """Built-in roles stay as they are."""

    code = "role_built_in"
    detail = "A built-in role cannot be changed or deleted."


class RoleInUse(Conflict):
    """Somebody holds this role."""

    code = "role_in_use"
    detail = "Somebody holds this role. Take it away from them first."


class ExceedsOwnRights(Forbidden):
    """It would give or touch rights that the caller does not hold (nobody climbs)."""

    code = "exceeds_own_rights"
    detail = "This involves rights that you do not hold yourself."


async def list_roles(runtime: Runtime) -> list[RoleRecord]:
    """Every role, by name."""
    async with runtime.database.read() as session:
        return await queries.list_roles(session)


async def get_role(runtime: Runtime, name: str) -> RoleRecord:
    """One role, or `RoleNotFound`."""
    async with runtime.database.read() as session:
        role = await queries.find_role(session, name)
    if role is None:
        raise RoleNotFound
    return role


@repeated_on_conflict
async def create_role(
    runtime: Runtime, caller: Caller, *, name: str, description: str, permissions: frozenset[Permission]
) -> RoleRecord:
    """Define a role. Refused: `ExceedsOwnRights`, `RoleNameTaken`."""
    if not caller.covers(Rights(permissions=permissions)):
        raise ExceedsOwnRights
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        if not await queries.insert_role(session, name, description=description, built_in=False, at=now):
            raise RoleNameTaken
        await queries.replace_permissions(session, name, permissions)
        await _record(session, Event.ROLE_CREATED, name, caller=caller, at=now, permissions=permissions)
    return RoleRecord(name, description, built_in=False, permissions=permissions, created_at=now, updated_at=now)


@repeated_on_conflict
async def update_role(
    runtime: Runtime,
    caller: Caller,
    name: str,
    *,
    description: str | None = None,
    permissions: frozenset[Permission] | None = None,
) -> RoleRecord:
    """Change a role's description, its permissions, or both; holders have the new rights at their next request.

    Refused: `RoleNotFound`, `RoleBuiltIn`, `ExceedsOwnRights` (for what the role permits now as well as then).
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await queries.lock_admin_role(session)
        role = await queries.find_role(session, name)
        if role is None:
            raise RoleNotFound
        if role.built_in:
            raise RoleBuiltIn
        wanted = role.permissions if permissions is None else permissions
        if not caller.covers(Rights(permissions=role.permissions | wanted)):
            raise ExceedsOwnRights
        text = role.description if description is None else description
        await queries.update_role(session, name, description=text, at=now)
        await queries.replace_permissions(session, name, wanted)
        await _record(session, Event.ROLE_UPDATED, name, caller=caller, at=now, permissions=wanted)
    return replace(role, description=text, permissions=wanted, updated_at=now)


@repeated_on_conflict
async def delete_role(runtime: Runtime, caller: Caller, name: str) -> None:
    """Remove a role that nobody holds. Refused: `RoleNotFound`, `RoleBuiltIn`, `RoleInUse`, `ExceedsOwnRights`."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        role = await queries.find_role(session, name)
        if role is None:
            raise RoleNotFound
        if role.built_in:
            raise RoleBuiltIn
        if not caller.covers(Rights(permissions=role.permissions)):
            raise ExceedsOwnRights
        if name == runtime.settings.registration.default_role:
            raise RoleInUse("New accounts hold this role.")
        if not await queries.delete_role(session, name):
            raise RoleInUse
        await _record(session, Event.ROLE_DELETED, name, caller=caller, at=now, permissions=role.permissions)


async def check_grantable(session: AsyncSession, caller: Caller, names: Iterable[str]) -> None:
    """Refuse names of no role (422, at `/roles/<n>`) and roles that exceed the caller's own rights (403)."""
    wanted = list(names)
    known = await queries.find_roles(session, wanted)
    unknown = [
        FieldError(code="unknown_role", detail="There is no such role.", pointer=f"/roles/{index}")
        for index, name in enumerate(wanted)
        if name not in known
    ]
    if unknown:
        raise ValidationFailed(unknown)
    if not all(caller.covers(rights_of(role)) for role in known.values()):
        raise ExceedsOwnRights


async def check_covered(session: AsyncSession, caller: Caller, user_id: UUID) -> None:
    """Refuse, with `ExceedsOwnRights`, whoever does not hold every right that this account holds."""
    if not caller.covers(await queries.find_rights(session, user_id)):
        raise ExceedsOwnRights


def rights_of(role: RoleRecord, *, group: UUID | None = None) -> Rights:
    """What somebody may do who holds a role over everything, or over one group."""
    if group is None:
        return Rights(permissions=role.permissions)
    return Rights(within={group: role.permissions & CONFINABLE})


async def grant_role(
    session: AsyncSession, caller: Caller, user_id: UUID, role: str, *, at: datetime, group: UUID | None = None
) -> bool:
    """Give a role and record it; False when the user holds it already. The caller's right was checked before."""
    if not await queries.insert_grant(session, user_id, role, granted_by=caller.user_id, at=at, group=group):
        return False
    await _record_grant(session, Event.ROLE_GRANTED, caller, user_id, role, at=at, group=group)
    return True


async def revoke_role(
    session: AsyncSession, caller: Caller, user_id: UUID, role: str, *, at: datetime, group: UUID | None = None
) -> bool:
    """Take a role and record it; False when the user does not hold it. The caller's right was checked before."""
    if not await queries.delete_grant(session, user_id, role, group=group):
        return False
    await _record_grant(session, Event.ROLE_REVOKED, caller, user_id, role, at=at, group=group)
    return True


async def _record_grant(
    session: AsyncSession,
    event: Event,
    caller: Caller,
    user_id: UUID,
    role: str,
    *,
    at: datetime,
    group: UUID | None,
) -> None:
    details = {"role": role} if group is None else {"role": role, "group": str(group)}
    await audit.record(session, event, caller=caller, at=at, user_id=user_id, details=details)


async def synchronise_built_in_roles(connection: AsyncConnection) -> None:
    """Bring the built-in roles to what this release says they permit. Part of migrating; leaves the commit to it."""
    now = datetime.now(UTC)
    for role in BUILT_IN_ROLES:
        values = {
            "name": role.name,
            "description": role.description,
            "built_in": True,
            "created_at": now,
            "updated_at": now,
        }
        await insert_if_absent(connection, Role, values)
        wanted = {str(permission) for permission in role.permissions}
        await connection.execute(
            delete(RolePermission).where(RolePermission.role == role.name, RolePermission.permission.not_in(wanted))
        )
        for permission in sorted(wanted):
            await insert_if_absent(connection, RolePermission, {"role": role.name, "permission": permission})


async def _record(
    session: AsyncSession,
    event: Event,
    name: str,
    *,
    caller: Caller,
    at: datetime,
    permissions: frozenset[Permission],
) -> None:
    await audit.record(
        session,
        event,
        caller=caller,
        at=at,
        target=name,
        target_type=TargetType.ROLE,
        details={"permissions": sorted(permissions)},
    )
