"""Statements on groups and their members."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.groups.models import Group, GroupMember
from usermgmt.groups.reach import is_within
from usermgmt.permissions import Reach
from usermgmt.storage.inserts import insert_if_absent
from usermgmt.users.models import User

_GROUP_IDS = (  # written once: every sign-in and every account that is shown asks
    select(GroupMember.user_id, GroupMember.group_id)
    .where(GroupMember.user_id.in_(bindparam("user_ids", expanding=True)))
    .order_by(GroupMember.group_id)
)


async def list_groups(session: AsyncSession) -> Sequence[Group]:
    """Every group by name."""
    return (await session.scalars(select(Group).order_by(Group.name))).all()


async def count_members(session: AsyncSession, group_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many accounts are in each of these groups; deleted ones are not counted."""
    counted = await session.execute(
        select(GroupMember.group_id, func.count())
        .join(User, User.id == GroupMember.user_id)
        .where(GroupMember.group_id.in_(group_ids), User.deleted_at.is_(None))
        .group_by(GroupMember.group_id)
    )
    found = {row[0]: row[1] for row in counted}
    return {group_id: found.get(group_id, 0) for group_id in group_ids}


async def find_group(session: AsyncSession, group_id: UUID) -> Group | None:
    """One group."""
    return (await session.scalars(select(Group).where(Group.id == group_id))).one_or_none()


async def find_group_held(session: AsyncSession, group_id: UUID) -> Group | None:
    """One group, kept from being deleted until the transaction ends."""
    held = select(Group).where(Group.id == group_id).with_for_update(read=True, key_share=True)
    return (await session.scalars(held)).one_or_none()


async def insert_group(session: AsyncSession, group_id: UUID, *, name: str, description: str, at: datetime) -> bool:
    """Add a group; False when the name is taken."""
    values = {"id": group_id, "name": name, "description": description, "created_at": at, "updated_at": at}
    return await insert_if_absent(session, Group, values)


async def has_other_group(session: AsyncSession, name: str, *, than: UUID) -> bool:
    """Whether another group has this name."""
    found = select(exists().where(Group.name == name, Group.id != than))
    return bool((await session.execute(found)).scalar_one())


async def update_group(
    session: AsyncSession, group_id: UUID, *, name: str, description: str, at: datetime
) -> Group | None:
    """Set a group's name and description; None when there is none."""
    changed = await session.scalars(
        update(Group)
        .where(Group.id == group_id)
        .values(name=name, description=description, updated_at=at)
        .returning(Group)
        .execution_options(populate_existing=True)
    )
    return changed.one_or_none()


async def delete_group(session: AsyncSession, group_id: UUID) -> str | None:
    """Remove a group with its memberships; its name, or None when there was none."""
    return (await session.scalars(delete(Group).where(Group.id == group_id).returning(Group.name))).one_or_none()


async def insert_member(
    session: AsyncSession, user_id: UUID, group_id: UUID, *, added_by: UUID | None, at: datetime
) -> bool:
    """Put an account into a group; False when it is in it."""
    values = {"user_id": user_id, "group_id": group_id, "added_by": added_by, "added_at": at}
    return await insert_if_absent(session, GroupMember, values)


async def delete_member(session: AsyncSession, user_id: UUID, group_id: UUID) -> bool:
    """Take an account out of a group; False when it is not in it."""
    gone = await session.execute(
        delete(GroupMember)
        .where(GroupMember.user_id == user_id, GroupMember.group_id == group_id)
        .returning(GroupMember.user_id)
    )
    return gone.one_or_none() is not None


async def list_group_ids(session: AsyncSession, user_ids: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    """The groups of each of these accounts."""
    rows = await session.execute(_GROUP_IDS, {"user_ids": user_ids})
    groups: dict[UUID, list[UUID]] = {user_id: [] for user_id in user_ids}
    for user_id, group_id in rows:
        groups[user_id].append(group_id)
    return groups


async def has_user(session: AsyncSession, user_id: UUID, reach: Reach) -> bool:
    """Whether the account exists, is not deleted, and is within reach."""
    found = select(exists().where(User.id == user_id, User.deleted_at.is_(None), is_within(user_id, reach)))
    return bool((await session.execute(found)).scalar_one())


async def lock_user(session: AsyncSession, user_id: UUID) -> bool:
    """Keep an account from being deleted until the transaction ends; False when it is deleted or never was."""
    held = select(User.id).where(User.id == user_id, User.deleted_at.is_(None))
    found = await session.execute(held.with_for_update(read=True, key_share=False))
    return found.one_or_none() is not None
