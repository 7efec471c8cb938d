import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.people import Person, Server
from tests.users.accounts import refusal, stored, through, user_of


@pytest.fixture
async def keeper(server: Server, admin: Person) -> Person:
    """Somebody who looks after accounts and gives roles, but may not delete."""
    body = {"name": "keeper", "permissions": ["users:read", "users:write", "roles:grant"]}
    assert (await admin.post("/api/roles", json=body)).status_code == 201
    return await server.person("kim", roles=["keeper"])


async def roles_of(caller: Person, user_id: str) -> list[str]:
    """The roles that somebody holds."""
    roles: list[str] = (await user_of(await caller.get(f"/api/users/{user_id}")))["roles"]
    return roles


async def test_a_role_is_given_and_taken(server: Server, admin, ada):
    path = f"/api/users/{ada.id}/roles/manager"
    for _ in range(2):  # repeating it changes nothing
        assert (await admin.put(path)).status_code == 204
        user = await user_of(await admin.get(f"/api/users/{ada.id}"))
        assert (user["roles"], user["version"]) == (["manager", "user"], 2)
    for _ in range(2):
        assert (await admin.delete(path)).status_code == 204
        user = await user_of(await admin.get(f"/api/users/{ada.id}"))
        assert (user["roles"], user["version"]) == (["user"], 3)
    for event in ("role.granted", "role.revoked"):
        (record,) = await server.events(event)
        assert (str(record.target_id), str(record.actor_id), record.details) == (
            ada.id,
            admin.id,
            {"role": "manager"},
        )


async def test_a_grant_says_who_gave_it(server: Server, admin, ada):
    await admin.put(f"/api/users/{ada.id}/roles/manager")
    ((granted_by, scope),) = await server.rows("SELECT granted_by, scope FROM role_grants WHERE role = 'manager'")
    assert (str(granted_by).replace("-", ""), scope) == (admin.id.replace("-", ""), "*")


async def test_a_role_counts_at_the_next_request_on_every_instance(server: Server, admin, ada):  # F10, L08
    path = f"/api/users/{ada.id}/roles/manager"
    async with Server(server.settings).running() as second:
        here, there, admin_there = ada, through(second, ada), through(second, admin)
        for giver, takers in ((admin, (there, here)), (admin_there, (here, there))):
            assert [(await person.get("/api/users")).status_code for person in takers] == [403, 403]
            assert (await giver.put(path)).status_code == 204
            assert [(await person.get("/api/users")).status_code for person in takers] == [200, 200]
            assert (await giver.delete(path)).status_code == 204
            assert [(await person.get("/api/users")).status_code for person in takers] == [403, 403]


async def test_a_lost_role_is_lost_for_every_request_after_it(server: Server, admin, ada):  # F10
    path = f"/api/users/{ada.id}/roles/manager"
    async with Server(server.settings).running() as second:
        there = through(second, ada)
        for _ in range(20):
            assert (await admin.put(path)).status_code == 204
            assert (await admin.delete(path)).status_code == 204
            answers = await asyncio.gather(*(there.get("/api/users") for _ in range(3)))
            assert {answer.status_code for answer in answers} == {403}


async def test_what_else_ends_rights_ends_them_on_every_instance(server: Server, admin, ada):  # L08, F09
    async with Server(server.settings).running() as second:
        there = through(second, ada)
        assert (await there.get("/api/users/me")).status_code == 200
        assert (await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"})).status_code == 200
        assert await refusal(await there.get("/api/users/me")) == (401, "session_ended")
        refreshed = await there.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})
        assert await refusal(refreshed) == (401, "session_revoked")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_there_is_nothing_to_give_where_there_is_no_role_or_account(server: Server, admin, ada, bob, method):
    await admin.delete(f"/api/users/{bob.id}")
    before = await stored(server)
    for user_id, role, expected in (  # G14
        (ada.id, "nosuch", (404, "role_not_found")),
        (uuid4(), "user", (404, "user_not_found")),
        (bob.id, "user", (404, "user_not_found")),
        (uuid4(), "nosuch", (404, "role_not_found")),
        (ada.id, "ADMIN", (404, "not_found")),
        (ada.id, "admin%20", (404, "not_found")),
        (ada.id.upper(), "user", (404, "not_found")),
    ):
        assert await refusal(await admin.call(method, f"/api/users/{user_id}/roles/{role}")) == expected
    assert await stored(server) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_roles_are_given_by_those_who_may(as_, server: Server, ada, method):  # G09
    before = await stored(server)
    for target in (ada.id, "me", str(uuid4())):
        path = f"/api/users/{target}/roles/user"
        assert await refusal(await as_("nobody").call(method, path)) == (401, "missing_credentials")
        for caller in ("self", "stranger", "manager"):
            assert await refusal(await as_(caller).call(method, path)) == (403, "permission_missing")
    assert await stored(server) == before


