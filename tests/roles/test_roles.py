import asyncio
from typing import Any

import pytest

from tests.people import Person, Server
from tests.users.accounts import field_errors, refusal, stored
from usermgmt.permissions import BUILT_IN_ROLES, Permission

AUDITOR: dict[str, Any] = {"name": "auditor", "description": "Looks on.", "permissions": ["users:read"]}


@pytest.fixture
async def keeper(server: Server, admin: Person) -> Person:
    """Somebody who defines and gives roles, but may do nothing else."""
    body = {"name": "keeper", "permissions": ["roles:manage", "roles:grant"]}
    assert (await admin.post("/api/roles", json=body)).status_code == 201
    return await server.person("kim", roles=["keeper"])


async def role_of(caller: Person, name: str) -> dict[str, Any]:
    """A role as it stands now."""
    response = await caller.get(f"/api/roles/{name}")
    assert response.status_code == 200
    role: dict[str, Any] = await response.get_json()
    return role


async def test_a_role_is_defined_changed_and_removed(server: Server, admin):
    made = await admin.post("/api/roles", json=AUDITOR)
    role = await made.get_json()
    assert (made.status_code, made.headers["Location"]) == (201, "/api/roles/auditor")
    assert role == {
        **AUDITOR,
        "built_in": False,
        "created_at": role["created_at"],
        "updated_at": role["created_at"],
    }
    assert await role_of(admin, "auditor") == role

    wish = {"description": "Looks on and deletes.", "permissions": ["users:delete", "users:read", "users:read"]}
    changed = await (await admin.put("/api/roles/auditor", json=wish)).get_json()
    assert changed == {
        **role,
        **wish,
        "permissions": ["users:delete", "users:read"],
        "updated_at": changed["updated_at"],
    }
    assert await role_of(admin, "auditor") == changed

    assert (await admin.delete("/api/roles/auditor")).status_code == 204
    for answer in (await admin.get("/api/roles/auditor"), await admin.delete("/api/roles/auditor")):
        assert await refusal(answer) == (404, "role_not_found")
    assert await server.rows("SELECT 1 FROM role_permissions WHERE role = 'auditor'") == []
    for event, target in (("role.created", "auditor"), ("role.updated", "auditor"), ("role.deleted", "auditor")):
        (record,) = await server.events(event)
        assert (record.target_type, record.target_id, str(record.actor_id)) == ("role", target, admin.id)


async def test_the_built_in_roles_are_there_from_the_start(admin):
    items = (await (await admin.get("/api/roles")).get_json())["items"]
    assert {item["name"]: item["permissions"] for item in items} == {
        role.name: sorted(role.permissions) for role in BUILT_IN_ROLES
    }
    assert all(item["built_in"] for item in items)
    assert [item["name"] for item in items] == sorted(item["name"] for item in items)


async def test_the_permissions_are_known_to_whoever_is_signed_in(server: Server, ada):
    response = await ada.get("/api/permissions")
    assert response.status_code == 200
    items = (await response.get_json())["items"]
    assert {item["name"] for item in items} == {permission.value for permission in Permission}
    assert all(item["description"] for item in items)
    assert (await server.nobody().get("/api/permissions")).status_code == 401


async def test_only_what_is_sent_is_changed(admin):
    role = await (await admin.post("/api/roles", json=AUDITOR)).get_json()
    for body in ({}, {"description": "New."}, {"permissions": []}, {"description": ""}):
        response = await admin.put("/api/roles/auditor", json=body)
        assert response.status_code == 200
        role = {**role, **body, "updated_at": (await response.get_json())["updated_at"]}
        assert await response.get_json() == role


async def test_a_role_needs_a_name_only(admin):
    role = await (await admin.post("/api/roles", json={"name": "x"})).get_json()
    assert (role["name"], role["description"], role["permissions"]) == ("x", "", [])


async def test_a_name_is_given_once(server: Server, admin):
    for name in ("auditor", "admin", "manager", "user"):
        await admin.post("/api/roles", json={**AUDITOR, "name": "auditor"})
        before = await stored(server)
        answer = await admin.post("/api/roles", json={"name": name, "permissions": [p.value for p in Permission]})
        assert await refusal(answer) == (409, "role_name_taken")
        assert await stored(server) == before


