"""Routes that fail, added to the application under test, and a request for every kind of error."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from quart import Blueprint, Response, abort

from tests.people import Person, Server
from usermgmt import app as application
from usermgmt.errors import DatabaseUnavailable, Overloaded
from usermgmt.http.access import answers, public, unlimited
from usermgmt.http.answers import no_content

CANARY = "canary-7f3a9c51"

faults = Blueprint("faults", __name__, url_prefix="/api/faults")


def _raise(error: BaseException) -> Callable[[], Awaitable[Response]]:
    async def view() -> Response:
        raise error

    return view


@faults.get("/endless")
@public
@unlimited
@answers(204)
async def endless() -> Response:
    """Wait for what never comes."""
    await asyncio.Event().wait()
    return no_content()


FAULTS: dict[str, tuple[Callable[[], Awaitable[Response]], int, str]] = {
    "bug": (_raise(RuntimeError(f"SELECT {CANARY} FROM users")), 500, "internal_error"),
    "lookup": (_raise(KeyError(CANARY)), 500, "internal_error"),
    "recursion": (_raise(RecursionError(CANARY)), 500, "internal_error"),
    "group": (_raise(ExceptionGroup(CANARY, [ValueError(CANARY)])), 500, "internal_error"),
    "assertion": (_raise(AssertionError(CANARY)), 500, "internal_error"),
    "database": (_raise(DatabaseUnavailable()), 503, "database_unavailable"),
    "overload": (_raise(Overloaded(retry_after=3)), 503, "overloaded"),
    "slow": (_raise(TimeoutError(CANARY)), 503, "took_too_long"),
}


def _abort_with(status: int) -> Callable[[], Awaitable[Response]]:
    async def view() -> Response:
        abort(status)

    return view


FAULTS |= {
    "framework-400": (_abort_with(400), 400, "bad_request"),
    "framework-418": (_abort_with(418), 400, "bad_request"),
    "framework-502": (_abort_with(502), 500, "internal_error"),
}

for _name, (_view, _, _) in FAULTS.items():
    faults.add_url_rule(f"/{_name}", _name, answers(204)(public(unlimited(_view))), methods=["GET"])


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Have the next application carry the failing routes; gives its settings. Their tracebacks stay off the screen."""
    monkeypatch.setattr(application, "BLUEPRINTS", (*application.BLUEPRINTS, faults))
    with structlog.testing.capture_logs():
        yield dict(SETTINGS)


Provoke = Callable[[Server, Person, dict[str, str]], Awaitable[Any]]


def _call(method: str, path: str, *, nobody: bool = False, **options: Any) -> Provoke:
    async def provoke(server: Server, person: Person, headers: dict[str, str]) -> Any:
        caller = server.nobody() if nobody else person
        given = {**options, "headers": {**options.get("headers", {}), **headers}}
        return await caller.call(method, path, **given)

    return provoke


async def _spend(server: Server, person: Person, headers: dict[str, str]) -> Any:
    """Use a budget of one up (the settings of the test say so), then ask again."""
    await person.get("/api/roles/auditor", headers=headers)
    return await person.get("/api/roles/auditor", headers=headers)


_JSON = {"Content-Type": "application/json"}

# what is asked, the status, the code; the application has the failing routes and `limits.admin=1/h`
PROVOKED: dict[str, tuple[Provoke, int, str]] = {
    "unreadable": (_call("PUT", "/api/users/me", data=b"{", headers=_JSON), 400, "invalid_json"),
    "query": (_call("GET", "/api/users/me?a=%zz"), 400, "invalid_query"),
    "header": (_call("PUT", "/api/users/me", json={}, headers={"If-Match": "garbage"}), 400, "invalid_header"),
    "anonymous": (_call("GET", "/api/users/me", nobody=True), 401, "missing_credentials"),
    "forged": (_call("GET", "/api/users/me", headers={"Authorization": "Bearer a.b.c"}), 401, "invalid_token"),
    "password": (
        _call("POST", "/api/auth/login", nobody=True, json={"username": "ada", "password": "no"}),
        401,
        "invalid_credentials",
    ),
    "forbidden": (_call("GET", "/api/roles"), 403, "permission_missing"),
    "path": (_call("GET", "/nowhere"), 404, "not_found"),
    "method": (_call("POST", "/livez"), 405, "method_not_allowed"),
    "conflict": (_call("PUT", "/api/users/me", json={"username": "bob"}), 409, "username_taken"),
    "stale": (_call("PUT", "/api/users/me", json={}, headers={"If-Match": '"99"'}), 412, "user_changed"),
    "large": (_call("PUT", "/api/users/me", data=b" " * 70_000, headers=_JSON), 413, "body_too_large"),
    "media-type": (_call("PUT", "/api/users/me", data=b"{}"), 415, "unsupported_media_type"),
    "invalid": (_call("PUT", "/api/users/me", json={"nope": 1}), 422, "validation_failed"),
    "budget": (_spend, 429, "rate_limited"),
    **{name: (_call("GET", f"/api/faults/{name}"), status, code) for name, (_, status, code) in FAULTS.items()},
}
SETTINGS = {
    "limits.enabled": True,
    "limits.admin": "1/h",
    "cors.origins": "https://app.example",
}
