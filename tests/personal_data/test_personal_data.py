"""Personal data: handed out to its owner, and erased for good while the record still verifies."""

import json
from datetime import timedelta

import pytest

from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.audit import seals, verification
from usermgmt.personal_data import service

LOGIN = "/api/auth/login"
RETENTION = timedelta(days=30)


async def seal(server: Server) -> None:
    server.clock.move(timedelta(seconds=5))
    await seals.seal_pending(server.runtime)


async def everything(server: Server) -> str:
    """Whatever any table holds, as text."""
    tables = (
        "users",
        "login_names",
        "sessions",
        "role_grants",
        "group_members",
        "audit_events",
        "idempotency_keys",
        "throttles",
        "ip_rules",
    )
    return str([await server.rows(f"SELECT * FROM {table}") for table in tables])


async def test_an_export_holds_all_that_is_held(server: Server, admin: Person, ada: Person):
    group = (await (await admin.post("/api/groups", json={"name": "Lab"})).get_json())["id"]
    await admin.put(f"/api/groups/{group}/members/{ada.id}")
    await (await ada.elsewhere()).post("/api/auth/logout")
    response = await ada.get("/api/users/me/export")
    assert response.status_code == 200
    body = await response.get_json()
    assert set(body) == {"user", "roles", "groups", "sessions", "activity"}
    assert body["user"] == await (await ada.get("/api/users/me")).get_json()
    assert body["groups"] == [{"id": group, "name": "Lab"}]
    assert [(grant["role"], grant["group"]) for grant in body["roles"]] == [("user", None)]
    assert [session["revoked_reason"] for session in body["sessions"]] == [None, "signed_out"]
    assert {"user.created", "login.succeeded", "group.member_added"} <= {event["event"] for event in body["activity"]}
    shown = json.dumps(body)
    assert "$2b$" not in shown
    assert ada.refresh_token not in shown
    assert admin.username not in shown
    (event,) = await server.events("user.exported")
    assert (str(event.actor_id), event.target_id) == (ada.id, ada.id)


async def test_an_export_holds_the_newest_events_and_no_more(monkeypatch: pytest.MonkeyPatch, ada: Person):
    await (await ada.elsewhere()).post("/api/auth/logout")
    whole = (await (await ada.get("/api/users/me/export")).get_json())["activity"]
    monkeypatch.setattr(service, "MAX_EVENTS", len(whole))
    newest = (await (await ada.get("/api/users/me/export")).get_json())["activity"]  # and one more: the first export
    assert [event["event"] for event in newest] == ["user.exported", *(event["event"] for event in whole[:-1])]


async def test_an_erased_account_is_gone_and_its_names_are_free(server: Server, admin: Person, ada: Person):
    scope = {"client": ("198.51.100.9", 1)}
    body = {"username": "ada", "password": "wrong"}
    await server.nobody().post(LOGIN, json=body, headers={"User-Agent": "the phone of ada"}, scope_base=scope)
    await ada.put("/api/users/me", json={"display_name": "Ada of the Lab"}, scope_base=scope)
    new = {"username": "friend", "email": "friend@example.com", "password": PASSWORD}
    await ada.post("/api/users", json=new, headers={"Idempotency-Key": "once-only"}, scope_base=scope)
    await seal(server)
    before = (await verification.verify(server.runtime)).events
    assert (await admin.post(f"/api/users/{ada.id}/erase")).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/restore"), ("POST", "/erase"), ("GET", "/activity")):
        await problem_of(await admin.call(method, f"/api/users/{ada.id}{path}"), 404, "user_not_found")
    assert (await ada.get("/api/users/me")).status_code == 401
    held = await everything(server)
    for trace in ("ada@example.com", "'ada'", "Ada of the Lab", "198.51.100.9", "the phone of ada"):
        assert trace not in held, trace
    assert str(ada.id) in held or ada.id.replace("-", "") in held
    await seal(server)
    report = await verification.verify(server.runtime)
    assert report.problems == []
    assert report.events > before
    assert report.erased >= 4
    again = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    assert (await server.nobody().post("/api/users", json=again)).status_code == 201


