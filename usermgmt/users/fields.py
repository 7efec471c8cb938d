"""The fields of an account as requests give them, each with its check."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from usermgmt.http.fields import refused
from usermgmt.http.patterns import ROLE_NAME
from usermgmt.security.names import (
    MAX_DISPLAY_NAME,
    MAX_EMAIL,
    MAX_USERNAME,
    InvalidName,
    canonical_email,
    display_name_problem,
    username_key,
)
from usermgmt.users.models import MAX_ATTRIBUTES_BYTES, MAX_ROLES, are_attributes_too_long


def _username(value: str) -> str:
    try:
        username_key(value)
    except InvalidName as problem:
        raise refused(problem.code, problem.detail) from None
    return value


def _email(value: str) -> str:
    try:
        canonical_email(value)
    except InvalidName as problem:
        raise refused(problem.code, problem.detail) from None
    return value


def _display_name(value: str) -> str:
    if (problem := display_name_problem(value)) is not None:
        raise refused("invalid_display_name", problem)
    return value


def _attributes(value: dict[str, Any]) -> dict[str, Any]:
    if are_attributes_too_long(value):
        raise refused("too_long", f"The attributes are longer than {MAX_ATTRIBUTES_BYTES} bytes of JSON.")
    return value


def _format(name: str, **more: Any) -> dict[str, Any]:
    return {"format": name, **more}


Username = Annotated[
    str, AfterValidator(_username), Field(json_schema_extra=_format("username", minLength=1, maxLength=MAX_USERNAME))
]
Email = Annotated[str, AfterValidator(_email), Field(json_schema_extra=_format("email", maxLength=MAX_EMAIL))]
DisplayName = Annotated[
    str,
    AfterValidator(_display_name),
    Field(json_schema_extra=_format("display-name", minLength=1, maxLength=MAX_DISPLAY_NAME)),
]
Password = Annotated[str, Field(json_schema_extra=_format("password", minLength=1))]
Attributes = Annotated[dict[str, Any], AfterValidator(_attributes)]
Roles = Annotated[list[Annotated[str, Field(pattern=f"^{ROLE_NAME}$")]], Field(max_length=MAX_ROLES)]
StatusName = Literal["active", "disabled"]
