"""Accounts: the roles they hold, over everything or over a group.

Whoever gives or takes a role must hold every right of it and of the account; and one active admin stays.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.errors import PermissionMissing
from usermgmt.groups import service as groups
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.roles import service as roles
from usermgmt.roles.queries import Grant
from usermgmt.roles.service import ExceedsOwnRights
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.users.changes import held_user, write_version
from usermgmt.users.models import User
from usermgmt.users.service import admin_kept


@repeated_on_conflict
async def grant_role(runtime: Runtime, caller: Caller, user_id: UUID, role: str, *, group: UUID | None = None) -> None:
    """Give a role over everything, or over one group; does nothing when it is held.

    Refused: `PermissionMissing`, `GroupNotFound`, `UserNotFound`, `RoleNotFound`, `ExceedsOwnRights`.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        user = await _held_with_role(session, caller, user_id, role, group)
        if await roles.grant_role(session, caller, user_id, role, at=now, group=group):
            await write_version(session, user, {}, now)


@repeated_on_conflict
async def revoke_role(runtime: Runtime, caller: Caller, user_id: UUID, role: str, *, group: UUID | None = None) -> None:
    """Take a role away, over everything or over one group; does nothing when it is not held.

    Refused: `PermissionMissing`, `GroupNotFound`, `UserNotFound`, `RoleNotFound`, `ExceedsOwnRights`, `LastAdmin`.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session, admin_kept(session, needed=group is None):
        user = await _held_with_role(session, caller, user_id, role, group)
        if await roles.revoke_role(session, caller, user_id, role, at=now, group=group):
            await write_version(session, user, {}, now)


async def list_grants(runtime: Runtime, caller: Caller, user_id: UUID) -> list[Grant]:
    """Every role of one's own account, or of one that `roles:grant` reaches; else `UserNotFound`."""
    async with runtime.database.read() as session:
        await groups.check_user_within(session, caller, user_id, Permission.ROLES_GRANT)
        return await role_queries.list_grants(session, user_id)


async def _held_with_role(session: AsyncSession, caller: Caller, user_id: UUID, role: str, group: UUID | None) -> User:
    """The account, held, once the role and the group exist and neither the role nor the account exceeds the caller."""
    reach = caller.reach(Permission.ROLES_GRANT)
    if not reach.is_everyone and group not in reach.groups:
        raise PermissionMissing
    if group is not None:
        await groups.find_group_held(session, group)
    record = await role_queries.find_role(session, role)
    if record is None:
        raise roles.RoleNotFound
    if not caller.covers(roles.rights_of(record, group=group)):
        raise ExceedsOwnRights
    return await held_user(session, caller, user_id, reach)
