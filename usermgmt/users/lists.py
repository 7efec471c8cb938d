"""The list of accounts: its filters, its orders, its pages, its count."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.groups.reach import is_member, is_within
from usermgmt.permissions import EVERYONE, EVERYTHING, Reach
from usermgmt.roles.models import RoleGrant
from usermgmt.storage.explain import estimate_rows
from usermgmt.storage.pages import Position, Sort, page_statement
from usermgmt.users.models import Status, User

LAST_CHARACTER = "\U0010ffff"


class Order(StrEnum):
    """The orders a list can have; each stands on an index."""

    CREATED = "created_at"
    CREATED_DOWN = "-created_at"
    USERNAME = "username"
    USERNAME_DOWN = "-username"
    EMAIL = "email"
    EMAIL_DOWN = "-email"


SORTS: dict[Order, Sort] = {
    Order.CREATED: Sort(User.created_at, User.id),
    Order.CREATED_DOWN: Sort(User.created_at, User.id, descending=True),
    Order.USERNAME: Sort(User.username_key, User.id),
    Order.USERNAME_DOWN: Sort(User.username_key, User.id, descending=True),
    Order.EMAIL: Sort(User.email_key, User.id),
    Order.EMAIL_DOWN: Sort(User.email_key, User.id, descending=True),
}


class Count(StrEnum):
    """How the whole list is counted."""

    NONE = "none"
    ESTIMATED = "estimated"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which accounts; all given conditions hold together. Texts are canonical keys."""

    prefix: str | None = None
    email_key: str | None = None
    username_key: str | None = None
    status: Status | None = None
    role: str | None = None
    group: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    reach: Reach = EVERYONE


async def list_page(
    session: AsyncSession, filters: Filters, *, order: Order, position: Position | None, limit: int
) -> Sequence[User]:
    """Up to `limit` + 1 accounts from `position`."""
    statement = page_statement(_filtered(select(User), filters), SORTS[order], position, limit)
    return (await session.scalars(statement)).all()


async def count_users(session: AsyncSession, filters: Filters) -> int:
    """How many accounts there are."""
    counted: int = (await session.execute(_filtered(select(func.count()).select_from(User), filters))).scalar_one()
    return counted


async def estimate_users(session: AsyncSession, filters: Filters) -> int:
    """About how many, from the planner's statistics, without touching the rows. PostgreSQL only."""
    return await estimate_rows(session, _filtered(select(User.id), filters))


def sort_value(user: User, order: Order) -> str | datetime:
    """The value by which a list in this order sorts an account."""
    value: str | datetime = getattr(user, SORTS[order].column.key)
    return value


def _filtered(statement: Select[Any], filters: Filters) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = [User.deleted_at.is_(None)]
    if not filters.reach.is_everyone:
        conditions.append(is_within(User.id, filters.reach))
    if filters.group is not None:
        conditions.append(is_member(User.id, filters.group))
    if filters.prefix is not None:
        conditions.append(or_(*(_starts_with(column, filters.prefix) for column in _SEARCHED)))
    if filters.email_key is not None:
        conditions.append(User.email_key == filters.email_key)
    if filters.username_key is not None:
        conditions.append(User.username_key == filters.username_key)
    if filters.status is not None:
        conditions.append(User.status == filters.status)
    if filters.role is not None:
        held = exists().where(
            RoleGrant.user_id == User.id, RoleGrant.role == filters.role, RoleGrant.scope == EVERYTHING
        )
        conditions.append(held)
    if filters.created_after is not None:
        conditions.append(User.created_at > filters.created_after)
    if filters.created_before is not None:
        conditions.append(User.created_at < filters.created_before)
    return statement.where(*conditions)


_SEARCHED = (User.username_key, User.email_key, User.display_name_key)


def _starts_with(column: Any, prefix: str) -> ColumnElement[bool]:  # SQLAlchemy's attribute type varies with the column
    """A prefix as a range of the index; `%` and `_` mean themselves."""
    within: ColumnElement[bool] = column.between(prefix, prefix + LAST_CHARACTER)
    return within
