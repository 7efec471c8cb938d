"""The base of request models, and the types that several features' bodies and queries share."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class RequestModel(BaseModel):
    """A body or a query: fields that it does not have are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refused(code: str, detail: str) -> PydanticCustomError:
    """A field error with a code of our own, to raise from a validator."""
    return PydanticCustomError(code, "{detail}", {"detail": detail})


def _parse_time(value: Any) -> Any:  # whatever the query holds
    if not isinstance(value, str):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None or "T" not in value.upper() or len(value) > 40:
        raise refused("invalid_time", "This must be a time with its zone, as in 2026-11-23T12:00:00Z.")
    try:
        return parsed.astimezone(UTC)
    except OverflowError:
        raise refused("invalid_time", "This time is out of range.") from None


QueryTime = Annotated[datetime, BeforeValidator(_parse_time)]
"""A time in a query string: RFC 3339 with its zone."""
