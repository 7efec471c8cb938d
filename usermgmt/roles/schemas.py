"""What goes in and out of the routes of roles."""

from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, Field

from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import ABSENT, RequestModel, refused
from usermgmt.http.patterns import ROLE_NAME
from usermgmt.permissions import Permission, known_permissions
from usermgmt.roles.queries import RoleRecord


def _permission(value: Any) -> Any:  # whatever the body holds
    """Read a permission by its name: JSON has no enums, and bodies are not coerced."""
    if not isinstance(value, str):
        raise refused("wrong_type", "This must be a string.")
    if not known_permissions([value]):
        raise refused("not_an_option", "There is no such permission.")
    return Permission(value)


Description = Annotated[str, Field(max_length=255)]
Permissions = Annotated[list[Annotated[Permission, BeforeValidator(_permission)]], Field(max_length=100)]


class CreateRole(RequestModel):
    """A new role."""

    name: Annotated[str, Field(pattern=f"^{ROLE_NAME}$")]
    description: Description = ""
    permissions: Permissions = Field(default_factory=list)


class UpdateRole(RequestModel):
    """What to set. A field that is absent is left alone."""

    description: Description = ABSENT
    permissions: Permissions = ABSENT


class RoleOut(msgspec.Struct, kw_only=True):
    """A named set of permissions."""

    name: str
    description: str
    built_in: bool
    permissions: list[str]
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, role: RoleRecord) -> "RoleOut":
        """The role as clients see it."""
        return cls(
            name=role.name,
            description=role.description,
            built_in=role.built_in,
            permissions=sorted(role.permissions),
            created_at=timestamp(role.created_at),
            updated_at=timestamp(role.updated_at),
        )


class RolesOut(msgspec.Struct):
    """Every role."""

    items: list[RoleOut]


class PermissionOut(msgspec.Struct, kw_only=True):
    """Something that a role can permit."""

    name: str
    description: str


class PermissionsOut(msgspec.Struct):
    """Every permission."""

    items: list[PermissionOut]
