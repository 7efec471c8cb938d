"""Groups, and roles that are held over one of them: whoever holds one is confined to its members."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tests.people import Person, Server
from tests.problems import problem_of

ABSENT = "01900000-0000-7000-8000-000000000000"
GROUPS = "/api/groups"


async def made(admin: Person, name: str) -> str:
    """A group; its id."""
    response = await admin.post(GROUPS, json={"name": name})
    assert response.status_code == 201, await response.get_data(as_text=True)
    group_id: str = (await response.get_json())["id"]
    return group_id


@dataclass
class Place:
    """Two groups, somebody who manages the first, and people inside and outside of it."""

    lab: str
    shop: str
    chief: Person
    member: Person
    outsider: Person
    admin: Person


@pytest.fixture
async def place(server: Server, admin: Person, ada: Person, bob: Person) -> Place:
    lab, shop = await made(admin, "Lab"), await made(admin, "Shop")
    everything = [
        "users:read",
        "users:write",
        "users:delete",
        "users:erase",
        "users:export",
        "sessions:manage",
        "audit:read",
        "roles:grant",
        "roles:manage",
        "groups:manage",
    ]
    assert (await admin.post("/api/roles", json={"name": "chief", "permissions": everything})).status_code == 201
    chief = await server.person("chief")
    for path in (
        f"{GROUPS}/{lab}/members/{ada.id}",
        f"{GROUPS}/{shop}/members/{bob.id}",
        f"/api/users/{chief.id}/roles/chief?group={lab}",
    ):
        assert (await admin.put(path)).status_code == 204, path
    return Place(lab, shop, chief, ada, bob, admin)


# Groups


async def test_a_group_is_made_read_changed_and_removed(server: Server, admin: Person, ada: Person):
    group = await made(admin, "Lab")
    path = f"{GROUPS}/{group}"
    body = await (await admin.put(path, json={"description": "Where things explode."})).get_json()
    assert (body["name"], body["description"], body["members"]) == ("Lab", "Where things explode.", 0)
    assert (await admin.put(f"{path}/members/{ada.id}")).status_code == 204
    assert (await admin.put(f"{path}/members/{ada.id}")).status_code == 204
    assert (await (await admin.get(path)).get_json())["members"] == 1
    assert (await (await ada.get("/api/users/me")).get_json())["groups"] == [group]
    listed = await (await admin.get(f"/api/users?group={group}")).get_json()
    assert [user["username"] for user in listed["items"]] == ["ada"]
    assert [each["id"] for each in (await (await admin.get(GROUPS)).get_json())["items"]] == [group]
    assert (await admin.delete(f"{path}/members/{ada.id}")).status_code == 204
    assert (await admin.delete(f"{path}/members/{ada.id}")).status_code == 204
    assert (await (await ada.get("/api/users/me")).get_json())["groups"] == []
    assert (await admin.delete(path)).status_code == 204
    await problem_of(await admin.get(path), 404, "group_not_found")
    names = ["group.created", "group.updated", "group.member_added", "group.member_removed", "group.deleted"]
    assert [event.event for event in await server.events() if event.event.startswith("group.")] == names


async def test_a_name_is_taken_once(admin: Person):
    await made(admin, "Lab")
    await problem_of(await admin.post(GROUPS, json={"name": "Lab"}), 409, "group_name_taken")
    other = await made(admin, "Shop")
    await problem_of(await admin.put(f"{GROUPS}/{other}", json={"name": "Lab"}), 409, "group_name_taken")
    assert (await admin.put(f"{GROUPS}/{other}", json={"name": "Shop"})).status_code == 200


async def test_one_of_many_makes_a_name(admin: Person):
    answers = await asyncio.gather(*(admin.post(GROUPS, json={"name": "Lab"}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19


async def test_one_of_many_takes_a_name(admin: Person):
    groups = [await made(admin, f"group {number}") for number in range(10)]
    answers = await asyncio.gather(*(admin.put(f"{GROUPS}/{group}", json={"name": "Lab"}) for group in groups))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


async def test_what_does_not_exist_has_no_members(admin: Person, ada: Person):
    group = await made(admin, "Lab")
    for method in ("PUT", "DELETE"):
        absent = await admin.call(method, f"{GROUPS}/{ABSENT}/members/{ada.id}")
        await problem_of(absent, 404, "group_not_found")
        unknown = await admin.call(method, f"{GROUPS}/{group}/members/{ABSENT}")
        await problem_of(unknown, 404, "user_not_found")


@pytest.mark.parametrize("name", ["", " x", "x ", "a\tb", "\u202e", "x" * 65, "a\nb"])
async def test_what_is_no_name_is_422(admin: Person, name: str):
    await problem_of(await admin.post(GROUPS, json={"name": name}), 422, "validation_failed")


# Confined to a group


async def test_a_list_holds_the_members_only(place: Place):
    listed = await (await place.chief.get("/api/users?count=exact")).get_json()
    assert [user["username"] for user in listed["items"]] == ["ada"]
    assert listed["count"] == 1
    for query in (f"group={place.shop}", "username=bob", "q=bob", "role=admin", "email=bob@example.com"):
        found = await (await place.chief.get(f"/api/users?count=exact&{query}")).get_json()
        assert (found["items"], found["count"]) == ([], 0), query


REQUESTS: list[tuple[str, str, dict[str, Any] | None, int]] = [
    ("GET", "", None, 200),
    ("PUT", "", {"display_name": "x"}, 200),
    ("PUT", "", {"status": "disabled"}, 200),
    ("PUT", "", {"email": "new@example.com"}, 200),
    ("PUT", "", {"password": "a phrase that nobody has"}, 200),
    ("PATCH", "", {"attributes": {"a": 1}}, 200),
    ("DELETE", "", None, 204),
    ("GET", "/sessions", None, 200),
    ("DELETE", "/sessions", None, 204),
    ("DELETE", f"/sessions/{ABSENT}", None, 404),
    ("GET", "/activity", None, 200),
    ("GET", "/export", None, 200),
    ("GET", "/roles", None, 200),
    ("POST", "/erase", None, 204),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), REQUESTS)
async def test_members_are_within_reach_and_nobody_else_is(
    server: Server, place: Place, method: str, path: str, body: dict[str, Any] | None, status: int
):
    options = {} if body is None else {"json": body}
    before = await server.rows("SELECT id, version, status FROM users ORDER BY id")
    for other in (place.outsider.id, place.admin.id, ABSENT):
        refused = await place.chief.call(method, f"/api/users/{other}{path}", **options)
        await problem_of(refused, 404, "user_not_found")
    assert await server.rows("SELECT id, version, status FROM users ORDER BY id") == before
    assert (await place.chief.call(method, f"/api/users/{place.member.id}{path}", **options)).status_code == status


async def test_an_answer_does_not_tell_an_outsider_from_nobody(place: Place):  # B06
    for path in ("", "/sessions", "/activity", "/export", "/roles"):
        answers = []
        for user_id in (place.outsider.id, ABSENT):
            response = await place.chief.get(f"/api/users/{user_id}{path}", headers={"X-Request-ID": "the-very-same"})
            answers.append((response.status_code, await response.get_data(), sorted(response.headers.keys())))
        assert answers[0] == answers[1], path


async def test_the_record_is_confined_too(server: Server, place: Place):
    listed = await (await place.chief.get("/api/audit?limit=100")).get_json()
    assert {event["target"]["id"] for event in listed["items"]} == {place.member.id}
    everything = await (await place.admin.get("/api/audit?limit=100")).get_json()
    assert {event["target"]["id"] for event in everything["items"]} > {place.member.id, place.outsider.id}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/roles", None),
        ("POST", "/api/roles", {"name": "mine"}),
        ("GET", "/api/groups", None),
        ("POST", "/api/groups", {"name": "mine"}),
        ("PUT", "/api/groups/{lab}/members/{outsider}", None),
        ("DELETE", "/api/groups/{lab}", None),
        ("PUT", "/api/users/{member}/roles/user", None),
        ("PUT", "/api/users/{member}/roles/chief", None),
        ("PUT", "/api/users/{member}/roles/chief?group={shop}", None),
        ("DELETE", "/api/users/{member}/roles/user", None),
        ("PUT", "/api/users/me", {"status": "active"}),
        ("PUT", "/api/users/me", {"roles": ["admin"]}),
        ("PUT", "/api/users/{member}", {"roles": ["chief"]}),
    ],
)
async def test_what_is_over_everything_stays_closed(  # G14
    server: Server, place: Place, method: str, path: str, body: dict[str, Any] | None
):
    words = {"lab": place.lab, "shop": place.shop, "member": place.member.id, "outsider": place.outsider.id}
    options = {} if body is None else {"json": body}
    before = await server.rows("SELECT user_id, role, scope FROM role_grants ORDER BY 1, 2, 3")
    assert (await place.chief.call(method, path.format(**words), **options)).status_code == 403
    assert await server.rows("SELECT user_id, role, scope FROM role_grants ORDER BY 1, 2, 3") == before


async def test_a_role_over_the_own_group_can_be_passed_on(server: Server, place: Place):
    path = f"/api/users/{place.member.id}/roles/chief?group={place.lab}"
    assert (await place.chief.put(path)).status_code == 204
    other = await server.person("other")
    assert (await place.admin.put(f"{GROUPS}/{place.lab}/members/{other.id}")).status_code == 204
    assert (await place.member.get(f"/api/users/{other.id}")).status_code == 200
    grants = await (await place.member.get("/api/users/me/roles")).get_json()
    assert [(grant["role"], grant["group"]) for grant in grants["items"]] == [("user", None), ("chief", place.lab)]
    assert (await place.chief.delete(path)).status_code == 204
    assert (await place.member.get(f"/api/users/{other.id}")).status_code == 403


async def test_nobody_in_the_group_who_holds_more_can_be_touched(server: Server, place: Place):
    assert (await place.admin.put(f"{GROUPS}/{place.lab}/members/{place.admin.id}")).status_code == 204
    target = f"/api/users/{place.admin.id}"
    assert (await place.chief.get(target)).status_code == 200
    for method, path, body in [
        ("PUT", "", {"email": "mine@example.com"}),
        ("PUT", "", {"password": "a phrase that nobody has"}),
        ("PUT", "", {"status": "disabled"}),
        ("DELETE", "", None),
        ("POST", "/erase", None),
        ("DELETE", "/sessions", None),
        ("PUT", f"/roles/chief?group={place.lab}", None),
    ]:
        options = {} if body is None else {"json": body}
        refused = await place.chief.call(method, f"{target}{path}", **options)
        await problem_of(refused, 403, "exceeds_own_rights")
    assert (await place.admin.get("/api/users/me")).status_code == 200


async def test_nobody_moves_an_account_within_reach_of_rights_that_they_lack(server: Server, place: Place):
    body = {"name": "sorter", "permissions": ["groups:manage", "users:read"]}
    assert (await place.admin.post("/api/roles", json=body)).status_code == 201
    sorter = await server.person("sorter", roles=["sorter"])
    path = f"{GROUPS}/{place.lab}/members/{place.outsider.id}"
    await problem_of(await sorter.put(path), 403, "exceeds_own_rights")
    await problem_of(await sorter.delete(f"{GROUPS}/{place.lab}"), 403, "exceeds_own_rights")
    assert (await sorter.put(f"{GROUPS}/{place.shop}/members/{place.member.id}")).status_code == 204
    assert (await place.chief.get(f"/api/users/{place.outsider.id}")).status_code == 404


async def test_whoever_leaves_the_group_is_out_of_reach_at_once(place: Place):  # G14
    target = f"/api/users/{place.member.id}"
    assert (await place.chief.get(target)).status_code == 200
    assert (await place.admin.delete(f"{GROUPS}/{place.lab}/members/{place.member.id}")).status_code == 204
    assert (await place.chief.get(target)).status_code == 404


async def test_with_a_group_go_the_roles_over_it(server: Server, place: Place):  # G14
    assert (await place.admin.delete(f"{GROUPS}/{place.lab}")).status_code == 204
    assert (await place.chief.get("/api/users")).status_code == 403
    assert await server.rows("SELECT * FROM role_grants WHERE scope <> '*'") == []


async def test_a_role_over_what_does_not_exist_is_refused(place: Place):  # G14
    absent = f"/api/users/{place.member.id}/roles/chief?group={ABSENT}"
    await problem_of(await place.admin.put(absent), 404, "group_not_found")
    await problem_of(await place.admin.put(f"/api/users/{ABSENT}/roles/chief?group={place.lab}"), 404, "user_not_found")
    upper = f"/api/users/{place.member.id}/roles/chief?group={place.lab.upper()}"
    await problem_of(await place.admin.put(upper), 422, "validation_failed")


async def test_a_session_tells_what_is_permitted_over_which_group(place: Place):
    body = await (await place.chief.get("/api/auth/session")).get_json()
    assert (body["roles"], body["permissions"]) == (["user"], [])
    assert set(body["group_permissions"]) == {place.lab}
    assert "roles:manage" not in body["group_permissions"][place.lab]
    assert "users:write" in body["group_permissions"][place.lab]


async def test_admin_over_a_group_is_no_administrator(server: Server, admin: Person, ada: Person, bob: Person):
    lab = await made(admin, "Lab")
    assert (await admin.put(f"/api/users/{ada.id}/roles/admin?group={lab}")).status_code == 204
    assert (await ada.get("/api/roles")).status_code == 403
    await problem_of(await admin.delete(f"/api/users/{admin.id}"), 409, "last_admin")


async def test_granting_over_a_group_that_is_being_removed_leaves_no_grant(server: Server, admin: Person, ada: Person):
    for _ in range(10):
        lab = await made(admin, "Lab")
        path = f"/api/users/{ada.id}/roles/manager?group={lab}"
        granted, removed = await asyncio.gather(admin.put(path), admin.delete(f"{GROUPS}/{lab}"))
        assert (granted.status_code, removed.status_code) in ((204, 204), (404, 204))
        assert await server.rows("SELECT * FROM role_grants WHERE scope <> '*'") == []
