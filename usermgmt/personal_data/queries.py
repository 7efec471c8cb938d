"""Statements on everything that is held about one account."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.groups.models import Group, GroupMember
from usermgmt.idempotency.models import IdempotencyKey
from usermgmt.sessions.models import Session
from usermgmt.users.models import LoginName, User


async def list_sessions(session: AsyncSession, user_id: UUID) -> Sequence[Session]:
    """Every session that is on record, ended ones included, oldest first."""
    return (await session.scalars(select(Session).where(Session.user_id == user_id).order_by(Session.id))).all()


async def list_groups(session: AsyncSession, user_id: UUID) -> Sequence[Group]:
    """The groups that an account is in."""
    statement = select(Group).join(GroupMember, GroupMember.group_id == Group.id).where(GroupMember.user_id == user_id)
    return (await session.scalars(statement.order_by(Group.name))).all()


async def list_due(session: AsyncSession, *, before: datetime, limit: int) -> Sequence[UUID]:
    """Accounts that were deleted before a time, those of longest ago first."""
    statement = select(User.id).where(User.deleted_at < before).order_by(User.deleted_at).limit(limit)
    return (await session.scalars(statement)).all()


async def delete_account(session: AsyncSession, user: User) -> None:
    """Remove an account with all that is keyed by it, and free its names."""
    names = {user.username_key, user.email_key}
    await session.execute(delete(LoginName).where(LoginName.name.in_(sorted(names)), LoginName.user_id == user.id))
    await session.execute(delete(User).where(User.id == user.id))


async def delete_stored_answers(session: AsyncSession, user_id: UUID) -> None:
    """Forget the stored answers that were given to an account, or that tell of it."""
    told = IdempotencyKey.body.contains(str(user_id), autoescape=True)
    await session.execute(delete(IdempotencyKey).where((IdempotencyKey.asker == f"user:{user_id}") | told))
