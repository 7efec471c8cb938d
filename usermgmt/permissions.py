"""The authority model: what can be permitted, and the roles that exist from the start."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Permission(StrEnum):
    """What a role can permit. Closed: a permission that no route or use case asks for does not exist."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    USERS_DELETE = "users:delete"
    ROLES_MANAGE = "roles:manage"
    ROLES_GRANT = "roles:grant"


DESCRIPTIONS: dict[Permission, str] = {
    Permission.USERS_READ: "See every account.",
    Permission.USERS_WRITE: "Create accounts, change them, disable and enable them.",
    Permission.USERS_DELETE: "Delete and restore accounts.",
    Permission.ROLES_MANAGE: "Define roles and what they permit.",
    Permission.ROLES_GRANT: "Give roles to accounts and take them away.",
}

ADMIN = "admin"
MANAGER = "manager"
USER = "user"
EVERYTHING = "*"
"""The scope of a grant that is held over everything."""


@dataclass(frozen=True, slots=True)
class BuiltInRole:
    """A role that every installation has; it cannot be changed or deleted."""

    name: str
    description: str
    permissions: frozenset[Permission]


BUILT_IN_ROLES: tuple[BuiltInRole, ...] = (
    BuiltInRole(ADMIN, "May do everything. At least one active account always holds it.", frozenset(Permission)),
    BuiltInRole(MANAGER, "Looks after accounts.", frozenset({Permission.USERS_READ, Permission.USERS_WRITE})),
    BuiltInRole(USER, "An account without further rights.", frozenset()),
)


def known_permissions(names: Iterable[str]) -> frozenset[Permission]:
    """The permissions among `names`; a name that only a newer release knows is left out, never granted."""
    return frozenset(_BY_NAME[name] for name in names if name in _BY_NAME)


_BY_NAME = {permission.value: permission for permission in Permission}
