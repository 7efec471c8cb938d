"""Who calls: the values that a request is reduced to before any use case sees it."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from usermgmt.permissions import Permission


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as far as the server vouches for it."""

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, once verified: the account, its session and its rights at this request."""

    user_id: UUID
    session_id: UUID
    username: str
    roles: frozenset[str]
    permissions: frozenset[Permission]
    authenticated_at: datetime

    def has(self, permission: Permission) -> bool:
        """Whether a role of the caller permits it over everything."""
        return permission in self.permissions


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal, if any, and where it calls from. The command line calls as the operator, with every right."""

    client: Client = field(default_factory=Client)
    principal: Principal | None = None
    is_operator: bool = False

    @property
    def user_id(self) -> UUID | None:
        """The caller's account."""
        return self.principal.user_id if self.principal else None

    @property
    def permissions(self) -> frozenset[Permission]:
        """What the caller may do over everything."""
        if self.is_operator:
            return frozenset(Permission)
        return self.principal.permissions if self.principal else frozenset()

    def has(self, permission: Permission) -> bool:
        """Whether the caller is permitted this over everything."""
        return permission in self.permissions

    def is_user(self, user_id: UUID) -> bool:
        """Whether this is the caller's own account."""
        return self.principal is not None and self.principal.user_id == user_id

    def covers(self, permissions: frozenset[Permission]) -> bool:
        """Whether the caller holds all of these: nobody grants or touches what exceeds their own rights."""
        return permissions <= self.permissions


OPERATOR = Caller(client=Client(user_agent="usermgmt command line"), is_operator=True)
"""The person at the command line, who could write to the database without asking us."""
