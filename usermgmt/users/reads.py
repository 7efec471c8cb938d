"""Reading accounts by id, many at a time: one statement, rows and no objects of the ORM."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, Select, select

from usermgmt.groups.reach import held_groups
from usermgmt.roles.held import held_roles
from usermgmt.storage.rows import Rows
from usermgmt.storage.wanted import DISTRIBUTED, is_wanted, kind_of, wanted, wanted_values
from usermgmt.users.models import User
from usermgmt.users.rows import COLUMNS, AccountRow, account_row


async def fetch_users(rows: Rows, user_ids: Sequence[UUID]) -> Mapping[UUID, AccountRow]:
    """Those of the accounts that exist and are not deleted."""
    kind = kind_of(rows.connection)
    values = wanted_values(kind, ("id",), [(user_id,) for user_id in user_ids])
    found = await rows.fetch(_statement(kind), values)
    read = map(account_row, found)
    return {user.id: user for user in read}


@cache
def _statement(kind: str) -> Select[*tuple[Any, ...]]:
    if kind == DISTRIBUTED:
        found = _found(held_roles(User.id, among="id"), held_groups(User.id, among="id"))
        return found.where(is_wanted(User.id, "id"))
    keys = wanted(kind, "id")
    return _found(held_roles(User.id), held_groups(User.id)).join(keys, keys.c.id == User.id)


def _found(roles: ScalarSelect[str | None], groups: ScalarSelect[str | None]) -> Select[*tuple[Any, ...]]:
    return select(*(getattr(User, name) for name in COLUMNS), roles, groups).where(User.deleted_at.is_(None))
