"""Statements on IP rules."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.ip_rules.models import IpRule, IpRuleVersion
from usermgmt.users.models import User

ONLY_ROW = 1


async def list_rules(session: AsyncSession) -> Sequence[IpRule]:
    """Every rule, newest first."""
    return (await session.scalars(select(IpRule).order_by(IpRule.id.desc()))).all()


async def find_rule(session: AsyncSession, rule_id: UUID) -> IpRule | None:
    """One rule."""
    return (await session.scalars(select(IpRule).where(IpRule.id == rule_id))).one_or_none()


async def count_rules(session: AsyncSession) -> int:
    """How many rules there are."""
    return (await session.execute(select(func.count()).select_from(IpRule))).scalar_one()


async def insert_rule(session: AsyncSession, values: Mapping[str, Any]) -> IpRule:
    """Add a rule."""
    return (await session.scalars(insert(IpRule).values(**values).returning(IpRule))).one()


async def update_rule(session: AsyncSession, rule_id: UUID, values: Mapping[str, Any]) -> IpRule | None:
    """Set columns of a rule; None when there is none."""
    changed = await session.scalars(
        update(IpRule)
        .where(IpRule.id == rule_id)
        .values(**values)
        .returning(IpRule)
        .execution_options(populate_existing=True)
    )
    return changed.one_or_none()


async def update_modes(session: AsyncSession, *, before: str, after: str, at: datetime) -> Sequence[UUID]:
    """Change the mode of every rule that has another; which they were."""
    changed = await session.scalars(
        update(IpRule).where(IpRule.mode == before).values(mode=after, updated_at=at).returning(IpRule.id)
    )
    return changed.all()


async def update_hits(session: AsyncSession, hits: Mapping[UUID, int], *, at: datetime) -> None:
    """Add to the hit counts. Rules that are gone meanwhile are left out."""
    for rule_id in sorted(hits):
        await session.execute(
            update(IpRule).where(IpRule.id == rule_id).values(hits=IpRule.hits + hits[rule_id], last_hit_at=at)
        )


async def delete_rule(session: AsyncSession, rule_id: UUID) -> IpRule | None:
    """Remove a rule; what it was, or None when there was none."""
    gone = await session.scalars(delete(IpRule).where(IpRule.id == rule_id).returning(IpRule))
    return gone.one_or_none()


async def find_version(session: AsyncSession) -> int:
    """How often the rules have changed."""
    found = await session.execute(select(IpRuleVersion.version).where(IpRuleVersion.id == ONLY_ROW))
    return found.scalar_one_or_none() or 0


async def update_version(session: AsyncSession) -> None:
    """Count a change. It holds back every other change until the transaction ends."""
    await session.execute(
        update(IpRuleVersion).where(IpRuleVersion.id == ONLY_ROW).values(version=IpRuleVersion.version + 1)
    )


async def has_user(session: AsyncSession, user_id: UUID) -> bool:
    """Whether an account exists."""
    found = select(exists().where(User.id == user_id, User.deleted_at.is_(None)))
    return bool((await session.execute(found)).scalar_one())