async def test_of_many_roles_of_one_name_at_once_one_is_made(server: Server, admin):
    answers = await asyncio.gather(*(admin.post("/api/roles", json=AUDITOR) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(await server.rows("SELECT 1 FROM role_permissions WHERE role = 'auditor'")) == 1
    assert len(await server.events("role.created")) == 1


async def test_a_role_has_a_plain_name(server: Server, admin):  # G13
    before = await stored(server)
    for name in (
        *(
            "admin ",
            " admin",
            "ADMIN",
            "Admin",
            "users:*",
            "users:read",
            "*",
            "",
            "a b",
            "a/b",
            "a.b",
            "-a",
            "_a",
            "1a",
        ),
        *("admin\n", "admin\u200b", "аdmin", "ａdmin", "a" * 65, "..", "a\r\nb", "role;drop", "adm%69n"),
    ):
        assert await field_errors(await admin.post("/api/roles", json={"name": name})) == {("/name", "invalid_format")}
    for name in (None, 1, [], {}):
        assert await field_errors(await admin.post("/api/roles", json={"name": name})) == {("/name", "wrong_type")}
    assert await stored(server) == before
    assert (await admin.post("/api/roles", json={"name": "a" * 64})).status_code == 201


async def test_a_name_in_a_path_has_one_spelling(admin):  # H07, G13
    for name in ("ADMIN", "Admin", "admin%20", "%20admin", "admin%0A", "admin/", "a" * 65, "%61dmin%00", "*", ".."):
        assert await refusal(await admin.get(f"/api/roles/{name}")) == (404, "not_found"), name
    assert await refusal(await admin.get("/api/roles/nosuch")) == (404, "role_not_found")


async def test_all_invalid_fields_are_told_at_once(server: Server, admin):
    before = await stored(server)
    body = {
        "name": "A",
        "description": "x" * 256,
        "permissions": ["users:read", "users:*", "*", 1, "USERS:READ", "admin"],
        "built_in": True,
        "inherits": ["auditor"],
    }
    wrong = {
        ("/name", "invalid_format"),
        ("/description", "too_long"),
        ("/permissions/1", "not_an_option"),
        ("/permissions/2", "not_an_option"),
        ("/permissions/3", "wrong_type"),
        ("/permissions/4", "not_an_option"),
        ("/permissions/5", "not_an_option"),
        ("/built_in", "unknown_field"),
        ("/inherits", "unknown_field"),
    }
    assert await field_errors(await admin.post("/api/roles", json=body)) == wrong
    renamed = {(pointer, "unknown_field" if pointer == "/name" else code) for pointer, code in wrong}
    assert await field_errors(await admin.put("/api/roles/manager", json=body)) == renamed
    nulls = {"permissions": None, "description": None}
    types = {("/permissions", "wrong_type"), ("/description", "wrong_type")}
    assert await field_errors(await admin.put("/api/roles/manager", json=nulls)) == types
    many = await admin.post("/api/roles", json={"name": "x", "permissions": ["users:read"] * 101})
    assert await field_errors(many) == {("/permissions", "too_long")}
    assert await stored(server) == before


@pytest.mark.parametrize("name", ["admin", "manager", "user"])
async def test_a_built_in_role_stays_as_it_is(server: Server, admin, name):  # G06
    before = await stored(server)
    for body in ({"permissions": []}, {"permissions": ["users:read"]}, {"description": "x"}, {}):
        assert await refusal(await admin.put(f"/api/roles/{name}", json=body)) == (409, "role_built_in")
    assert await refusal(await admin.delete(f"/api/roles/{name}")) == (409, "role_built_in")
    assert await stored(server) == before


async def test_a_role_that_somebody_holds_is_not_removed(server: Server, admin, ada):  # G13
    await admin.post("/api/roles", json=AUDITOR)
    path = f"/api/users/{ada.id}/roles/auditor"
    assert (await admin.put(path)).status_code == 204
    before = await stored(server)
    assert await refusal(await admin.delete("/api/roles/auditor")) == (409, "role_in_use")
    assert await stored(server) == before
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.delete("/api/roles/auditor")).status_code == 204


@pytest.mark.parametrize("flags", [{"registration.default_role": "auditor"}], ids=["default"])
async def test_the_role_of_new_accounts_is_not_removed(server: Server, admin):
    await admin.post("/api/roles", json=AUDITOR)
    assert await refusal(await admin.delete("/api/roles/auditor")) == (409, "role_in_use")
    body = {"username": "new", "email": "new@example.com", "password": "secure_password"}
    assert (await (await server.nobody().post("/api/users", json=body)).get_json())["roles"] == ["auditor"]


async def test_removing_a_role_while_it_is_given_leaves_both_or_neither(server: Server, admin, ada):
    for number in range(15):
        await admin.post("/api/roles", json={**AUDITOR, "name": f"role{number}"})
        given, gone, changed, made = await asyncio.gather(
            admin.put(f"/api/users/{ada.id}/roles/role{number}"),
            admin.delete(f"/api/roles/role{number}"),
            admin.put(f"/api/roles/role{number}", json={"permissions": ["users:delete"]}),
            admin.post(
                "/api/users",
                json={
                    "username": f"u{number}",
                    "email": f"u{number}@example.org",
                    "password": "secure_password",
                    "roles": [f"role{number}"],
                },
            ),
        )
        statuses = given.status_code, gone.status_code, changed.status_code, made.status_code
        is_held = 204 in statuses[:1] or 201 in statuses[3:]
        assert given.status_code in (204, 404), statuses
        assert gone.status_code == (409 if is_held else 204), statuses
        assert changed.status_code in (200, 404), statuses
        assert made.status_code in (201, 422), statuses
        assert (await admin.get(f"/api/roles/role{number}")).status_code == (200 if is_held else 404)


async def test_nobody_defines_what_they_may_not_do_themselves(server: Server, admin, keeper):
    await admin.post("/api/roles", json=AUDITOR)
    before = await stored(server)
    table: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "/api/roles", {"json": {"name": "mine", "permissions": ["users:read"]}}),
        ("POST", "/api/roles", {"json": {"name": "mine", "permissions": ["roles:manage", "users:delete"]}}),
        ("PUT", "/api/roles/keeper", {"json": {"permissions": ["roles:manage", "roles:grant", "users:write"]}}),
        ("PUT", "/api/roles/auditor", {"json": {"permissions": []}}),
        ("PUT", "/api/roles/auditor", {"json": {"description": "x"}}),
        ("PUT", "/api/roles/auditor", {"json": {}}),
        ("DELETE", "/api/roles/auditor", {}),
    )
    for method, path, options in table:
        response = await keeper.call(method, path, **options)
        assert await refusal(response) == (403, "exceeds_own_rights"), (method, path, options)
    assert await stored(server) == before


