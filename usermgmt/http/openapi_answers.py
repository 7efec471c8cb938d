"""What the specification says of answers: successes, their headers, and refusals.

What a route refuses is derived, not written down twice: the refusals that its marks and its inputs imply, and those
that its use case adds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from werkzeug.routing import Rule

from usermgmt.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    BudgetSpent,
    DatabaseUnavailable,
    InternalError,
    InvalidBody,
    InvalidQuery,
    InvalidToken,
    MissingCredentials,
    NoSuchRoute,
    OutcomeUnknown,
    PermissionMissing,
    RecentSignInRequired,
    RequestTimeout,
    SessionEnded,
    UnsupportedMediaType,
    ValidationFailed,
)
from usermgmt.http import examples
from usermgmt.http.access import Answered, BudgetName, Marks, Who
from usermgmt.http.binding import Inputs, TookTooLong
from usermgmt.http.openapi_schemas import struct_schema
from usermgmt.http.problems import MEDIA_TYPE, Problem
from usermgmt.http.streams import NDJSON

HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": ("The id of this request in the log and in error bodies.", {"type": "string"}),
    "ETag": ("The version of the resource.", {"type": "string"}),
    "Location": ("Where the new resource is.", {"type": "string"}),
    "Link": ("The next and the previous page (RFC 8288).", {"type": "string"}),
    "Retry-After": ("Seconds until trying again makes sense.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("How to authenticate (RFC 6750).", {"type": "string"}),
    "RateLimit-Policy": ("The budget of this route.", {"type": "string"}),
    "RateLimit": ("What is left of it.", {"type": "string"}),
    "Idempotency-Replayed": ("This is the answer that an earlier request was given.", {"const": "true"}),
}


def shared_errors(rule: Rule, marks: Marks, inputs: Inputs) -> Iterator[type[ApiError]]:
    """The refusals that the marks, the inputs and the path imply."""
    yield from (InternalError, TookTooLong, BadRequest)
    if rule.rule.startswith("/api/"):
        yield from (InvalidQuery, ValidationFailed, DatabaseUnavailable, OutcomeUnknown)
    if rule.arguments:
        yield NoSuchRoute
    if inputs.body is not None:
        yield from (InvalidBody, UnsupportedMediaType, BodyTooLarge, RequestTimeout)
    if inputs.media_types:
        yield from (UnsupportedMediaType, BodyTooLarge, RequestTimeout)
    if marks.budget is not BudgetName.NONE:
        yield BudgetSpent
    access = marks.access
    if access is not None and access.who is Who.SIGNED_IN:
        yield from (MissingCredentials, InvalidToken, SessionEnded)
        if access.permission is not None:
            yield PermissionMissing
        if access.fresh:
            yield RecentSignInRequired


def responses_of(
    rule: Rule, marks: Marks, inputs: Inputs, components: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each status that a route can answer, with what it then answers."""
    successes = {answered.status: answered for answered in marks.answers}
    problems: dict[int, list[type[ApiError]]] = defaultdict(list)
    for error in dict.fromkeys([*shared_errors(rule, marks, inputs), *marks.errors]):
        problems[error.status].append(error)
    for status in sorted({*successes, *problems}):
        answered = successes.get(status)
        response = _success(answered, marks, components) if answered is not None else _headed(status, marks)
        if status in problems:
            response.setdefault("content", {})[MEDIA_TYPE] = _problem_content(problems[status], components)
        yield str(status), response


def _headed(status: int, marks: Marks) -> dict[str, Any]:
    """A response with the headers that its status implies."""
    names = ["X-Request-ID"]
    if status in (429, 503):
        names.append("Retry-After")
    if status == 401:
        names.append("WWW-Authenticate")
    if marks.budget is not BudgetName.NONE:
        names += ["RateLimit-Policy", "RateLimit"]
    return {"description": HTTPStatus(status).phrase, "headers": {name: _header(name) for name in names}}


def _success(answered: Answered, marks: Marks, components: dict[str, Any]) -> dict[str, Any]:
    response = _headed(answered.status, marks)
    more = {
        "ETag": (answered.model is not None and answered.model.__name__ == "UserOut") or answered.status == 304,
        "Location": answered.status == 201,
        "Link": answered.model is not None and answered.model.__name__.endswith("PageOut"),
        "Idempotency-Replayed": "Idempotency-Key" in marks.headers,
    }
    response["headers"] |= {name: _header(name) for name, present in more.items() if present}
    if answered.model is not None:
        content: dict[str, Any] = {"schema": struct_schema(answered.model, components)}
        if (example := examples.ANSWERS.get(answered.model.__name__)) is not None:
            content["example"] = example
        response["content"] = {"application/json": content}
    if answered.is_lines and answered.model is not None:
        lines: dict[str, Any] = {"schema": {"type": "string"}}
        if (shown := examples.LINES.get(answered.model.__name__)) is not None:
            lines["example"] = shown
        response["content"] = {NDJSON: lines}
    if answered.is_streamed:
        page = response["content"]["application/json"].get("example")
        lines = {"schema": {"type": "string"}, **({"example": examples.stream(page)} if page is not None else {})}
        response["content"][NDJSON] = lines
    return response


def _problem_content(errors: list[type[ApiError]], components: dict[str, Any]) -> dict[str, Any]:
    """A problem whose `code` is one of those that the route can give."""
    codes = sorted(error.code for error in errors)
    schema = {**struct_schema(Problem, components), "properties": {"code": {"enum": codes}}}
    return {"schema": schema, "examples": {error.code: {"value": examples.problem(error)} for error in errors}}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
