import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.people import PASSWORD, Server
from tests.users.accounts import assert_whole, field_errors, refusal, stored, user_of

STALE = timedelta(minutes=16)


async def grow_stale(server: Server, person) -> None:
    """Let so much time pass that a sign-in is no longer recent, and take new tokens of the same session."""
    server.clock.move(STALE)
    response = await person.post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
    person.keep(await response.get_json())


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ("nobody", (401, "missing_credentials")),
        ("stranger", (403, "permission_missing")),
        ("manager", (403, "permission_missing")),
        ("self", 204),
        ("admin", 204),
    ],
)
async def test_who_may_delete_an_account(as_, server: Server, ada, caller, expected):
    before = await stored(server)
    response = await as_(caller).delete(f"/api/users/{ada.id}")
    if expected == 204:
        assert (response.status_code, await response.get_data()) == (204, b"")
        (event,) = await server.events("user.deleted")
        assert (str(event.target_id), str(event.actor_id)) == (ada.id, as_(caller).id)
    else:
        assert await refusal(response) == expected
        assert await stored(server) == before


@pytest.mark.parametrize(
    ("is_stale", "options", "expected"),
    [
        (False, {}, 204),
        (False, {"json": {}}, 204),
        (False, {"json": {"current_password": None}}, 204),
        (False, {"json": {"current_password": PASSWORD}}, 204),
        (False, {"json": {"current_password": "wrong"}}, (403, "wrong_current_password")),
        (False, {"json": {"password": PASSWORD}}, (422, "validation_failed")),
        (False, {"json": None}, (422, "validation_failed")),
        (False, {"data": b"{", "headers": {"Content-Type": "application/json"}}, (400, "invalid_json")),
        (False, {"data": b"current_password=x"}, (415, "unsupported_media_type")),
        (True, {}, (403, "recent_sign_in_required")),
        (True, {"json": {}}, (403, "recent_sign_in_required")),
        (True, {"json": {"current_password": ""}}, (403, "wrong_current_password")),
        (True, {"json": {"current_password": "wrong"}}, (403, "wrong_current_password")),
        (True, {"json": {"current_password": PASSWORD}}, 204),
    ],
    ids=str,
)
async def test_who_deletes_themselves_proves_who_they_are(server: Server, ada, is_stale, options, expected):
    if is_stale:
        await grow_stale(server, ada)
    before = await stored(server)
    response = await ada.delete("/api/users/me", **options)
    if expected == 204:
        assert response.status_code == 204
        assert await refusal(await ada.get("/api/users/me")) == (401, "session_ended")
    else:
        assert await refusal(response) == expected
        assert await stored(server) == before
        is_wrong = expected[1] == "wrong_current_password"
        assert len(await server.events("reauthentication.failed")) == is_wrong


async def test_a_wrong_password_is_refused_though_none_is_needed(server: Server, admin):
    await server.person("second", roles=["admin"])
    before = await stored(server)
    response = await admin.delete("/api/users/me", json={"current_password": "wrong"})
    assert await refusal(response) == (403, "wrong_current_password")
    assert await stored(server) == before
    assert (await admin.delete("/api/users/me")).status_code == 204


async def test_deleting_ends_every_session(server: Server, admin, ada):
    people = [ada, await ada.elsewhere()]
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204
    for person in people:
        assert await refusal(await person.get("/api/users/me")) == (401, "session_ended")
        refreshed = await person.post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
        assert await refusal(refreshed) == (401, "session_revoked")
    (ended,) = await server.events("session.revoked")
    assert ended.details == {"reason": "user_deleted", "sessions": 2}


async def test_signing_in_to_a_deleted_account_is_answered_like_a_wrong_password(server: Server, admin, ada):  # A11
    async def answer(name: str, password: str) -> tuple[Any, ...]:
        response = await server.nobody().post("/api/auth/login", json={"username": name, "password": password})
        request_id = response.headers.pop("X-Request-ID")
        body = await response.get_data(as_text=True)
        return response.status_code, body.replace(request_id, ""), list(response.headers)

    wrong, unknown = await answer("ada", "wrong"), await answer("nobody", "wrong")
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204
    for name in ("ada", "ada@example.com"):
        assert await answer(name, PASSWORD) == wrong == unknown
    assert wrong[0] == 401


async def test_an_account_is_deleted_once(admin, ada):
    path = f"/api/users/{ada.id}"
    assert (await admin.delete(path)).status_code == 204
    assert await refusal(await admin.delete(path)) == (404, "user_not_found")
    assert await refusal(await admin.delete(f"/api/users/{uuid4()}")) == (404, "user_not_found")


