"""Confining a statement to the accounts that somebody's right reaches, in its WHERE clause and nowhere else."""

import functools
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, String, Uuid, cast, exists, false, func, literal, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from usermgmt.groups.models import GroupMember
from usermgmt.permissions import Reach
from usermgmt.storage.wanted import among_wanted


def is_within(user_id: InstrumentedAttribute[UUID] | ColumnElement[Any] | UUID, reach: Reach) -> ColumnElement[bool]:
    """Whether the account with this id, or the one in this column, is one that the reach includes.

    Give the id where it is known: a distributed database then knows which node to ask.
    """
    if reach.is_everyone:
        return true()
    if isinstance(user_id, UUID):
        user_id = literal(user_id, Uuid())
    conditions: list[ColumnElement[bool]] = []
    if reach.own is not None:
        conditions.append(user_id == reach.own)
    if reach.groups:
        conditions.append(is_member(user_id, *sorted(reach.groups)))
    return or_(false(), *conditions)


def is_member(user_id: InstrumentedAttribute[UUID] | ColumnElement[Any], *groups: UUID) -> ColumnElement[bool]:
    """Whether the account in this column is in one of the groups."""
    return exists().where(GroupMember.user_id == user_id, GroupMember.group_id.in_(groups))


def held_groups(
    user_id: InstrumentedAttribute[UUID] | ColumnElement[UUID], *, among: str | None = None
) -> ScalarSelect[str | None]:
    """The groups of the account in this column, for `ids_of`."""
    return (
        select(func.aggregate_strings(cast(GroupMember.group_id, String), ","))
        .where(GroupMember.user_id == user_id, *among_wanted(GroupMember.user_id, among))
        .scalar_subquery()
    )


@functools.lru_cache(4_096)
def ids_of(groups: str | None) -> tuple[UUID, ...]:
    """The ids in order."""
    return tuple(sorted(map(UUID, groups.split(",")))) if groups else ()
