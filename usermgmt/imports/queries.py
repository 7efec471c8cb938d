"""Statements of imports: what is there already, and many accounts at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, String, any_, bindparam, select, union
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit.models import AuditEvent
from usermgmt.groups.models import GroupMember
from usermgmt.imports.rows import Row
from usermgmt.permissions import EVERYTHING
from usermgmt.roles.models import RoleGrant
from usermgmt.storage.bulk import writer_of
from usermgmt.users.models import LoginName, NameKind, User

LOGIN_NAMES = ("name", "kind", "user_id")
GRANTS = ("user_id", "role", "scope", "granted_by", "granted_at")
MEMBERS = ("user_id", "group_id", "added_by", "added_at")
USERS = (
    "id",
    "username",
    "username_key",
    "email",
    "email_key",
    "display_name",
    "display_name_key",
    "password_hash",
    "status",
    "email_verified_at",
    "attributes",
    "version",
    "created_at",
    "updated_at",
    "password_changed_at",
    "last_login_at",
)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A row that is to become an account: with its id, its groups' ids and its roles."""

    user_id: UUID
    row: Row
    stored_hash: str | None
    roles: Sequence[str]
    groups: Sequence[UUID]


async def list_owners(session: AsyncSession, names: Sequence[str]) -> dict[str, UUID]:
    """Whose the names are that lead to an account."""
    is_one: ColumnElement[bool] = LoginName.name.in_(names)
    if session.get_bind().dialect.name == "postgresql":  # one value for all: the statement is compiled and planned once
        is_one = LoginName.name == any_(bindparam("names", list(names), type_=ARRAY(String(collation="C"))))
    found = await session.execute(select(LoginName.name, LoginName.user_id).where(is_one))
    return {name: user_id for name, user_id in found}  # noqa: C416 - rows are no pairs to the type checker


async def list_known_ids(session: AsyncSession, ids: Sequence[UUID], *, with_erased: bool) -> set[UUID]:
    """Those of the ids that an account has, deleted ones included; `with_erased` also those that one had before it was
    erased, since its record is kept.
    """
    if not ids:
        return set()
    has = select(User.id).where(User.id.in_(ids))
    had = select(AuditEvent.owner_id).where(AuditEvent.owner_id.in_(ids))
    return set((await session.scalars(union(has, had) if with_erased else has)).all())


async def insert_accounts(
    session: AsyncSession, accounts: Sequence[NewAccount], *, added_by: UUID | None, at: datetime
) -> None:
    """Add accounts with their names, roles and groups. Raises `RepeatableConflict` when a name or an id is taken."""
    writer = await writer_of(session)
    names = writer.bind_rows(LoginName, LOGIN_NAMES, _login_names(accounts))
    await writer.write(LoginName, LOGIN_NAMES, names)
    users = ((each.user_id, *_columns(each, at)) for each in accounts)
    await writer.write(User, USERS, writer.bind_rows(User, USERS, users))
    grants = ((each.user_id, role, EVERYTHING, added_by, at) for each in accounts for role in each.roles)
    await writer.write(RoleGrant, GRANTS, writer.bind_rows(RoleGrant, GRANTS, grants))
    members = [(each.user_id, group, added_by, at) for each in accounts for group in each.groups]
    if members:
        await writer.write(GroupMember, MEMBERS, writer.bind_rows(GroupMember, MEMBERS, members))


def _login_names(accounts: Iterable[NewAccount]) -> Iterable[tuple[str, str, UUID]]:
    for each in accounts:
        yield each.row.email_key, str(NameKind.EMAIL), each.user_id
        if each.row.username_key != each.row.email_key:
            yield each.row.username_key, str(NameKind.USERNAME), each.user_id


def _columns(account: NewAccount, at: datetime) -> tuple[object, ...]:
    """The values of `USERS` behind the id."""
    row = account.row
    created_at = row.created_at or at
    return (
        row.username,
        row.username_key,
        row.email,
        row.email_key,
        row.display_name,
        row.display_name_key,
        account.stored_hash,
        str(row.status),
        created_at if row.is_email_verified else None,
        row.attributes or {},
        1,
        created_at,
        created_at,
        created_at if account.stored_hash is not None else None,
        row.last_login_at,
    )
