"""What goes in and out of the routes of roles."""

from typing import Annotated, Any

import msgspec
from pydantic import Field

from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import RequestModel
from usermgmt.permissions import Permission
from usermgmt.roles.queries import RoleRecord

ROLE_NAME = r"^[a-z][a-z0-9_-]{0,63}$"
ABSENT: Any = None  # what was not sent is not in `model_fields_set`

Description = Annotated[str, Field(max_length=255)]
Permissions = Annotated[list[Annotated[Permission, Field(strict=False)]], Field(max_length=100)]


class CreateRole(RequestModel):
    """A new role."""

    name: Annotated[str, Field(pattern=ROLE_NAME)]
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