async def climbing(keeper: Person, admin: Person, ada: Person) -> list[tuple[str, str, dict[str, Any]]]:
    """Every way in which somebody may try to get, or give, more than they have."""
    new = {"username": "puppet", "email": "puppet@example.com", "password": "secure_password"}
    return [
        *(("PUT", f"/api/users/{user}/roles/admin", {}) for user in ("me", keeper.id, ada.id, admin.id)),
        ("PUT", "/api/users/me", {"json": {"roles": ["admin"]}}),
        ("PUT", "/api/users/me", {"json": {"roles": ["keeper", "admin"]}}),
        ("PATCH", "/api/users/me", {"json": {"roles": ["keeper", "janitor"]}}),
        ("PUT", "/api/users/me/roles/janitor", {}),
        ("PUT", f"/api/users/{ada.id}", {"json": {"roles": ["admin"]}}),
        ("POST", "/api/users", {"json": {**new, "roles": ["admin"]}}),
        ("POST", "/api/users", {"json": {**new, "roles": ["user", "janitor"]}}),
        *((method, f"/api/users/{admin.id}/roles/user", {}) for method in ("PUT", "DELETE")),
        ("DELETE", f"/api/users/{admin.id}/roles/admin", {}),
        ("PUT", f"/api/users/{admin.id}", {"json": {"roles": ["user"]}}),
        ("PUT", f"/api/users/{admin.id}", {"json": {"password": "a new pass phrase"}}),
    ]


async def test_nobody_climbs(server: Server, admin, ada, keeper):
    assert (
        await admin.post("/api/roles", json={"name": "janitor", "permissions": ["users:delete"]})
    ).status_code == 201
    before = await stored(server)
    for method, path, options in await climbing(keeper, admin, ada):
        response = await keeper.call(method, path, **options)
        assert await refusal(response) == (403, "exceeds_own_rights"), (method, path, options)
    assert await stored(server) == before
    assert {str(event.actor_id) for event in await server.events("access.denied")} == {keeper.id}


async def test_nobody_takes_a_role_that_exceeds_their_own_rights(server: Server, admin, ada, keeper):
    assert (
        await admin.post("/api/roles", json={"name": "janitor", "permissions": ["users:delete"]})
    ).status_code == 201
    assert (await admin.put(f"/api/users/{ada.id}/roles/janitor")).status_code == 204
    before = await stored(server)
    for method, path, options in (
        ("DELETE", f"/api/users/{ada.id}/roles/janitor", {}),
        ("DELETE", f"/api/users/{ada.id}/roles/user", {}),
        ("PUT", f"/api/users/{ada.id}", {"json": {"roles": []}}),
        ("PUT", f"/api/users/{ada.id}", {"json": {"status": "disabled"}}),
    ):
        assert await refusal(await keeper.call(method, path, **options)) == (403, "exceeds_own_rights")
    assert await stored(server) == before


async def test_within_their_rights_they_give_and_take(admin, ada, keeper):
    for role in ("manager", "keeper"):
        assert (await keeper.put(f"/api/users/{ada.id}/roles/{role}")).status_code == 204
        assert role in await roles_of(admin, ada.id)
        assert (await keeper.delete(f"/api/users/{ada.id}/roles/{role}")).status_code == 204
    assert (await keeper.put(f"/api/users/{ada.id}", json={"roles": ["keeper"]})).status_code == 200
    assert (await keeper.delete("/api/users/me/roles/keeper")).status_code == 204
    assert await refusal(await keeper.put("/api/users/me/roles/keeper")) == (403, "permission_missing")


async def test_the_same_grant_at_once_is_recorded_once(server: Server, admin, ada):
    path = f"/api/users/{ada.id}/roles/manager"
    for method, event in (("PUT", "role.granted"), ("DELETE", "role.revoked")):
        answers = await asyncio.gather(*(admin.call(method, path) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {204}
        assert len(await server.events(event)) == 1


async def test_different_grants_at_once_are_all_kept(server: Server, admin, ada):
    names = [f"role{number}" for number in range(8)]
    for name in names:
        assert (await admin.post("/api/roles", json={"name": name})).status_code == 201
    answers = await asyncio.gather(*(admin.put(f"/api/users/{ada.id}/roles/{name}") for name in names))
    assert {answer.status_code for answer in answers} == {204}
    assert await roles_of(admin, ada.id) == [*names, "user"]
