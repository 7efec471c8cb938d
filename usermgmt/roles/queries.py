"""Statements on roles and grants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.permissions import ADMIN, CONFINABLE, EVERYTHING, Permission, Rights, known_permissions
from usermgmt.roles.held import held_grants, rights_of_grants
from usermgmt.roles.models import Role, RoleGrant, RolePermission
from usermgmt.storage.inserts import insert_if_absent

_ROLE_NAMES = (  # written once: every sign-in and every account that is shown asks
    select(RoleGrant.user_id, RoleGrant.role)
    .where(RoleGrant.user_id.in_(bindparam("user_ids", expanding=True)), RoleGrant.scope == EVERYTHING)
    .order_by(RoleGrant.role)
)


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role with what it permits."""

    name: str
    description: str
    built_in: bool
    permissions: frozenset[Permission]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that a user holds, over everything or over one group."""

    role: str
    group: UUID | None
    granted_by: UUID | None
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class ScopedRole:
    """A role that somebody holds over one group, and what it permits there."""

    user_id: UUID
    role: str
    permissions: frozenset[Permission]


async def lock_admin_role(session: AsyncSession) -> None:
    """Queue up behind every other transaction that could remove an admin. Must be a transaction's first statement.

    A conditional update alone is not enough under READ COMMITTED: each of two transactions would still see the other's
    admin. SQLite needs nothing here, its transactions are already one after the other.
    """
    await session.execute(select(Role.name).where(Role.name == ADMIN).with_for_update(key_share=True))


async def list_roles(session: AsyncSession) -> list[RoleRecord]:
    """Every role by name."""
    roles = (await session.scalars(select(Role).order_by(Role.name))).all()
    permissions = await _permissions_of(session, [role.name for role in roles])
    return [_record(role, permissions.get(role.name, ())) for role in roles]


async def find_role(session: AsyncSession, name: str) -> RoleRecord | None:
    """One role."""
    role = await session.get(Role, name)
    if role is None:
        return None
    return _record(role, (await _permissions_of(session, [name])).get(name, ()))


async def find_roles(session: AsyncSession, names: Iterable[str]) -> dict[str, RoleRecord]:
    """Those of the named roles that exist."""
    roles = (await session.scalars(select(Role).where(Role.name.in_(sorted(names))))).all()
    permissions = await _permissions_of(session, [role.name for role in roles])
    return {role.name: _record(role, permissions.get(role.name, ())) for role in roles}


async def insert_role(session: AsyncSession, name: str, *, description: str, built_in: bool, at: datetime) -> bool:
    """Add a role; False when the name is taken."""
    values = {"name": name, "description": description, "built_in": built_in, "created_at": at, "updated_at": at}
    return await insert_if_absent(session, Role, values)


async def update_role(session: AsyncSession, name: str, *, description: str, at: datetime) -> None:
    """Change a role's description."""
    await session.execute(update(Role).where(Role.name == name).values(description=description, updated_at=at))


async def replace_permissions(session: AsyncSession, name: str, permissions: Iterable[Permission]) -> None:
    """Set what a role permits."""
    await session.execute(delete(RolePermission).where(RolePermission.role == name))
    rows = [{"role": name, "permission": str(permission)} for permission in sorted(permissions)]
    if rows:
        await session.execute(insert(RolePermission), rows)


async def delete_role(session: AsyncSession, name: str) -> bool:
    """Remove an own role that nobody holds; False when there is none such, and then the transaction is over.

    That somebody holds it is for the foreign key to say: in a distributed database a table that is whole on every node
    cannot be changed by what is in one that is spread.
    """
    try:
        gone = await session.execute(
            delete(Role).where(Role.name == name, Role.built_in.is_(False)).returning(Role.name)
        )
    except IntegrityError:
        return False
    return gone.one_or_none() is not None


async def count_holders(session: AsyncSession, name: str) -> int:
    """How many users hold a role."""
    held = select(func.count(func.distinct(RoleGrant.user_id))).where(RoleGrant.role == name)
    return (await session.execute(held)).scalar_one()


