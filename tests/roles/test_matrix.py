"""G01: every route, asked by everybody, as `matrix.toml` says. A route that has no row there fails a test."""

import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.people import PASSWORD, Person, Server
from usermgmt.permissions import CONFINABLE

SOURCE = tomllib.loads(Path(__file__).with_name("matrix.toml").read_text(encoding="utf-8"))
CALLERS: list[str] = SOURCE["callers"]
MEMBER, OUTSIDER = "chief on a member", "chief on an outsider"
AUTOMATIC = {"HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Row:
    """What a route answers to each of `CALLERS`, asked on `path` with `body` or `file`."""

    statuses: tuple[int, ...]
    path: str = ""
    body: dict[str, Any] | None = None
    file: str = ""


def rows(section: str) -> dict[str, Row]:
    return {route: Row(**{**cells, "statuses": tuple(cells["statuses"])}) for route, cells in SOURCE[section].items()}


MATRIX = rows("open")
CLOSED = rows("closed")  # the same while registration is closed


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
    role = {"name": "chief", "permissions": sorted(CONFINABLE)}
    assert (await everybody["admin"].post("/api/roles", json=role)).status_code == 201
    group = await new_group(everybody["admin"], "Lab")
    for number, name in enumerate((MEMBER, OUTSIDER)):
        chief = everybody[name] = await server.person(f"chief{number}")
        granted = await everybody["admin"].put(f"/api/users/{chief.id}/roles/chief?group={group}")
        assert granted.status_code == 204
    return everybody


async def new_group(admin: Person, name: str) -> str:
    """A group; its id."""
    made = await (await admin.post("/api/groups", json={"name": name})).get_json()
    group_id: str = made["id"]
    return group_id


async def targets(
    server: Server, people: dict[str, Person], row: str
) -> AsyncIterator[tuple[str, Person, Person, str]]:
    """For each caller: whom they ask about, and a role, that nobody else's turn has touched."""
    (group,) = await server.rows("SELECT id FROM groups WHERE name = 'Lab'")
    for number, (name, caller) in enumerate(people.items()):
        is_needed = name != "self" and any(word in row for word in ("user_id", "{name}", "{refresh_token}"))
        target, role = await server.person(f"target{number}") if is_needed else caller, f"role{number}"
        if is_needed and name == MEMBER:
            added = await people["admin"].put(f"/api/groups/{UUID(str(group[0]))}/members/{target.id}")
            assert added.status_code == 204
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
    number = 0
    async for name, caller, target, role in targets(server, people, f"{route} {row}"):
        number += 1
        path = row.path or rule.replace("<user_ref:user_id>", target.id)
        path = path.replace("<role_name:role>", role).replace("<role_name:name>", role)
        if "<id:group_id>" in path:
            path = path.replace("<id:group_id>", await new_group(people["admin"], f"group of {name}"))
        if "<id:rule_id>" in path:
            rule_body = {"network": "203.0.113.0/24", "action": "deny"}
            made = await people["admin"].post("/api/ip-rules", json=rule_body)
            path = path.replace("<id:rule_id>", (await made.get_json())["id"])
        if "<id:session_id>" in path:
            other = await target.elsewhere() if name != "disabled" else target
            session = await (await other.get("/api/auth/session")).get_json()
            path = path.replace("<id:session_id>", session["session"]["id"] if "session" in session else str(uuid4()))
        words = {"name": target.username, "refresh_token": target.refresh_token, "fresh": f"fresh-{number}"}
        words["password"] = PASSWORD
        options = {} if row.body is None else {"json": filled(row.body, words)}
        if row.file:
            options = {"data": row.file, "headers": {"Content-Type": "application/x-ndjson"}}
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
    assert await answers(server, people, route, row) == dict(zip(CALLERS, row.statuses, strict=True))


@pytest.mark.parametrize("flags", [{"registration.mode": "closed"}], ids=["closed"])
@pytest.mark.parametrize("route", CLOSED)
async def test_everybody_gets_what_the_matrix_of_a_closed_server_says(server: Server, people, route):
    row = CLOSED[route]
    assert await answers(server, people, route, row) == dict(zip(CALLERS, row.statuses, strict=True))


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
