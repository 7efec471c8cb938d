"""What goes in and out of the routes of groups."""

import unicodedata
from typing import Annotated

import msgspec
from pydantic import AfterValidator, Field

from usermgmt.groups.service import GroupView
from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import ABSENT, RequestModel, refused

MAX_NAME = 64


def _name(value: str) -> str:
    normal = unicodedata.normalize("NFC", value)
    if not 1 <= len(normal) <= MAX_NAME or normal != normal.strip() or not normal.isprintable():
        raise refused("invalid_name", f"A group's name has 1 to {MAX_NAME} printable characters, no space at its ends.")
    return normal


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(json_schema_extra={"format": "group-name", "minLength": 1, "maxLength": MAX_NAME}),
]
Description = Annotated[str, Field(max_length=255)]


class CreateGroup(RequestModel):
    """A new group."""

    name: Name
    description: Description = ""


class UpdateGroup(RequestModel):
    """What to set. A field that is absent is left alone."""

    name: Name = ABSENT
    description: Description = ABSENT


class GroupOut(msgspec.Struct, kw_only=True):
    """A set of accounts over which a role can be held."""

    id: str
    name: str
    description: str
    members: int
    created_at: Timestamp
    updated_at: Timestamp

    @classmethod
    def of(cls, view: GroupView) -> "GroupOut":
        """The group as clients see it."""
        return cls(
            id=str(view.group.id),
            name=view.group.name,
            description=view.group.description,
            members=view.members,
            created_at=timestamp(view.group.created_at),
            updated_at=timestamp(view.group.updated_at),
        )


class GroupsOut(msgspec.Struct):
    """Every group."""

    items: list[GroupOut]
