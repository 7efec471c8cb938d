"""Statements on accounts and login names. A deleted account is in none of their answers unless it says so."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.groups.reach import is_within
from usermgmt.permissions import ADMIN, EVERYONE, EVERYTHING, Reach
from usermgmt.roles.models import RoleGrant
from usermgmt.storage.inserts import insert_if_absent
from usermgmt.users.models import LoginName, NameKind, Status, User

_TABLE = cast("Table", User.__table__)
# Those of a sign-in are written once: that costs more than running them.
_BY_NAME = select(LoginName).where(LoginName.name == bindparam("name"))
_TAKEN = select(LoginName.name).where(LoginName.name.in_(bindparam("names", expanding=True)))
_BY_ID = select(User).where(User.id == bindparam("id"), User.deleted_at.is_(None))
_NOTE_LOGIN = (
    update(_TABLE)
    .where(
        _TABLE.c.id == bindparam("of_id"),
        _TABLE.c.status == Status.ACTIVE,
        _TABLE.c.deleted_at.is_(None),
        _TABLE.c.password_changed_at.is_not_distinct_from(bindparam("seen")),
    )
    .values(last_login_at=bindparam("at"))
    .returning(_TABLE.c.id)
)

STORED_PASSWORDS = select(func.count()).where(User.password_hash.startswith(bindparam("prefix"), autoescape=False))
"""How many accounts have a password that is stored with a beginning; it reads all of them."""


async def find_login_name(session: AsyncSession, name: str) -> LoginName | None:
    """Whose name this is, if anybody's; reserved names of deleted accounts included."""
    return (await session.scalars(_BY_NAME, {"name": name})).one_or_none()


async def list_taken_names(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """Those of the names that lead to an account."""
    return set((await session.scalars(_TAKEN, {"names": names})).all())


async def insert_login_name(session: AsyncSession, name: str, *, kind: NameKind, user_id: UUID) -> bool:
    """Take a name; False when it is taken. Take several in sorted order, or two registrations can deadlock."""
    return await insert_if_absent(session, LoginName, {"name": name, "kind": kind, "user_id": user_id})


async def delete_login_name(session: AsyncSession, name: str, *, user_id: UUID) -> None:
    """Give a name up."""
    await session.execute(delete(LoginName).where(LoginName.name == name, LoginName.user_id == user_id))


async def list_password_hashes(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """What is stored for the passwords of these accounts."""
    found = await session.execute(select(User.id, User.password_hash).where(User.id.in_(ids)))
    return {user_id: stored for user_id, stored in found}  # noqa: C416 - rows are no pairs to the type checker


async def find_user(session: AsyncSession, user_id: UUID, reach: Reach = EVERYONE) -> User | None:
    """One account, if it is within reach."""
    statement = _BY_ID if reach.is_everyone else _BY_ID.where(is_within(user_id, reach))
    return (await session.scalars(statement, {"id": user_id})).one_or_none()


async def find_user_for_update(session: AsyncSession, user_id: UUID, reach: Reach = EVERYONE) -> User | None:
    """One account within reach, deleted ones included, held until the transaction ends so that nothing changes it
    meanwhile.
    """
    held = select(User).where(User.id == user_id, is_within(user_id, reach)).with_for_update(key_share=True)
    return (await session.scalars(held.execution_options(populate_existing=True))).one_or_none()


async def insert_user(session: AsyncSession, user: User) -> None:
    """Add an account."""
    session.add(user)
    await session.flush()


async def update_user(session: AsyncSession, user_id: UUID, *, version: int, values: Mapping[str, Any]) -> User | None:
    """Set the given columns and count the version up; None unless the account still has `version`."""
    changed = await session.scalars(
        update(User)
        .where(User.id == user_id, User.version == version)
        .values(**values, version=version + 1)
        .returning(User)
        .execution_options(populate_existing=True)
    )
    return changed.one_or_none()


async def update_last_login(
    session: AsyncSession, user_id: UUID, *, password_changed_at: datetime | None, now: datetime
) -> bool:
    """Note a sign-in; False when the account was disabled, deleted or given another password since it was read."""
    noted = await session.execute(_NOTE_LOGIN, {"of_id": user_id, "seen": password_changed_at, "at": now})
    return noted.one_or_none() is not None


async def update_password_hash(session: AsyncSession, user_id: UUID, *, seen: str, stored: str) -> bool:
    """Replace an outdated hash of the same password; False when somebody did so before, or changed the password."""
    replaced = await session.execute(
        update(User)
        .where(User.id == user_id, User.password_hash == seen)
        .values(password_hash=stored)
        .returning(User.id)
    )
    return replaced.one_or_none() is not None


async def has_active_admin(session: AsyncSession) -> bool:
    """Whether an account that may sign in holds the admin role. Take `lock_admin_role` first when it matters."""
    held = (
        select(RoleGrant.user_id)
        .join(User, User.id == RoleGrant.user_id)
        .where(
            RoleGrant.role == ADMIN,
            RoleGrant.scope == EVERYTHING,
            User.status == Status.ACTIVE,
            User.deleted_at.is_(None),
        )
    )
    return bool((await session.execute(select(exists(held)))).scalar_one())
