"""Groups, who is in them, and what that lets others do.

Whoever puts an account into a group gives it into the hands of those who hold a role over that group. So they need
those rights over the account themselves: nobody climbs by moving others within their reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.errors import Conflict, NotFound, UserNotFound
from usermgmt.groups import queries
from usermgmt.groups.models import Group
from usermgmt.identifiers import new_id
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.roles.service import ExceedsOwnRights
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.storage.faults import repeated_on_conflict


class GroupNotFound(NotFound):
    """There is no such group."""

    code = "group_not_found"
    detail = "There is no such group."


class GroupNameTaken(Conflict):
    """Another group has this name."""

    code = "group_name_taken"
    detail = "Another group has this name."


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group, and how many accounts are in it."""

    group: Group
    members: int


async def list_groups(runtime: Runtime) -> list[GroupView]:
    """Every group, by name."""
    async with runtime.database.read() as session:
        groups = await queries.list_groups(session)
        counts = await queries.count_members(session, [group.id for group in groups])
    return [GroupView(group, counts[group.id]) for group in groups]


async def get_group(runtime: Runtime, group_id: UUID) -> GroupView:
    """One group, or `GroupNotFound`."""
    async with runtime.database.read() as session:
        group = await queries.find_group(session, group_id)
        if group is None:
            raise GroupNotFound
        return await _view_of(session, group)


@repeated_on_conflict
async def create_group(runtime: Runtime, caller: Caller, *, name: str, description: str) -> GroupView:
    """Make an empty group. Refused: `GroupNameTaken`."""
    now, group_id = runtime.clock.now(), new_id()
    async with runtime.database.begin() as session:
        if not await queries.insert_group(session, group_id, name=name, description=description, at=now):
            raise GroupNameTaken
        await _record(session, Event.GROUP_CREATED, group_id, caller=caller, at=now, details={"name": name})
    return GroupView(Group(id=group_id, name=name, description=description, created_at=now, updated_at=now), 0)


@repeated_on_conflict
async def update_group(
    runtime: Runtime, caller: Caller, group_id: UUID, *, name: str | None = None, description: str | None = None
) -> GroupView:
    """Change a group's name, its description, or both. Refused: `GroupNotFound`, `GroupNameTaken`."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        group = await queries.find_group(session, group_id)
        if group is None:
            raise GroupNotFound
        wanted = group.name if name is None else name
        if await queries.has_other_group(session, wanted, than=group_id):
            raise GroupNameTaken
        text = group.description if description is None else description
        updated = await queries.update_group(session, group_id, name=wanted, description=text, at=now)
        if updated is None:
            raise GroupNotFound
        await _record(session, Event.GROUP_UPDATED, group_id, caller=caller, at=now, details={"name": wanted})
        return await _view_of(session, updated)


@repeated_on_conflict
async def delete_group(runtime: Runtime, caller: Caller, group_id: UUID) -> None:
    """Remove a group; its members stay as they are, the roles that were held over it are gone. Refused:
    `GroupNotFound`, `ExceedsOwnRights` (taking such a role away is as much as giving it).
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        name = await queries.delete_group(session, group_id)
        if name is None:
            raise GroupNotFound
        await _refuse_exceeding(session, caller, group_id, [])  # after it, as a distributed database wants
        holders = await role_queries.delete_grants_over(session, group_id)
        await _record(
            session,
            Event.GROUP_DELETED,
            group_id,
            caller=caller,
            at=now,
            details={"name": name, "roles_taken_from": [str(user_id) for user_id in holders[:50]]},
        )


@repeated_on_conflict
async def add_member(runtime: Runtime, caller: Caller, group_id: UUID, user_id: UUID) -> None:
    """Put an account into a group; does nothing when it is in it. Refused: `GroupNotFound`, `UserNotFound`,
    `ExceedsOwnRights`.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await _held(session, group_id, user_id)
        in_groups = (await queries.list_group_ids(session, [user_id]))[user_id]
        await _refuse_exceeding(session, caller, group_id, in_groups)
        if not await queries.insert_member(session, user_id, group_id, added_by=caller.user_id, at=now):
            return
        await _record_member(session, Event.GROUP_MEMBER_ADDED, runtime, caller, group_id, user_id)


@repeated_on_conflict
async def remove_member(runtime: Runtime, caller: Caller, group_id: UUID, user_id: UUID) -> None:
    """Take an account out of a group; does nothing when it is not in it. Refused: `GroupNotFound`, `UserNotFound`."""
    async with runtime.database.begin() as session:
        await _held(session, group_id, user_id)
        if not await queries.delete_member(session, user_id, group_id):
            return
        await _record_member(session, Event.GROUP_MEMBER_REMOVED, runtime, caller, group_id, user_id)


async def find_group_held(session: AsyncSession, group_id: UUID) -> Group:
    """One group that stays until the transaction ends, or `GroupNotFound`."""
    group = await queries.find_group_held(session, group_id)
    if group is None:
        raise GroupNotFound
    return group


async def check_user_within(session: AsyncSession, caller: Caller, user_id: UUID, permission: Permission) -> None:
    """Refuse, with `UserNotFound`, an account that is not the caller's own and that the permission does not reach."""
    if not await queries.has_user(session, user_id, caller.reach(permission, or_own=True)):
        raise UserNotFound


async def _held(session: AsyncSession, group_id: UUID, user_id: UUID) -> None:
    await find_group_held(session, group_id)
    if not await queries.lock_user(session, user_id):
        raise UserNotFound


async def _refuse_exceeding(session: AsyncSession, caller: Caller, group_id: UUID, in_groups: Sequence[UUID]) -> None:
    """Refuse unless the caller holds, over an account in `in_groups`, all that others hold over the group."""
    held_by_others = {
        right for scoped in await role_queries.list_roles_over(session, group_id) for right in scoped.permissions
    }
    own = caller.rights.permissions.union(*(caller.rights.over(group) for group in in_groups))
    if not held_by_others <= own:
        raise ExceedsOwnRights


async def _view_of(session: AsyncSession, group: Group) -> GroupView:
    return GroupView(group, (await queries.count_members(session, [group.id]))[group.id])


async def _record(
    session: AsyncSession, event: Event, group_id: UUID, *, caller: Caller, at: datetime, details: dict[str, Any]
) -> None:
    await audit.record(
        session,
        event,
        caller=caller,
        at=at,
        target=str(group_id),
        target_type=TargetType.GROUP,
        details=details,
    )


async def _record_member(
    session: AsyncSession, event: Event, runtime: Runtime, caller: Caller, group_id: UUID, user_id: UUID
) -> None:
    now = runtime.clock.now()
    await audit.record(session, event, caller=caller, at=now, user_id=user_id, details={"group": str(group_id)})
