"""An account as it is read by id and in lists: a row, and no object of the ORM."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from usermgmt.groups.reach import ids_of
from usermgmt.roles.held import role_names_of


class AccountRow(NamedTuple):
    """What is shown of an account, the keys it is sorted by, its roles over everything and its groups."""

    id: UUID
    username: str
    username_key: str
    email: str
    email_key: str
    display_name: str | None
    status: str
    attributes: dict[str, Any]
    email_verified_at: datetime | None
    created_at: datetime
    updated_at: datetime
    last_login_at: datetime | None
    version: int
    roles: Sequence[str]
    groups: Sequence[UUID]


COLUMNS = AccountRow._fields[:-2]
"""The names of the account's own columns. A statement reads these, then what `held_roles` and `held_groups` give."""


def account_row(read: Sequence[Any]) -> AccountRow:
    """The account of a row that such a statement read."""
    roles, groups = read[-2:]
    return AccountRow._make((*read[:-2], role_names_of(roles), ids_of(groups)))
