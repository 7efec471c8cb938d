"""G06: there is always somebody who may do everything, however many try to change that at once."""

import asyncio
import random

import pytest

from tests.people import PASSWORD, Person, Server
from tests.users.accounts import refusal, stored, user_of

ROUNDS = 40
WAYS = ("disable", "delete", "revoke", "replace")


async def remove(caller: Person, target: str, way: str) -> int:
    """Try to make an account no active administrator; the status of the answer."""
    path = f"/api/users/{target}"
    if way == "disable":
        return (await caller.put(path, json={"status": "disabled"})).status_code
    if way == "delete":
        return (await caller.delete(path)).status_code
    if way == "revoke":
        return (await caller.delete(f"{path}/roles/admin")).status_code
    return (await caller.patch(path, json={"roles": ["user"]})).status_code


async def active_admins(server: Server) -> set[str]:
    """Who may do everything now."""
    rows = await server.rows(
        "SELECT username FROM users JOIN role_grants ON user_id = id"
        " WHERE role = 'admin' AND status = 'active' AND deleted_at IS NULL"
    )
    return {row.username for row in rows}


async def make_them_all_admins_again(server: Server) -> None:
    """Undo what a round did, sessions included."""
    await server.execute("UPDATE users SET status = 'active', deleted_at = NULL")
    await server.execute("UPDATE sessions SET revoked_at = NULL, revoked_reason = NULL")
    await server.execute("DELETE FROM role_grants")
    await server.execute(
        "INSERT INTO role_grants (user_id, role, scope, granted_at) SELECT id, 'admin', '*', created_at FROM users"
    )


@pytest.mark.parametrize("ways", [("disable",), WAYS], ids=["disable", "mixed"])
async def test_three_administrators_who_remove_each_other_leave_one(server: Server, ways):
    people = [await server.person(name, roles=["admin"]) for name in ("ann", "ben", "cat")]
    chance = random.Random(len(ways))
    refused = 0
    for _ in range(ROUNDS):
        barrier = asyncio.Barrier(len(people))

        async def attack(caller: Person, target: Person, way: str, barrier: asyncio.Barrier = barrier) -> int:
            await barrier.wait()
            return await remove(caller, target.id, way)

        victims = people[1:] + people[:1]
        statuses = await asyncio.gather(
            *(attack(caller, target, chance.choice(ways)) for caller, target in zip(people, victims, strict=True))
        )
        assert len(await active_admins(server)) == 1, statuses
        assert set(statuses) <= {200, 204, 401, 403, 409}
        assert sum(status < 300 for status in statuses) == 2, statuses
        refused += 409 in statuses
        await make_them_all_admins_again(server)
    assert refused, "they never met: this has tested nothing"


async def test_who_all_leave_at_once_leave_one_behind(server: Server):
    people = [await server.person(name, roles=["admin"]) for name in ("ann", "ben", "cat")]
    chance = random.Random(7)
    for _ in range(ROUNDS // 4):
        statuses = await asyncio.gather(*(remove(person, "me", chance.choice(WAYS)) for person in people))
        assert sorted(status < 300 for status in statuses) == [False, True, True]
        assert 409 in statuses
        assert len(await active_admins(server)) == 1
        await make_them_all_admins_again(server)


async def test_the_last_administrator_cannot_be_removed(server: Server, admin):
    disabled = await server.person("former", roles=["admin"])
    assert (await admin.put(f"/api/users/{disabled.id}", json={"status": "disabled"})).status_code == 200
    before = await stored(server)
    for path in ("/api/users/me", f"/api/users/{admin.id}"):
        for method, where, options in (
            ("PUT", path, {"json": {"status": "disabled", "display_name": "x"}}),
            ("DELETE", path, {"json": {"current_password": PASSWORD}}),
            ("DELETE", f"{path}/roles/admin", {}),
            ("PUT", path, {"json": {"roles": ["user", "manager"], "display_name": "x"}}),
            ("PATCH", path, {"json": {"roles": []}}),
        ):
            assert await refusal(await admin.call(method, where, **options)) == (409, "last_admin")
    assert await stored(server) == before
    assert (await admin.get("/api/auth/session")).status_code == 200


async def test_a_role_that_permits_everything_does_not_make_an_administrator(server: Server, admin):
    everything = (await (await admin.get("/api/roles/admin")).get_json())["permissions"]
    assert (await admin.post("/api/roles", json={"name": "deputy", "permissions": everything})).status_code == 201
    deputy = await server.person("deputy", roles=["deputy"])
    for way in WAYS:
        assert await remove(deputy, admin.id, way) == 409
    assert await active_admins(server) == {"root"}


async def test_one_of_two_administrators_may_go(server: Server, admin):
    second = await server.person("second", roles=["admin"])
    for way in WAYS:
        assert await remove(admin, second.id, way) in (200, 204)
        assert await active_admins(server) == {"root"}
        await make_them_all_admins_again(server)
    user = await user_of(await admin.put("/api/users/me", json={"roles": ["user"]}))
    assert user["roles"] == ["user"]
    assert await active_admins(server) == {"second"}


async def test_an_administrator_may_change_what_keeps_them_one(admin):
    for body in ({"roles": ["admin", "user"]}, {"roles": ["admin"]}, {"status": "active"}, {"display_name": "x"}):
        assert (await admin.put("/api/users/me", json=body)).status_code == 200
