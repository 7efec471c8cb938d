"""Every change, sign-in and refusal leaves exactly one record, and no record holds a secret."""

import json
from datetime import timedelta

import pytest

from tests.people import PASSWORD, Person, Server
from usermgmt.telemetry.logs import hush_libraries

NEW_PASSWORD = "a quite different passphrase"


async def sign_in(server: Server, ada: Person, _: Person) -> None:
    await ada.elsewhere()


async def fail_to_sign_in(server: Server, ada: Person, _: Person) -> None:
    await server.nobody().post("/api/auth/login", json={"username": "ada", "password": "wrong"})


async def refresh(server: Server, ada: Person, _: Person) -> None:
    await ada.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})


async def use_a_refresh_token_twice(server: Server, ada: Person, _: Person) -> None:
    await refresh(server, ada, _)
    server.clock.move(timedelta(seconds=11))
    for _again in range(3):
        await refresh(server, ada, _)


async def log_out(server: Server, ada: Person, _: Person) -> None:
    for _again in range(2):
        await ada.post("/api/auth/logout")


async def wander(server: Server, ada: Person, _: Person) -> None:
    await ada.get("/api/users")


async def guess_the_password(server: Server, ada: Person, _: Person) -> None:
    await ada.put("/api/users/me", json={"password": NEW_PASSWORD, "current_password": "wrong"})


async def change_the_password(server: Server, ada: Person, _: Person) -> None:
    await ada.put("/api/users/me", json={"password": NEW_PASSWORD, "current_password": PASSWORD})


async def register(server: Server, ada: Person, _: Person) -> None:
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
    await server.nobody().post("/api/users", json=body)


async def rename(server: Server, ada: Person, _: Person) -> None:
    await ada.put("/api/users/me", json={"display_name": "Ada"})


async def disable(server: Server, ada: Person, admin: Person) -> None:
    for _again in range(2):
        await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"})


async def disable_and_enable(server: Server, ada: Person, admin: Person) -> None:
    await disable(server, ada, admin)
    await admin.put(f"/api/users/{ada.id}", json={"status": "active"})


async def delete(server: Server, ada: Person, admin: Person) -> None:
    for _again in range(2):
        await admin.delete(f"/api/users/{ada.id}")


async def delete_and_restore(server: Server, ada: Person, admin: Person) -> None:
    await delete(server, ada, admin)
    await admin.post(f"/api/users/{ada.id}/restore")


async def grant(server: Server, ada: Person, admin: Person) -> None:
    for _again in range(2):
        await admin.put(f"/api/users/{ada.id}/roles/manager")


async def grant_and_revoke(server: Server, ada: Person, admin: Person) -> None:
    await grant(server, ada, admin)
    for _again in range(2):
        await admin.delete(f"/api/users/{ada.id}/roles/manager")


async def keep_a_role(server: Server, ada: Person, admin: Person) -> None:
    await admin.post("/api/roles", json={"name": "auditor"})
    await admin.put("/api/roles/auditor", json={"description": "looks on"})
    await admin.delete("/api/roles/auditor")


@pytest.mark.parametrize(
    ("act", "event", "outcome"),
    [
        (sign_in, "login.succeeded", "success"),
        (fail_to_sign_in, "login.failed", "failure"),
        (refresh, "session.refreshed", "success"),
        (use_a_refresh_token_twice, "session.refresh_reused", "failure"),
        (log_out, "session.revoked", "success"),
        (wander, "access.denied", "failure"),
        (guess_the_password, "reauthentication.failed", "failure"),
        (change_the_password, "user.password_changed", "success"),
        (register, "user.created", "success"),
        (rename, "user.updated", "success"),
        (disable, "user.disabled", "success"),
        (disable_and_enable, "user.enabled", "success"),
        (delete, "user.deleted", "success"),
        (delete_and_restore, "user.restored", "success"),
        (grant, "role.granted", "success"),
        (grant_and_revoke, "role.revoked", "success"),
        (keep_a_role, "role.created", "success"),
        (keep_a_role, "role.updated", "success"),
        (keep_a_role, "role.deleted", "success"),
    ],
)
async def test_each_act_is_recorded_once(server: Server, admin, ada, act, event, outcome):  # K01
    before = len(await server.events(event))
    await act(server, ada, admin)
    new = (await server.events(event))[before:]
    assert [(row.event, row.outcome) for row in new] == [(event, outcome)]
    assert new[0].request_id
    assert new[0].at.tzinfo is not None


async def test_a_record_names_actor_target_and_session(server: Server, admin, ada):
    await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"}, headers={"X-Request-ID": "from-the-proxy-1"})
    (row,) = await server.events("user.disabled")
    assert (str(row.actor_id), row.actor_name) == (admin.id, "root")
    assert (row.target_type, row.target_id, str(row.owner_id)) == ("user", ada.id, ada.id)
    assert row.session_id is not None
    assert row.request_id == "from-the-proxy-1"


async def test_a_refused_change_leaves_the_refusal_and_nothing_else(server: Server, manager, admin):
    before = await server.events()
    refused = await manager.put(f"/api/users/{admin.id}", json={"display_name": "mine"})
    assert refused.status_code == 403
    (row,) = (await server.events())[len(before) :]
    assert (row.event, row.target_id) == ("access.denied", "PUT /api/users/<user_ref:user_id>")
    assert row.details == {"code": "exceeds_own_rights"}


async def test_the_record_holds_no_secret(server: Server, admin, ada, caplog):  # K02
    caplog.set_level("DEBUG")
    hush_libraries()
    for act in (
        sign_in,
        fail_to_sign_in,
        refresh,
        guess_the_password,
        change_the_password,
        register,
        use_a_refresh_token_twice,
    ):
        await act(server, ada, admin)
    kept = await server.rows("SELECT * FROM audit_events")
    written = json.dumps([list(map(str, row)) for row in kept]) + caplog.text
    for secret in (PASSWORD, NEW_PASSWORD, ada.refresh_token, ada.access_token or "-", "$2b$"):
        assert secret not in written
