"""G01: every route, asked by everybody. A route that has no row here fails a test."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.people import PASSWORD, Person, Server

CALLERS = ("nobody", "expired", "disabled", "self", "stranger", "manager", "admin")
AUTOMATIC = {"HEAD", "OPTIONS"}
OK: tuple[int, ...] = (200,) * 7
NEW = {"email": "{fresh}@example.org", "password": PASSWORD}


@dataclass(frozen=True)
class Row:
    """What a route answers to each of `CALLERS`, asked on `path` with `body`; `{…}` is filled in for each caller.

    `self` asks about their own account, the others about somebody else's.
    """

    expected: tuple[int, ...]
    path: str = ""
    body: dict[str, Any] | None = None


def signed_in(own: int, stranger: int, manager: int, admin: int) -> tuple[int, ...]:
    """Of a route that demands a token: 401 for whoever has no good one."""
    return (401, 401, 401, own, stranger, manager, admin)


MATRIX: dict[str, Row] = {
    "POST /api/auth/login": Row(OK, body={"username": "{name}", "password": PASSWORD}),
    "POST /api/auth/refresh": Row(OK, body={"refresh_token": "{refresh_token}"}),
    "POST /api/auth/logout": Row((401, 401, 204, 204, 204, 204, 204)),
    "GET /api/auth/session": Row(signed_in(200, 200, 200, 200)),
    "GET /api/users": Row(signed_in(403, 403, 200, 200)),
    "POST /api/users": Row((201, 401, 401, 201, 201, 201, 201), body={"username": "{fresh}", **NEW}),
    "GET /api/users/<user_ref:user_id>": Row(signed_in(200, 403, 200, 200)),
    "PUT /api/users/<user_ref:user_id>": Row(signed_in(200, 403, 200, 200), body={"display_name": "x"}),
    "PATCH /api/users/<user_ref:user_id>": Row(signed_in(200, 403, 200, 200), body={"display_name": "x"}),
    "DELETE /api/users/<user_ref:user_id>": Row(signed_in(204, 403, 403, 204)),
    "POST /api/users/<user_ref:user_id>/restore": Row(signed_in(403, 403, 403, 409)),
    "PUT /api/users/<user_ref:user_id>/roles/<role_name:role>": Row(signed_in(403, 403, 403, 204)),
    "DELETE /api/users/<user_ref:user_id>/roles/<role_name:role>": Row(signed_in(403, 403, 403, 204)),
    "GET /api/users/<user_ref:user_id>/roles": Row(signed_in(200, 403, 403, 200)),
    "GET /api/users/<user_ref:user_id>/sessions": Row(signed_in(200, 403, 403, 200)),
    "DELETE /api/users/<user_ref:user_id>/sessions": Row(signed_in(204, 403, 403, 204)),
    "DELETE /api/users/<user_ref:user_id>/sessions/<id:session_id>": Row(signed_in(204, 403, 403, 204)),
    "GET /api/groups": Row(signed_in(403, 403, 403, 200)),
    "POST /api/groups": Row(signed_in(403, 403, 403, 201), body={"name": "{fresh}"}),
    "GET /api/groups/<id:group_id>": Row(signed_in(403, 403, 403, 200)),
    "PUT /api/groups/<id:group_id>": Row(signed_in(403, 403, 403, 200), body={"description": "x"}),
    "DELETE /api/groups/<id:group_id>": Row(signed_in(403, 403, 403, 204)),
    "PUT /api/groups/<id:group_id>/members/<user_ref:user_id>": Row(signed_in(403, 403, 403, 204)),
    "DELETE /api/groups/<id:group_id>/members/<user_ref:user_id>": Row(signed_in(403, 403, 403, 204)),
    "GET /api/users/<user_ref:user_id>/activity": Row(signed_in(200, 403, 403, 200)),
    "GET /api/users/<user_ref:user_id>/export": Row(signed_in(200, 403, 403, 200)),
    "POST /api/users/<user_ref:user_id>/erase": Row(signed_in(403, 403, 403, 204)),
    "GET /api/audit": Row(signed_in(403, 403, 403, 200)),
    "GET /api/ip-rules": Row(signed_in(403, 403, 403, 200)),
    "POST /api/ip-rules": Row(signed_in(403, 403, 403, 201), body={"network": "203.0.113.0/24", "action": "deny"}),
    "GET /api/ip-rules/<id:rule_id>": Row(signed_in(403, 403, 403, 200)),
    "PUT /api/ip-rules/<id:rule_id>": Row(signed_in(403, 403, 403, 200), body={"note": "x"}),
    "DELETE /api/ip-rules/<id:rule_id>": Row(signed_in(403, 403, 403, 204)),
    "GET /api/permissions": Row(signed_in(200, 200, 200, 200)),
    "GET /api/roles": Row(signed_in(403, 403, 403, 200)),
    "POST /api/roles": Row(signed_in(403, 403, 403, 201), body={"name": "{fresh}"}),
    "GET /api/roles/<role_name:name>": Row(signed_in(403, 403, 403, 200)),
    "PUT /api/roles/<role_name:name>": Row(signed_in(403, 403, 403, 200), body={"description": "x"}),
    "DELETE /api/roles/<role_name:name>": Row(signed_in(403, 403, 403, 204)),
    "GET /.well-known/jwks.json": Row(OK),
    "GET /health/live": Row(OK),
    "GET /livez": Row(OK),
    "GET /healthz": Row(OK),
    "GET /health/ready": Row(OK),
    "GET /readyz": Row(OK),
    "GET /openapi.json": Row(OK),
    "GET /docs": Row(OK),
    "GET /docs/<asset>": Row(OK, path="/docs/swagger-ui.css"),
    "GET /problems/<slug>": Row(OK, path="/problems/user-not-found"),
}
# Routes of which nobody needs to be known: they must answer the same whoever asks.
CLOSED = {"POST /api/users": Row(signed_in(403, 403, 201, 201), body=MATRIX["POST /api/users"].body)}


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"docs.enabled": True}


@pytest.fixture
async def people(server: Server) -> dict[str, Person]:
    """Everybody who asks."""
    expired = await server.person("expired", roles=["admin"])
    server.clock.move(timedelta(minutes=10, seconds=1))
    everybody = {
        "nobody": server.nobody(),
        "expired": expired,
        "disabled": await server.person("disabled", roles=["admin"]),
        "self": await server.person("self"),
        "stranger": await server.person("stranger"),
        "manager": await server.person("manager", roles=["manager"]),
        "admin": await server.person("admin", roles=["admin"]),
    }
    body = {"status": "disabled"}
    response = await everybody["admin"].put(f"/api/users/{everybody['disabled'].id}", json=body)
    assert response.status_code == 200
    return everybody


async def targets(
    server: Server, people: dict[str, Person], row: str
) -> AsyncIterator[tuple[str, Person, Person, str]]:
    """For each caller: whom they ask about, and a role, that nobody else's turn has touched."""
    for number, (name, caller) in enumerate(people.items()):
        is_needed = name != "self" and any(word in row for word in ("user_id", "{name}", "{refresh_token}"))
        target, role = await server.person(f"target{number}") if is_needed else caller, f"role{number}"
        if "<role_name" in row:
            assert (await people["admin"].post("/api/roles", json={"name": role})).status_code == 201
        yield name, caller, target, role


