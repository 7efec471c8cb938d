"""The authority model: what can be permitted, the roles that exist from the start, what somebody may do with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Permission(StrEnum):
    """What a role can permit. Closed: a permission that no route or use case asks for does not exist."""

    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    USERS_DELETE = "users:delete"
    USERS_ERASE = "users:erase"
    USERS_EXPORT = "users:export"
    SESSIONS_MANAGE = "sessions:manage"
    ROLES_MANAGE = "roles:manage"
    ROLES_GRANT = "roles:grant"
    GROUPS_MANAGE = "groups:manage"
    IP_RULES_MANAGE = "ip_rules:manage"
    AUDIT_READ = "audit:read"


DESCRIPTIONS: dict[Permission, str] = {
    Permission.USERS_READ: "See accounts.",
    Permission.USERS_WRITE: "Create accounts, change them, disable and enable them.",
    Permission.USERS_DELETE: "Delete and restore accounts.",
    Permission.USERS_ERASE: "Erase accounts for good, before their retention period is over.",
    Permission.USERS_EXPORT: "Export everything that is held about an account.",
    Permission.SESSIONS_MANAGE: "See who is signed in where, and end sessions.",
    Permission.ROLES_MANAGE: "Define roles and what they permit.",
    Permission.ROLES_GRANT: "Give roles to accounts and take them away.",
    Permission.GROUPS_MANAGE: "Define groups and who is in them.",
    Permission.IP_RULES_MANAGE: "Define which networks may call.",
    Permission.AUDIT_READ: "Read the record of who did what.",
}

CONFINABLE = frozenset(
    {
        Permission.USERS_READ,
        Permission.USERS_WRITE,
        Permission.USERS_DELETE,
        Permission.USERS_ERASE,
        Permission.USERS_EXPORT,
        Permission.SESSIONS_MANAGE,
        Permission.ROLES_GRANT,
        Permission.AUDIT_READ,
    }
)
"""The permissions that are about accounts: over a group they reach its members. The others mean nothing there."""

ADMIN = "admin"
MANAGER = "manager"
USER = "user"
EVERYTHING = "*"
"""The scope of a grant that is held over everything; any other scope is the id of a group."""


class RuleSet(StrEnum):
    """The sets of IP rules that our own routes demand; a plugin's may demand others."""

    ADMIN = "admin"  # administration


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


@dataclass(frozen=True, slots=True)
class Reach:
    """Over whom something is permitted: everybody, or the members of these groups, and always the account `own`."""

    is_everyone: bool = False
    groups: frozenset[UUID] = frozenset()
    own: UUID | None = None


EVERYONE = Reach(is_everyone=True)


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do: over everything, and over each group to which a role of theirs is confined."""

    roles: frozenset[str] = frozenset()
    permissions: frozenset[Permission] = frozenset()
    within: Mapping[UUID, frozenset[Permission]] = field(default_factory=dict)

    def over(self, group: UUID) -> frozenset[Permission]:
        """What is permitted over one group."""
        return self.permissions | self.within.get(group, frozenset())

    def has_anywhere(self, permission: Permission) -> bool:
        """Whether it is permitted over everything or over some group."""
        return permission in self.permissions or any(permission in held for held in self.within.values())

    def reach(self, permission: Permission, *, own: UUID | None = None) -> Reach:
        """Over whom it is permitted."""
        if permission in self.permissions:
            return EVERYONE
        return Reach(groups=frozenset(group for group, held in self.within.items() if permission in held), own=own)

    def covers(self, other: "Rights") -> bool:
        """Whether these hold all that the others do, wherever the others do."""
        return other.permissions <= self.permissions and all(
            held <= self.over(group) for group, held in other.within.items()
        )


def known_permissions(names: Iterable[str | None]) -> frozenset[Permission]:
    """The permissions among `names`; a name that only a newer release knows is left out, never granted."""
    return frozenset(_BY_NAME[name] for name in names if name in _BY_NAME)


_BY_NAME = {permission.value: permission for permission in Permission}
