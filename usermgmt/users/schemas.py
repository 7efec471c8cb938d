"""What goes in and out of the routes of accounts."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field, ValidationInfo, field_validator

from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import ABSENT, DIGITS, QueryId, RequestModel, Rfc3339Time, refused
from usermgmt.roles.queries import Grant
from usermgmt.runtime import Runtime
from usermgmt.security.names import login_name_key, prefix_key
from usermgmt.users.fields import Attributes, DisplayName, Email, Password, Roles, StatusName, Username
from usermgmt.users.lists import Count, Filters, Order
from usermgmt.users.models import Status
from usermgmt.users.service import UserView


class _NewPassword(RequestModel):
    """The check of a new password, beside the names that it must not be."""

    @field_validator("password", check_fields=False)
    @classmethod
    def _acceptable(cls, value: str | None, info: ValidationInfo) -> str | None:
        runtime: Runtime | None = info.context
        if value is None or runtime is None:
            return value
        names = [info.data.get(name) for name in ("username", "email", "display_name")]
        problem = runtime.password_policy.problem(value, names=[name for name in names if name])
        if problem is not None:
            raise refused(problem.code, problem.detail)
        return value


class CreateUser(_NewPassword):
    """A new account."""

    username: Username
    email: Email
    display_name: DisplayName | None = None
    password: Password
    attributes: Attributes = Field(default_factory=dict)
    status: StatusName | None = Field(None, description="Needs users:write.")
    roles: Roles | None = Field(None, description="Needs users:write; only roles within your own rights.")


class UpdateUser(_NewPassword):
    """What to set. A field that is absent is left alone."""

    username: Username = ABSENT
    email: Email = ABSENT
    display_name: DisplayName | None = None
    password: Password = ABSENT
    current_password: str | None = Field(
        None, description="Proves that you are the owner: for a new password, and for a new name when not fresh."
    )
    attributes: Attributes = ABSENT
    status: StatusName = Field(ABSENT, description="Needs users:write.")
    roles: Roles = Field(ABSENT, description="Needs roles:grant.")


class PatchUser(_NewPassword):
    """A JSON Merge Patch (RFC 7396): what is absent stays, null clears, attributes are merged name by name."""

    username: Username = ABSENT
    email: Email = ABSENT
    display_name: DisplayName | None = None
    password: Password = ABSENT
    current_password: str | None = Field(None, description="As for PUT.")
    attributes: Attributes | None = Field(None, description="null empties it; a name with null is removed.")
    status: StatusName = Field(ABSENT, description="Needs users:write.")
    roles: Roles = Field(ABSENT, description="Needs roles:grant.")


class DeleteUser(RequestModel):
    """Proof that it is the owner who deletes the account."""

    current_password: str | None = None


class ListUsers(RequestModel):
    """Which accounts, in which order, which page."""

    limit: Annotated[int, Field(ge=1, le=100), DIGITS] = 50
    cursor: Annotated[str, Field(max_length=2048)] | None = None
    sort: Order = Order.CREATED
    q: Annotated[str, Field(min_length=1, max_length=254)] | None = Field(
        None, description="The beginning of the username, the e-mail address or the display name."
    )
    email: Annotated[str, Field(max_length=320)] | None = None
    username: Annotated[str, Field(max_length=255)] | None = None
    status: Status | None = None
    role: Annotated[str, Field(max_length=64)] | None = None
    group: QueryId | None = None
    created_after: Rfc3339Time | None = None
    created_before: Rfc3339Time | None = None
    fields: str | None = Field(
        None,
        description="A comma-separated selection of a user's fields.",
        json_schema_extra=lambda schema: schema.update(pattern=_SELECTION),
    )
    count: Count = Count.NONE

    @field_validator("fields")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        unknown = sorted(set(value.split(",")) - set(UserOut.__struct_fields__)) if value is not None else []
        if unknown:
            raise refused("not_an_option", f"There is no field {unknown[0][:50]!r}.")
        return value

    def filters(self) -> Filters:
        """The conditions of the list, in canonical keys."""
        return Filters(
            prefix=prefix_key(self.q) if self.q is not None else None,
            email_key=_exact_key(self.email),
            username_key=_exact_key(self.username),
            status=self.status,
            role=self.role,
            group=self.group,
            created_after=self.created_after,
            created_before=self.created_before,
        )

    def listed(self, views: Iterable[UserView]) -> "list[ListedUser]":
        """Accounts as this list shows them. Whole ones are not copied field by field: they read the same."""
        whole = [UserOut.of(view) for view in views]
        if self.fields is None:
            return cast("list[ListedUser]", whole)
        fields = self.fields.split(",")
        return [ListedUser.of(each, fields) for each in whole]


def _exact_key(name: str | None) -> str | None:
    """The key of a name; of what cannot be a name, a key that nobody has."""
    return None if name is None else (login_name_key(name) or "")


class GrantScope(RequestModel):
    """Over what a role is given or taken."""

    group: QueryId | None = Field(None, description="Over this group; absent: over everything.")


class GrantOut(msgspec.Struct, kw_only=True):
    """A role that a user holds; `group` is null when it is held over everything."""

    role: str
    group: str | None
    granted_by: str | None
    granted_at: Timestamp


class GrantsOut(msgspec.Struct):
    """Every role of a user."""

    items: list[GrantOut]

    @classmethod
    def of(cls, grants: Sequence[Grant]) -> "GrantsOut":
        """The grants as clients see them."""
        return cls([_granted(grant) for grant in grants])


def _granted(grant: Grant) -> GrantOut:
    return GrantOut(
        role=grant.role,
        group=str(grant.group) if grant.group is not None else None,
        granted_by=str(grant.granted_by) if grant.granted_by is not None else None,
        granted_at=timestamp(grant.granted_at),
    )


class UserOut(msgspec.Struct, kw_only=True):
    """An account."""

    id: str
    username: str
    email: str
    display_name: str | None
    status: Literal["active", "disabled"]
    roles: list[str]
    groups: list[str]
    attributes: dict[str, Any]
    email_verified: bool
    created_at: Timestamp
    updated_at: Timestamp
    last_login_at: Timestamp | None
    version: int

    @classmethod
    def of(cls, view: UserView) -> "UserOut":
        """The account as clients see it: no hash, no key, no column of our own."""
        user = view.user
        created_at = timestamp(user.created_at)
        return cls(
            id=str(user.id),
            username=user.username,
            email=user.email,
            display_name=user.display_name,
            status="active" if user.status == Status.ACTIVE else "disabled",
            roles=list(view.roles),
            groups=[str(group) for group in view.groups],
            attributes=user.attributes,
            email_verified=user.email_verified_at is not None,
            created_at=created_at,
            updated_at=created_at if user.updated_at == user.created_at else timestamp(user.updated_at),
            last_login_at=timestamp(user.last_login_at) if user.last_login_at is not None else None,
            version=user.version,
        )


_SELECTION: str = "^({0})(,({0}))*$".format("|".join(UserOut.__struct_fields__))


class ListedUser(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An account in a list: all of its fields, or those that `fields` selects."""

    id: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    display_name: str | UnsetType | None = UNSET
    status: Literal["active", "disabled"] | UnsetType = UNSET
    roles: list[str] | UnsetType = UNSET
    groups: list[str] | UnsetType = UNSET
    attributes: dict[str, Any] | UnsetType = UNSET
    email_verified: bool | UnsetType = UNSET
    created_at: Timestamp | UnsetType = UNSET
    updated_at: Timestamp | UnsetType = UNSET
    last_login_at: Timestamp | UnsetType | None = UNSET
    version: int | UnsetType = UNSET

    @classmethod
    def of(cls, whole: UserOut, fields: Iterable[str]) -> "ListedUser":
        """Those fields of an account."""
        return cls(**{name: getattr(whole, name) for name in fields})


class UserPageOut(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page of accounts. `count` and `count_is_exact` are there when they were asked for."""

    items: list[ListedUser]
    next_cursor: str | None
    prev_cursor: str | None
    count: int | UnsetType = UNSET
    count_is_exact: bool | UnsetType = UNSET
