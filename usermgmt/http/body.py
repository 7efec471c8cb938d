"""The strict readers: one for JSON bodies, one for query strings.

A body is strict JSON (`strict_json`) with no field that the model does not have and no value of another type. All field
errors are told at once.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from quart import request

from usermgmt.errors import FieldError, InvalidQuery, UnsupportedMediaType, ValidationFailed
from usermgmt.http.context import runtime
from usermgmt.runtime import Runtime
from usermgmt.strict_json import MAX_ERRORS, escaped, parse_object

M = TypeVar("M", bound=BaseModel)

MAX_PARAMETERS = 50
JSON_TYPES = ("application/json",)
MERGE_PATCH_TYPES = ("application/json", "application/merge-patch+json")

_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# pydantic's names for what our clients know by stable ones
_CODES = {
    "missing": ("required", "This field is required."),
    "extra_forbidden": ("unknown_field", "There is no such field."),
    "string_type": ("wrong_type", "This must be a string."),
    "int_type": ("wrong_type", "This must be an integer."),
    "int_parsing": ("wrong_type", "This must be an integer."),
    "bool_type": ("wrong_type", "This must be true or false."),
    "dict_type": ("wrong_type", "This must be an object."),
    "list_type": ("wrong_type", "This must be a list."),
    "model_type": ("wrong_type", "This must be an object."),
    "string_too_short": ("too_short", None),
    "string_too_long": ("too_long", None),
    "too_long": ("too_long", None),
    "greater_than_equal": ("out_of_range", None),
    "less_than_equal": ("out_of_range", None),
    "enum": ("not_an_option", None),
    "literal_error": ("not_an_option", None),
    "string_pattern_mismatch": ("invalid_format", "This does not have the required form."),
}


async def read_body(model: type[M], *, media_types: tuple[str, ...] = JSON_TYPES) -> M:
    """The body as `model`. Refused: `UnsupportedMediaType` (415), `InvalidBody` (400), `ValidationFailed` (422)."""
    _require_json(media_types)
    return validated(model, parse_object(await raw_body()), context=runtime())


async def raw_body() -> bytes:
    """The bytes of the body. Refused by the framework above `server.max_body_bytes` (413)."""
    return cast("bytes", await request.get_data(as_text=False))


async def read_optional_body(model: type[M]) -> M | None:
    """The body as `model`, or None when the request has none."""
    if not await raw_body():
        return None
    return await read_body(model)


def read_query(model: type[M]) -> M:
    """The query string as `model`. Refused: `InvalidQuery` (400), `ValidationFailed` (422)."""
    return validated(model, query_parameters(), is_query=True, context=runtime())


def refuse_query() -> None:
    """Refuse every query parameter: the route has none."""
    names = query_parameters()
    if names:
        raise ValidationFailed([_unknown_parameter(name) for name in names])


def query_parameters() -> dict[str, str]:
    """The query string's parameters, each once."""
    raw = request.query_string
    try:
        text = raw.decode("ascii")
        if _BROKEN_PERCENT.search(text):
            raise InvalidQuery
        pairs = parse_qsl(
            text, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError as error:
        raise InvalidQuery from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise ValidationFailed(
                [FieldError(code="duplicate_parameter", detail="Give this parameter once.", parameter=name[:100])]
            )
        if "\x00" in name or "\x00" in value:
            raise InvalidQuery
        found[name] = value
    return found


def _require_json(media_types: tuple[str, ...]) -> None:
    if request.mimetype not in media_types:
        raise UnsupportedMediaType
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if charset not in ("utf-8", "utf8") or encoding != "identity":
        raise UnsupportedMediaType


def validated(model: type[M], values: Mapping[str, Any], *, context: Runtime | None, is_query: bool = False) -> M:
    """Values as `model`, or `ValidationFailed` with all that is wrong. The password policy and the like reach
    validators through the context.
    """
    try:
        return model.model_validate(values, strict=not is_query, context=context)
    except ValidationError as failure:
        raise ValidationFailed(_field_errors(failure, is_query=is_query)) from None


def _field_errors(failure: ValidationError, *, is_query: bool = False) -> list[FieldError]:
    """What a model refused, in our own words and without what was sent."""
    errors = failure.errors(include_url=False, include_input=False)
    return [_field_error(error, is_query) for error in errors[:MAX_ERRORS]]


def _field_error(error: ErrorDetails, is_query: bool) -> FieldError:
    steps = [str(step) for step in error["loc"]]
    if is_query:
        name = steps[0] if steps else ""
        if error["type"] == "extra_forbidden":
            return _unknown_parameter(name)
        code, detail = _named(error)
        return FieldError(code=code, detail=detail, parameter=name)
    code, detail = _named(error)
    return FieldError(code=code, detail=detail, pointer="".join("/" + escaped(step) for step in steps))


def _named(error: ErrorDetails) -> tuple[str, str]:
    code, detail = _CODES.get(error["type"], (error["type"], None))
    return code, detail or f"{error['msg'].rstrip('.')}."


def _unknown_parameter(name: str) -> FieldError:
    return FieldError(code="unknown_parameter", detail="There is no such parameter.", parameter=name[:100])