def filled(value: Any, words: dict[str, str]) -> Any:
    """The same with its gaps filled."""
    if isinstance(value, dict):
        return {name: filled(item, words) for name, item in value.items()}
    return value.format(**words) if isinstance(value, str) else value


async def answers(server: Server, people: dict[str, Person], route: str, row: Row) -> dict[str, int]:
    """What everybody is answered; a HEAD must be answered as its GET."""
    method, rule = route.split(" ")
    found = {}
    async for name, caller, target, role in targets(server, people, f"{route} {row}"):
        path = row.path or rule.replace("<user_ref:user_id>", target.id)
        path = path.replace("<role_name:role>", role).replace("<role_name:name>", role)
        if "<id:group_id>" in path:
            made = await people["admin"].post("/api/groups", json={"name": f"group of {name}"})
            path = path.replace("<id:group_id>", (await made.get_json())["id"])
        if "<id:rule_id>" in path:
            rule_body = {"network": "203.0.113.0/24", "action": "deny"}
            made = await people["admin"].post("/api/ip-rules", json=rule_body)
            path = path.replace("<id:rule_id>", (await made.get_json())["id"])
        if "<id:session_id>" in path:
            other = await target.elsewhere() if name != "disabled" else target
            session = await (await other.get("/api/auth/session")).get_json()
            path = path.replace("<id:session_id>", session["session"]["id"] if "session" in session else str(uuid4()))
        words = {"name": target.username, "refresh_token": target.refresh_token, "fresh": f"fresh-{name}"}
        options = {} if row.body is None else {"json": filled(row.body, words)}
        if method == "GET":
            head = await caller.call("HEAD", path)
        response = await caller.call(method, path, **options)
        found[name] = response.status_code
        if method == "GET":
            assert head.status_code == response.status_code, name  # G08
        assert ("WWW-Authenticate" in response.headers) == (response.status_code == 401)
    return found


