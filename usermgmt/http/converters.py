"""Path parameters: ids in their one canonical spelling, and `me` for the caller's own."""

from enum import Enum
from typing import Literal
from uuid import UUID

from werkzeug.routing import BaseConverter

from usermgmt.http import patterns


class _Me(Enum):
    ME = "me"


ME: Literal[_Me.ME] = _Me.ME
"""Stands for the caller until the pipeline knows who that is."""


class UserRef(BaseConverter):
    """An account: its id, or `me`."""

    regex = f"me|{patterns.ID}"

    def to_python(self, value: str) -> UUID | _Me:
        """The id, or `ME`."""
        return ME if value == "me" else UUID(value)

    def to_url(self, value: UUID | str) -> str:
        """The id as it stands in a path."""
        return str(value)


class Id(BaseConverter):
    """Anything that has an id, by it."""

    regex = patterns.ID

    def to_python(self, value: str) -> UUID:
        """The id."""
        return UUID(value)

    def to_url(self, value: UUID | str) -> str:
        """The id as it stands in a path."""
        return str(value)


class RoleName(BaseConverter):
    """A role by its name."""

    regex = patterns.ROLE_NAME


CONVERTERS: dict[str, type[BaseConverter]] = {"user_ref": UserRef, "id": Id, "role_name": RoleName}
