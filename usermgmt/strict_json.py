"""Strict JSON from whoever sends it: a body, a line of a file, a cell.

Strict where libraries are lenient: UTF-8 only, bounded depth and numbers, no duplicate names (RFC 7493, section 2.3),
no NaN, no lone surrogates, no NUL, an object at the top.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from usermgmt.errors import FieldError, InvalidBody, ValidationFailed

MAX_DEPTH = 32
MAX_WHOLE_DIGITS = 19
MAX_ERRORS = 50
NUL = ("nul_character", "NUL is not allowed here.")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # an unfinished one too: linear whatever comes

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(raw: bytes, *, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse the one JSON object in `raw`, of up to `depth` levels, or raise `InvalidBody` or `ValidationFailed`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidBody("The JSON is not valid UTF-8.") from error
    _refuse_deep(text, depth)
    try:
        value = _decode(text)
    except (ValueError, RecursionError) as error:
        raise (error if isinstance(error, InvalidBody) else InvalidBody) from error
    if not isinstance(value, dict):
        raise ValidationFailed([FieldError(code="wrong_type", detail="This must be a JSON object.", pointer="")])
    if "\\u" in text:  # neither can be written otherwise
        _refuse_bad_text(value)
    return value


def _refuse_deep(text: str, most: int) -> None:
    """Refuse nesting before any parser recurses into it."""
    if text.count("[") + text.count("{") <= most:
        return
    depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            if depth > most:
                raise InvalidBody("The JSON is nested too deeply.")
        elif character in "]}":
            depth -= 1


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidBody("The JSON names a field twice.")
    return found


def _refuse_constant(name: str) -> None:
    raise InvalidBody(f"{name} is not JSON.")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_WHOLE_DIGITS:
        raise InvalidBody("The JSON has a number that is too large.")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InvalidBody("The JSON has a number that is too large.")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_unique_names,
    parse_constant=_refuse_constant,
    parse_int=_bounded_int,
    parse_float=_finite_float,
).decode


def _refuse_bad_text(value: dict[str, Any]) -> None:
    """Refuse text that neither database could keep: lone surrogates (400) and NUL (422, with its place)."""
    errors: list[FieldError] = []
    for pointer, text in _texts(value, ""):
        if _SURROGATE.search(text):
            raise InvalidBody("The JSON has a surrogate that stands alone.")
        if "\x00" in text and len(errors) < MAX_ERRORS:
            errors.append(FieldError(*NUL, pointer))
    if errors:
        raise ValidationFailed(errors)


def _texts(value: object, pointer: str) -> Iterator[tuple[str, str]]:
    """Every string of a document, names of fields included, with its JSON pointer (RFC 6901)."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield pointer, name
            yield from _texts(item, f"{pointer}/{escaped(name)}")


def escaped(name: str) -> str:
    """A field's name as a step of a JSON pointer; a lone surrogate in it is shown as a question mark."""
    readable = name.encode("utf-8", "replace").decode("utf-8")
    return readable[:100].replace("~", "~0").replace("/", "~1")
