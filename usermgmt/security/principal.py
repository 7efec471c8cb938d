"""Who calls: the values that a request is reduced to before any use case sees it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from usermgmt.permissions import Permission, Reach, Rights
from usermgmt.security.address import network_of

MAX_USER_AGENT = 512


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from, as far as the server vouches for it. `user_agent` has at most `MAX_USER_AGENT`
    characters.
    """

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None

    @property
    def network(self) -> str:
        """What is counted as one source: an IPv4 address, or the /64 of an IPv6 address."""
        return network_of(self.address)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, once verified: the account, its session and its rights at this request."""

    user_id: UUID
    session_id: UUID
    username: str
    rights: Rights
    authenticated_at: datetime

    def is_fresh(self, lifetime: timedelta, *, at: datetime) -> bool:
        """Whether they proved who they are no longer ago than this."""
        return at - self.authenticated_at <= lifetime


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
    def rights(self) -> Rights:
        """What the caller may do."""
        if self.is_operator:
            return _ALL_RIGHTS
        return self.principal.rights if self.principal else _NO_RIGHTS

    def has(self, permission: Permission) -> bool:
        """Whether the caller is permitted this over everything."""
        return permission in self.rights.permissions

    def has_anywhere(self, permission: Permission) -> bool:
        """Whether the caller is permitted this over everything or over some group."""
        return self.rights.has_anywhere(permission)

    def reach(self, permission: Permission, *, or_own: bool = False) -> Reach:
        """Over whom the caller is permitted this; with `or_own`, over the caller's own account in any case."""
        return self.rights.reach(permission, own=self.user_id if or_own else None)

    def is_user(self, user_id: UUID) -> bool:
        """Whether this is the caller's own account."""
        return self.principal is not None and self.principal.user_id == user_id

    def covers(self, rights: Rights) -> bool:
        """Whether the caller holds all of these: nobody grants or touches what exceeds their own rights."""
        return self.rights.covers(rights)


Renew = Callable[[], Awaitable[Caller]]
"""Who calls by now: the same caller, with the rights of this moment. Raises when the session has ended or a right that
the route demands is gone. For what takes longer than a request.
"""

_ALL_RIGHTS = Rights(permissions=frozenset(Permission))
_NO_RIGHTS = Rights()

OPERATOR = Caller(client=Client(user_agent="usermgmt command line"), is_operator=True)
"""The person at the command line, who could write to the database without asking us."""