async def insert_grant(
    session: AsyncSession,
    user_id: UUID,
    role: str,
    *,
    granted_by: UUID | None,
    at: datetime,
    group: UUID | None = None,
) -> bool:
    """Give a role over everything, or over one group; False when the user holds it already."""
    values = {
        "user_id": user_id,
        "role": role,
        "scope": scope_of(group),
        "granted_by": granted_by,
        "granted_at": at,
    }
    return await insert_if_absent(session, RoleGrant, values)


async def delete_grant(session: AsyncSession, user_id: UUID, role: str, *, group: UUID | None = None) -> bool:
    """Take a role away; False when the user does not hold it over this very scope."""
    gone = await session.execute(
        delete(RoleGrant)
        .where(RoleGrant.user_id == user_id, RoleGrant.role == role, RoleGrant.scope == scope_of(group))
        .returning(RoleGrant.role)
    )
    return gone.one_or_none() is not None


async def delete_grants_over(session: AsyncSession, group: UUID) -> Sequence[UUID]:
    """Take away every role that is held over a group; who held one."""
    gone = await session.scalars(delete(RoleGrant).where(*_is_over(group)).returning(RoleGrant.user_id))
    return sorted(set(gone.all()))


async def list_grants(session: AsyncSession, user_id: UUID) -> list[Grant]:
    """Every role that a user holds, those over everything first."""
    rows = await session.scalars(
        select(RoleGrant).where(RoleGrant.user_id == user_id).order_by(RoleGrant.scope, RoleGrant.role)
    )
    return [
        Grant(row.role, None if row.scope == EVERYTHING else UUID(row.scope), row.granted_by, row.granted_at)
        for row in rows
    ]


async def list_roles_over(session: AsyncSession, group: UUID) -> list[ScopedRole]:
    """Every role that somebody holds over a group."""
    rows = await session.execute(
        select(RoleGrant.user_id, RoleGrant.role, RolePermission.permission)
        .outerjoin(RolePermission, RolePermission.role == RoleGrant.role)
        .where(*_is_over(group))
    )
    held: dict[tuple[UUID, str], list[str]] = {}
    for user_id, role, permission in rows:
        held.setdefault((user_id, role), []).append(permission)
    return [ScopedRole(who, role, known_permissions(names) & CONFINABLE) for (who, role), names in held.items()]


async def list_role_names(session: AsyncSession, user_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The roles of each of these users, by name."""
    rows = await session.execute(_ROLE_NAMES, {"user_ids": user_ids})
    names: dict[UUID, list[str]] = {user_id: [] for user_id in user_ids}
    for user_id, role in rows:
        names[user_id].append(role)
    return names


async def find_rights(session: AsyncSession, user_id: UUID) -> Rights:
    """What a user may do. A role over a group permits there what is about accounts, and nothing else."""
    return rights_of_grants((await session.execute(select(held_grants(user_id)))).scalar_one())


def scope_of(group: UUID | None) -> str:
    """The scope of a grant as it is stored."""
    return EVERYTHING if group is None else str(group)


def _is_over(group: UUID) -> tuple[ColumnElement[bool], ...]:
    """Grants over one group. That they are not over everything is said in the text: their index has no others."""
    return RoleGrant.scope == str(group), RoleGrant.scope != literal(EVERYTHING, literal_execute=True)


async def _permissions_of(session: AsyncSession, names: Sequence[str]) -> Mapping[str, list[str]]:
    rows = await session.execute(
        select(RolePermission.role, RolePermission.permission).where(RolePermission.role.in_(names))
    )
    permissions: dict[str, list[str]] = {}
    for role, permission in rows:
        permissions.setdefault(role, []).append(permission)
    return permissions


def _record(role: Role, permissions: Iterable[str]) -> RoleRecord:
    return RoleRecord(
        name=role.name,
        description=role.description,
        built_in=role.built_in,
        permissions=known_permissions(permissions),
        created_at=role.created_at,
        updated_at=role.updated_at,
    )
