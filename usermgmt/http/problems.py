"""Every error as `application/problem+json` (RFC 9457): our own refusals, the framework's, and faults."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from quart import Quart, Response, g, request
from werkzeug.exceptions import HTTPException

from usermgmt.errors import (
    CATALOGUE,
    ApiError,
    BadRequest,
    BodyTooLarge,
    FieldError,
    InternalError,
    MethodNotAllowed,
    NoSuchRoute,
    RequestTimeout,
    UnsupportedMediaType,
)
from usermgmt.http.answers import encode
from usermgmt.http.context import runtime
from usermgmt.telemetry import error_tracking

MEDIA_TYPE = "application/problem+json"

_FRAMEWORK_ERRORS: Mapping[int, type[ApiError]] = {
    400: BadRequest,
    404: NoSuchRoute,
    405: MethodNotAllowed,
    408: RequestTimeout,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}

log = structlog.get_logger("usermgmt.http")


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What went wrong. `code` is stable; `errors` names each field that is invalid."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list["ProblemField"] = []


class ProblemField(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One invalid field: a JSON pointer into the body, or the name of a query parameter."""

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None


def install(app: Quart) -> None:
    """Answer every exception of the application with a problem document."""
    app.register_error_handler(ApiError, _refuse)
    app.register_error_handler(HTTPException, _refuse_framework)
    app.register_error_handler(Exception, _fail)


def problem_response(error: ApiError) -> Response:
    """The response that an error stands for."""
    g.problem = error
    response = Response(encode(problem_of(error)), status=error.status, content_type=MEDIA_TYPE)
    response.headers.update(error.headers)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def problem_of(error: ApiError) -> Problem:
    """The document that describes an error."""
    return Problem(
        type=problem_type(error.code),
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        request_id=g.get("request_id"),
        errors=[_field(field) for field in error.errors],
    )


def problem_type(code: str) -> str:
    """The address of the page that explains a code."""
    return f"{runtime().settings.server.public_url}/problems/{code.replace('_', '-')}"


def error_named(slug: str) -> type[ApiError] | None:
    """The error whose page has this name."""
    return CATALOGUE.get(slug.replace("-", "_"))


def _field(error: FieldError) -> ProblemField:
    return ProblemField(code=error.code, detail=error.detail, pointer=error.pointer, parameter=error.parameter)


async def _refuse(error: ApiError) -> Response:
    return problem_response(error)


async def _refuse_framework(error: HTTPException) -> Response:
    """Say in our own words what the framework refused; keep only the headers that belong to the status."""
    status = error.code or 500
    kind = _FRAMEWORK_ERRORS.get(status, BadRequest if status < 500 else InternalError)
    response = problem_response(kind())
    headers: dict[str, Any] = dict(error.get_headers())
    if "Allow" in headers:
        response.headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))  # it comes from a set
    return response


async def _fail(error: Exception) -> Response:
    """A fault: logged whole, told as nothing but its request id."""
    route = request.url_rule.rule if request.url_rule is not None else None
    log.error("request_failed", exc_info=error, request_id=g.get("request_id"), method=request.method, route=route)
    error_tracking.tell(error, request_id=g.get("request_id"), method=request.method, route=route)
    return problem_response(InternalError())