async def test_within_their_rights_they_define_what_they_like(keeper):
    body = {"name": "helper", "permissions": ["roles:grant"]}
    assert (await keeper.post("/api/roles", json=body)).status_code == 201
    assert (await keeper.put("/api/roles/helper", json={"permissions": ["roles:manage"]})).status_code == 200
    assert (await keeper.delete("/api/roles/helper")).status_code == 204


async def test_roles_are_the_business_of_who_manages_them(as_, server: Server):  # G09
    before = await stored(server)
    table: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", "/api/roles", {}),
        ("GET", "/api/roles/admin", {}),
        ("GET", "/api/roles/nosuch", {}),
        ("POST", "/api/roles", {"json": AUDITOR}),
        ("POST", "/api/roles", {"json": {"name": 1}}),
        ("POST", "/api/roles", {"data": b"{"}),
        ("PUT", "/api/roles/user", {"json": {}}),
        ("DELETE", "/api/roles/user", {}),
    )
    for method, path, options in table:
        for caller, expected in (
            ("nobody", (401, "missing_credentials")),
            ("self", (403, "permission_missing")),
            ("manager", (403, "permission_missing")),
        ):
            assert await refusal(await as_(caller).call(method, path, **options)) == expected, (method, path)
    assert await stored(server) == before


async def test_a_changed_role_takes_effect_at_the_next_request_of_its_holder(server: Server, admin):  # F10
    await admin.post("/api/roles", json={**AUDITOR, "permissions": []})
    holder = await server.person("hal", roles=["auditor"])
    for permissions, status in ((["users:read"], 200), ([], 403), (["users:read", "users:write"], 200)):
        assert (await admin.put("/api/roles/auditor", json={"permissions": permissions})).status_code == 200
        assert (await holder.get("/api/users")).status_code == status
        session = await (await holder.get("/api/auth/session")).get_json()
        assert session["permissions"] == permissions