async def test_a_deleted_account_is_erased_when_its_retention_is_over(server: Server, admin: Person, ada: Person):
    assert (await ada.delete("/api/users/me")).status_code == 204
    await server.nobody().post(LOGIN, json={"username": "ADA", "password": "wrong"})
    server.clock.move(RETENTION - timedelta(minutes=5))
    assert await service.erase_due(server.runtime) == 0
    server.clock.move(timedelta(minutes=6))
    assert await service.erase_due(server.runtime) == 1
    assert await service.erase_due(server.runtime) == 0
    assert await server.rows("SELECT * FROM users WHERE username = 'ada'") == []
    (event,) = await server.events("user.erased")
    assert (event.actor_name, event.target_id) == ("operator", ada.id)
    await seal(server)
    assert (await verification.verify(server.runtime)).problems == []


async def test_a_restored_account_is_not_erased(server: Server, admin: Person, ada: Person):
    assert (await ada.delete("/api/users/me")).status_code == 204
    server.clock.move(RETENTION + timedelta(days=1))
    root = await admin.elsewhere()
    assert (await root.post(f"/api/users/{ada.id}/restore")).status_code == 200
    assert await service.erase_due(server.runtime) == 0


async def test_the_last_administrator_is_not_erased(server: Server, admin: Person):  # G06, P15
    await problem_of(await admin.post(f"/api/users/{admin.id}/erase"), 409, "last_admin")
    assert (await admin.get("/api/users/me")).status_code == 200
    second = await server.person("second", roles=["admin"])
    assert (await second.post(f"/api/users/{admin.id}/erase")).status_code == 204
    await problem_of(await second.post("/api/users/me/erase"), 409, "last_admin")


async def test_whoever_erases_themselves_leaves_no_trace_either(server: Server, admin: Person):
    second = await server.person("second", roles=["admin"])
    scope = {"client": ("198.51.100.9", 1)}
    erased = await second.post("/api/users/me/erase", headers={"User-Agent": "their phone"}, scope_base=scope)
    assert erased.status_code == 204
    held = await everything(server)
    for trace in ("second", "198.51.100.9", "their phone"):
        assert trace not in held, trace
    await seal(server)
    assert (await verification.verify(server.runtime)).problems == []


async def test_names_that_were_typed_after_the_deletion_are_erased_in_every_spelling(server: Server, admin: Person):
    long = "a-very-long-name-before-the-sign" + "." + "x" * 30
    await server.person(long)
    await admin.delete(f"/api/users/{(await server.events('user.created'))[-1].target_id}")
    for typed in (long, long.upper(), f"{long}@example.com", f"{long}@EXAMPLE.com", "somebody-else"):
        await server.nobody().post(LOGIN, json={"username": typed, "password": "wrong"})
    server.clock.move(RETENTION + timedelta(seconds=1))
    assert await service.erase_due(server.runtime) == 1
    held = await everything(server)
    assert long.upper() not in held.upper()
    assert "somebody-else" in held
    await seal(server)
    assert (await verification.verify(server.runtime)).problems == []


async def test_nobody_erases_who_holds_more(server: Server, admin: Person):
    assert (await admin.post("/api/roles", json={"name": "eraser", "permissions": ["users:erase"]})).status_code == 201
    eraser = await server.person("eraser", roles=["eraser"])
    await problem_of(await eraser.post(f"/api/users/{admin.id}/erase"), 403, "exceeds_own_rights")


@pytest.mark.parametrize("path", ["erase", "export"])
async def test_what_does_not_exist_is_404(admin: Person, path: str):
    method = "POST" if path == "erase" else "GET"
    unknown = await admin.call(method, f"/api/users/01900000-0000-7000-8000-000000000000/{path}")
    await problem_of(unknown, 404, "user_not_found")
