"""What can go wrong, without a word about HTTP libraries.

Every refusal is a class with a stable `code` and one sentence; its base class is its kind, and the kind fixes the
status (RFC 9110, RFC 6585). `CATALOGUE` lists them all: `/problems/<code>` and the tests read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

CATALOGUE: dict[str, type["ApiError"]] = {}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field: where (`pointer` into the body, or the query `parameter`), a code, a sentence."""

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None


class ApiError(Exception):
    """A refusal that reaches the client as a problem document (RFC 9457)."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    detail: str

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.detail = detail or type(self).detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        super().__init__(self.detail)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in vars(cls):
            return
        known = CATALOGUE.setdefault(cls.code, cls)
        if known.__qualname__ != cls.__qualname__:
            raise TypeError(f"the error code {cls.code!r} belongs to {known.__qualname__}")


# Kinds. A kind has no code of its own: it cannot be raised, only what refines it.


class Malformed(ApiError):
    """The request cannot be parsed."""

    status, title = 400, "The request cannot be read"


class Unauthenticated(ApiError):
    """No credential, or one that is not valid (RFC 6750)."""

    status, title = 401, "Sign-in is required"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """A known caller may not do this."""

    status, title = 403, "Not allowed"


class NotFound(ApiError):
    """There is no such thing, or the caller may not see it."""

    status, title = 404, "Not found"


class Conflict(ApiError):
    """The present state does not allow it."""

    status, title = 409, "Conflict with the present state"


class Stale(ApiError):
    """A precondition of the request failed."""

    status, title = 412, "The resource has changed"


class TooLarge(ApiError):
    """More than the server reads."""

    status, title = 413, "The request is too large"


class Unsupported(ApiError):
    """A form of content that the server does not read."""

    status, title = 415, "The content type is not accepted"


class Invalid(ApiError):
    """Parsed, but not valid."""

    status, title = 422, "The request is invalid"


class TooMany(ApiError):
    """A budget is spent."""

    status, title = 429, "Too many requests"

    def __init__(self, detail: str | None = None, *, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after))})


class Unavailable(ApiError):
    """Overloaded, or something the server depends on is away; trying again may succeed."""

    status, title = 503, "Temporarily unavailable"

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after))})


# Refusals that belong to no single feature.


class InvalidBody(Malformed):
    """The body is not the JSON that this server reads (RFC 8259, RFC 7493)."""

    code = "invalid_json"
    detail = "This is not valid JSON."


class InvalidHeader(Malformed):
    """A header has a value that cannot be read."""

    code = "invalid_header"
    detail = "A header cannot be read."


class InvalidQuery(Malformed):
    """The query string is not valid percent-encoded UTF-8."""

    code = "invalid_query"
    detail = "The query string cannot be read."


class ValidationFailed(Invalid):
    """One or more fields are invalid; `errors` names each."""

    code = "validation_failed"
    detail = "The request has invalid fields."

    def __init__(self, errors: Sequence[FieldError]) -> None:
        count = len(errors)
        super().__init__(f"{count} field{' is' if count == 1 else 's are'} invalid.", errors=errors)


class Overloaded(Unavailable):
    """More password hashing is waiting than a client would wait for, or no server is left to ask. Nothing was done."""

    code = "overloaded"
    detail = "The server has more sign-ins to check than it can in good time. Try again shortly."


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or did not answer in time."""

    code = "database_unavailable"
    detail = "The database cannot be reached just now. Try again shortly."


class OutcomeUnknown(DatabaseUnavailable):
    """The connection broke while the change was being committed, or a proxy lost the server that had the request:
    whether the change was made, nobody knows here. Repeating it under the same Idempotency-Key is safe where the
    operation takes one; elsewhere look first.
    """

    code = "outcome_unknown"
    detail = (
        "The database went away while the change was being stored. It may have been made: look before you repeat it."
    )


class MissingCredentials(Unauthenticated):
    """No credential came with the request."""

    code = "missing_credentials"
    detail = "Send an access token: Authorization: Bearer <token>."


class InvalidToken(Unauthenticated):
    """The access token is malformed, forged, expired or of another kind (RFC 6750, section 3.1)."""

    code = "invalid_token"
    detail = "The access token is not valid."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail)
        self.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'


class SessionEnded(Unauthenticated):
    """The token is genuine, but its session has ended or its account may no longer sign in."""

    code = "session_ended"
    detail = "This session has ended. Sign in again."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail)
        self.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'


class PermissionMissing(Forbidden):
    """The caller lacks the permission that the route requires."""

    code = "permission_missing"
    detail = "You may not do this."


class RecentSignInRequired(Forbidden):
    """The session is too old for this; sign in again, or send `current_password` where the route takes it."""

    code = "recent_sign_in_required"
    detail = "Sign in again, then repeat this."


class UserNotFound(NotFound):
    """There is no such account, it is deleted, or it is none that the caller may see."""

    code = "user_not_found"
    detail = "There is no such user."


class NoSuchRoute(NotFound):
    """No route has this path."""

    code = "not_found"
    detail = "There is nothing at this path."


class MethodNotAllowed(ApiError):
    """The path exists, but not with this method; `Allow` lists those it has."""

    status, title = 405, "Method not allowed"
    code = "method_not_allowed"
    detail = "This path does not have that method."


class BodyTooLarge(TooLarge):
    """The body is longer than the server accepts."""

    code = "body_too_large"
    detail = "The body is too large."


class UnsupportedMediaType(Unsupported):
    """The content type, its charset or its encoding is none that is read here: JSON in UTF-8, or a file of a type that
    `detail` names.
    """

    code = "unsupported_media_type"
    detail = "Send JSON in UTF-8, without a content encoding: Content-Type: application/json."


class BudgetSpent(TooMany):
    """The rate budget of this route is spent for this caller."""

    code = "rate_limited"
    detail = "Too many requests. Try again later."


class InternalError(ApiError):
    """A fault of the server; the log line with this request's id tells more."""

    status, title = 500, "The server failed"
    code = "internal_error"
    detail = "Something went wrong on the server. Tell its operator the request id."


class BadRequest(Malformed):
    """The request is malformed in a way that has no code of its own."""

    code = "bad_request"
    detail = "The request cannot be read."


class RequestTimeout(ApiError):
    """The client did not send its request in time."""

    status, title = 408, "The request took too long to arrive"
    code = "request_timeout"
    detail = "The request did not arrive in time."