async def test_of_many_deletions_at_once_one_is_recorded(server: Server, admin, ada):
    answers = await asyncio.gather(*(admin.delete(f"/api/users/{ada.id}") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7
    assert len(await server.events("user.deleted")) == 1


async def test_a_deleted_account_is_in_no_list(admin, ada, bob):
    await admin.delete(f"/api/users/{ada.id}")
    for query in ("", "?username=ada", "?q=ada", "?email=ada@example.com", "?count=exact"):
        page = await (await admin.get(f"/api/users{query}")).get_json()
        assert "ada" not in [user["username"] for user in page["items"]]
        assert page.get("count", 2) == 2


# Restoring


async def test_a_restored_account_is_as_it_was_but_signed_out(server: Server, admin, ada):
    await ada.put("/api/users/me", json={"display_name": "Ada", "attributes": {"a": 1}})
    before = await user_of(await ada.get("/api/users/me"))
    server.clock.move(timedelta(seconds=1))
    await admin.delete(f"/api/users/{ada.id}")

    response = await admin.post(f"/api/users/{ada.id}/restore")
    user = await user_of(response)
    assert user == {**before, "version": before["version"] + 2, "updated_at": user["updated_at"]}
    assert response.headers["ETag"] == f'"{user["version"]}"'
    assert await refusal(await ada.get("/api/users/me")) == (401, "session_ended")
    refreshed = await ada.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})
    assert await refusal(refreshed) == (401, "session_revoked")
    await ada.log_in()
    assert len(await server.events("user.restored")) == 1
    await assert_whole(server)


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ("nobody", (401, "missing_credentials")),
        ("self", (401, "session_ended")),
        ("stranger", (403, "permission_missing")),
        ("manager", (403, "permission_missing")),
        ("admin", 200),
    ],
)
async def test_who_may_restore_an_account(as_, server: Server, admin, ada, caller, expected):
    await admin.delete(f"/api/users/{ada.id}")
    before = await stored(server)
    response = await as_(caller).post(f"/api/users/{ada.id}/restore")
    if expected == 200:
        assert response.status_code == 200
    else:
        assert await refusal(response) == expected
        assert await stored(server) == before


async def test_only_what_is_deleted_is_restored(server: Server, admin, ada):
    before = await stored(server)
    assert await refusal(await admin.post(f"/api/users/{ada.id}/restore")) == (409, "user_not_deleted")
    assert await refusal(await admin.post("/api/users/me/restore")) == (409, "user_not_deleted")
    assert await refusal(await admin.post(f"/api/users/{uuid4()}/restore")) == (404, "user_not_found")
    assert await stored(server) == before


async def test_a_restored_administrator_has_their_rights_again(server: Server, admin):
    second = await server.person("second", roles=["admin"])
    assert (await admin.delete(f"/api/users/{second.id}")).status_code == 204
    assert (await user_of(await admin.post(f"/api/users/{second.id}/restore")))["roles"] == ["admin"]


async def test_who_may_delete_but_holds_less_cannot_touch_an_administrator(server: Server, admin):
    body = {"name": "janitor", "permissions": ["users:delete", "users:read"]}
    assert (await admin.post("/api/roles", json=body)).status_code == 201
    janitor = await server.person("jan", roles=["janitor"])
    second = await server.person("second", roles=["admin"])
    assert await refusal(await janitor.delete(f"/api/users/{second.id}")) == (403, "exceeds_own_rights")
    assert (await admin.delete(f"/api/users/{second.id}")).status_code == 204
    assert await refusal(await janitor.post(f"/api/users/{second.id}/restore")) == (403, "exceeds_own_rights")


# G06; what happens when several try at once is in tests/roles/test_last_admin.py
async def test_the_last_administrator_stays(server: Server, admin, ada):
    before = await stored(server)
    for path in (f"/api/users/{admin.id}", "/api/users/me"):
        assert await refusal(await admin.delete(path)) == (409, "last_admin")
        response = await admin.delete(path, json={"current_password": PASSWORD})
        assert await refusal(response) == (409, "last_admin")
    assert await stored(server) == before
    assert (await admin.get("/api/users/me")).status_code == 200


async def test_a_body_is_checked_before_anything_is_deleted(server: Server, ada):
    before = await stored(server)
    response = await ada.delete("/api/users/me", json={"current_password": 1, "reason": "x"})
    assert await field_errors(response) == {("/current_password", "wrong_type"), ("/reason", "unknown_field")}
    assert await stored(server) == before