@pytest.mark.parametrize("route", MATRIX)
async def test_everybody_gets_what_the_matrix_says(server: Server, people, route):
    row = MATRIX[route]
    assert await answers(server, people, route, row) == dict(zip(CALLERS, row.expected, strict=True))


@pytest.mark.parametrize("flags", [{"registration.mode": "closed"}], ids=["closed"])
@pytest.mark.parametrize("route", CLOSED)
async def test_everybody_gets_what_the_matrix_of_a_closed_server_says(server: Server, people, route):
    row = CLOSED[route]
    assert await answers(server, people, route, row) == dict(zip(CALLERS, row.expected, strict=True))


def test_every_route_has_a_row(app):
    routes = {
        f"{method} {rule.rule}" for rule in app.url_map.iter_rules() for method in (rule.methods or set()) - AUTOMATIC
    }
    assert routes == set(MATRIX)


# Beyond statuses


async def test_no_method_but_the_one_on_the_line_counts(as_, ada):  # G08
    path = f"/api/users/{ada.id}"
    for override in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        response = await as_("admin").get(path, headers={override: "DELETE"})
        assert response.status_code == 200
    assert (await as_("admin").get(f"{path}?_method=DELETE")).status_code == 422
    assert (await as_("stranger").post(path, headers={"X-HTTP-Method-Override": "GET"})).status_code == 405
    for method in ("delete", "Delete", "TRACE", "CONNECT", "FOO", "PROPFIND"):
        assert (await as_("admin").call(method, path)).status_code != 500
    assert (await as_("nobody").call("delete", path)).status_code in (401, 405)


async def test_who_is_asking_is_settled_before_what_is_asked(as_, ada):  # G09
    wrong: tuple[dict[str, Any], ...] = (
        {"data": b"{", "headers": {"Content-Type": "application/json"}},
        {"data": b"x", "headers": {"Content-Type": "text/plain"}},
        {"json": {"nosuch": 1}},
        {"json": []},
    )
    for path in (f"/api/users/{ada.id}", "/api/users/00000000-0000-7000-8000-000000000000", "/api/roles/nosuch"):
        for options in wrong:
            for suffix in ("", "?nosuch=1", "?a=1&a=2"):
                assert (await as_("nobody").put(path + suffix, **options)).status_code == 401
                assert (await as_("stranger").put(path + suffix, **options)).status_code == 403
