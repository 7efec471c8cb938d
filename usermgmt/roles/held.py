"""What an account holds, as columns of a statement on accounts: one statement reads it together with the rest."""

import functools
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, func, select
from sqlalchemy.orm import InstrumentedAttribute

from usermgmt.permissions import CONFINABLE, EVERYTHING, Rights, known_permissions
from usermgmt.roles.models import RoleGrant, RolePermission
from usermgmt.storage.wanted import among_wanted

ROW, PART = ",", " "  # neither is in the name of a role, a permission or a scope
REMEMBERED = 4_096


def held_grants(user_id: InstrumentedAttribute[UUID] | UUID, *, among: str | None = None) -> ScalarSelect[str | None]:
    """Each grant of the account with each permission of its role, for `rights_of_grants`; None where there is no grant.

    `among` names the wanted values that the account is one of, which a distributed database must be told again.
    """
    permission = func.coalesce(RolePermission.permission, "")
    row: ColumnElement[str] = RoleGrant.scope + PART + RoleGrant.role + PART + permission
    return (
        select(func.aggregate_strings(row, ROW))
        .select_from(RoleGrant)
        .outerjoin(RolePermission, RolePermission.role == RoleGrant.role)
        .where(RoleGrant.user_id == user_id, *among_wanted(RoleGrant.user_id, among))
        .scalar_subquery()
    )


def held_roles(
    user_id: InstrumentedAttribute[UUID] | ColumnElement[UUID], *, among: str | None = None
) -> ScalarSelect[str | None]:
    """The names of the roles that the account holds over everything, for `role_names_of`."""
    # the scope is not a condition of the rows: for two conditions PostgreSQL 18 would skip through the holders' index
    names = func.aggregate_strings(RoleGrant.role, ROW).filter(RoleGrant.scope == EVERYTHING)
    return select(names).where(RoleGrant.user_id == user_id, *among_wanted(RoleGrant.user_id, among)).scalar_subquery()


@functools.lru_cache(REMEMBERED)
def rights_of_grants(grants: str | None) -> Rights:
    """What these grants permit. A role over a group permits there what is about accounts, and nothing else."""
    roles, permitted = set[str](), dict[str, list[str]]()
    for row in grants.split(ROW) if grants else ():
        scope, role, permission = row.split(PART)
        if scope == EVERYTHING:
            roles.add(role)
        permitted.setdefault(scope, []).append(permission)
    everywhere = known_permissions(permitted.pop(EVERYTHING, ()))
    within = {UUID(scope): known_permissions(names) & CONFINABLE for scope, names in permitted.items()}
    return Rights(frozenset(roles), everywhere, within)


@functools.lru_cache(REMEMBERED)
def role_names_of(roles: str | None) -> tuple[str, ...]:
    """The names in order."""
    return tuple(sorted(roles.split(ROW))) if roles else ()
