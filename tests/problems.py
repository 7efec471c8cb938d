"""What every error must look like, whatever caused it."""

import json
from typing import Any

from quart import Response

from usermgmt.errors import CATALOGUE

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
MEMBERS = {"type", "title", "status", "code", "detail", "request_id", "errors"}
TELLTALES = (
    "traceback", "sqlalchemy", "asyncpg", "aiosqlite", "select ", "insert ", "update ", ".py", "werkzeug", "quart",
    "hypercorn", "postgres", "sqlite", "/work", "/home", "pydantic", "bcrypt", "password_hash",
)  # fmt: skip


async def problem_of(response: Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, after every check that all errors share."""
    raw = await response.get_data(as_text=True)
    assert response.status_code == status, f"{response.status_code} instead of {status}: {raw[:300]}"
    assert response.headers["Content-Type"] == "application/problem+json", raw[:300]
    body = json.loads(raw)
    assert set(body) - {"errors"} == MEMBERS - {"errors"}
    assert body["status"] == status
    assert body["code"] == (code or body["code"])
    kind = CATALOGUE[body["code"]]
    assert (kind.status, kind.title) == (status, body["title"])
    assert body["type"].endswith(f"/problems/{body['code'].replace('_', '-')}")
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert not [word for word in TELLTALES if word in raw.lower()], raw
    assert_headers(response)
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    return body


def assert_headers(response: Response) -> None:
    """The headers that every answer has, and none that tells what is behind it."""
    for name, value in SECURITY_HEADERS.items():
        assert response.headers.getlist(name) == [value], name
    assert response.headers["X-Request-ID"]
    assert "Cache-Control" in response.headers
    assert "Server" not in response.headers
    assert "X-Powered-By" not in response.headers


def pointers_of(body: dict[str, Any]) -> dict[str, str]:
    """Which field has which error."""
    return {error.get("pointer", error.get("parameter")): error["code"] for error in body["errors"]}
