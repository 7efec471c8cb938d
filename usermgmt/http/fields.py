"""The base of request models, and the types that several features' bodies and queries share."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from usermgmt.clock import whole_milliseconds
from usermgmt.http import patterns

_ID = re.compile(patterns.ID)
_DIGITS = re.compile("[0-9]{1,9}", re.ASCII)


class RequestModel(BaseModel):
    """A body or a query: fields that it does not have are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ABSENT: Any = None
"""The default of fields that have none: what was not sent is not in `model_fields_set`, and is never null."""


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)


def refused(code: str, detail: str) -> PydanticCustomError:
    """A field error with a code of our own, to raise from a validator."""
    return PydanticCustomError(code, "{detail}", {"detail": detail})


def _parse_time(value: Any) -> Any:  # whatever the query holds
    if not isinstance(value, str):
        return value
    try:
        parsed = datetime.fromisoformat(value.upper()) if _RFC_3339.fullmatch(value) else None
    except ValueError:
        parsed = None
    if parsed is None:
        raise refused("invalid_time", "This must be a time with its zone, as in 2026-11-23T12:00:00Z.")
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise refused("invalid_time", "This time is out of range.") from None


def _parse_count(value: Any) -> Any:  # whatever the query holds
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise refused("wrong_type", "This must be an integer.")
    return value


def _parse_id(value: Any) -> Any:  # whatever the query holds
    if not isinstance(value, str):
        return value
    if not _ID.fullmatch(value):
        raise refused("invalid_id", "This must be a UUID in lower case.")
    return UUID(value)


DIGITS = BeforeValidator(_parse_count)
"""Marks a number in a query string: ASCII digits and nothing else. It stands after the number's bounds, or pydantic
leaves them out of the schema.
"""

QueryId = Annotated[UUID, BeforeValidator(_parse_id)]
"""An id in a query string, in its one canonical spelling."""

Rfc3339Time = Annotated[datetime, BeforeValidator(_parse_time)]
"""A time, in the spelling of RFC 3339 with its zone."""

StoredTime = Annotated[Rfc3339Time, AfterValidator(whole_milliseconds)]
"""A time in a body that is kept: the same in whole milliseconds, so that it reads as it is."""
