"""Reading accounts by id, many at a time: one statement, rows and no objects of the ORM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, Select, select

from usermgmt.groups.reach import held_groups, ids_of
from usermgmt.roles.held import held_roles, role_names_of
from usermgmt.storage.rows import Rows
from usermgmt.storage.wanted import DISTRIBUTED, is_wanted, kind_of, wanted, wanted_values
from usermgmt.users.models import User

HELD = ("roles", "groups")


@dataclass(frozen=True, slots=True)
class ReadUser:
    """An account as it was read, with the names of its roles over everything and the ids of its groups."""

    roles: Sequence[str]
    groups: Sequence[UUID]
    id: UUID
    username: str
    email: str
    display_name: str | None
    status: str
    attributes: dict[str, Any]
    email_verified_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    version: int


async def fetch_users(rows: Rows, user_ids: Sequence[UUID]) -> Mapping[UUID, ReadUser]:
    """Those of the accounts that exist and are not deleted."""
    kind = kind_of(rows.connection)
    values = wanted_values(kind, ("id",), [(user_id,) for user_id in user_ids])
    found = await rows.fetch(_statement(kind), values)
    read = [ReadUser(role_names_of(roles), ids_of(groups), *columns) for roles, groups, *columns in found]
    return {user.id: user for user in read}


@cache
def _statement(kind: str) -> Select[*tuple[Any, ...]]:
    if kind == DISTRIBUTED:
        found = _found(held_roles(User.id, among="id"), held_groups(User.id, among="id"))
        return found.where(is_wanted(User.id, "id"))
    keys = wanted(kind, "id")
    return _found(held_roles(User.id), held_groups(User.id)).join(keys, keys.c.id == User.id)


def _found(roles: ScalarSelect[str | None], groups: ScalarSelect[str | None]) -> Select[*tuple[Any, ...]]:
    columns = (getattr(User, field.name) for field in fields(ReadUser) if field.name not in HELD)
    return select(roles, groups, *columns).where(User.deleted_at.is_(None))
