"""POST /api/auth/logout."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.auth.conftest import StartServer, at
from tests.people import Person, Server

LOGOUT = "/api/auth/logout"
REFRESH = "/api/auth/refresh"


# This session


async def test_signing_out_ends_this_session_at_once_and_no_other(server: Server, ada: Person, bob: Person):  # F06
    elsewhere = await ada.elsewhere()
    response = await ada.post(LOGOUT)
    assert response.status_code == 204
    assert await response.get_data() == b""
    assert response.headers["Cache-Control"] == "no-store"
    assert await _alive(ada) == (False, False)
    assert await _alive(elsewhere) == (True, True)
    assert await _alive(bob) == (True, True)


async def test_signing_out_again_changes_nothing(stopped: Server, ada: Person):  # F06
    assert (await ada.post(LOGOUT)).status_code == 204
    before = await stopped.rows("SELECT revoked_at, revoked_reason FROM sessions")
    stopped.clock.move(timedelta(minutes=1))
    assert (await ada.post(LOGOUT)).status_code == 204
    assert (await stopped.nobody().post(LOGOUT, json={"refresh_token": ada.refresh_token})).status_code == 204
    assert await stopped.rows("SELECT revoked_at, revoked_reason FROM sessions") == before
    assert len(await stopped.events("session.revoked")) == 1


async def test_signing_out_is_on_record(server: Server, ada: Person):
    session = (await (await ada.get("/api/auth/session")).get_json())["session"]
    assert (await ada.post(LOGOUT)).status_code == 204
    (event,) = await server.events("session.revoked")
    assert (event.outcome, event.details) == ("success", {"reason": "signed_out"})
    assert (str(event.actor_id), event.actor_name, event.target_id) == (ada.id, "ada", ada.id)
    assert str(event.session_id) == session["id"]


async def test_a_refresh_token_of_any_generation_signs_out(server: Server, ada: Person):
    first = ada.refresh_token
    elsewhere = await ada.elsewhere()
    for _ in range(2):
        refreshed = await server.nobody().post(REFRESH, json={"refresh_token": ada.refresh_token})
        ada.keep(await refreshed.get_json())
    assert (await server.nobody().post(LOGOUT, json={"refresh_token": first})).status_code == 204
    assert await _alive(ada) == (False, False)
    assert await _alive(elsewhere) == (True, True)
    assert await server.events("session.refresh_reused") == []


async def test_two_tokens_end_the_session_of_each(server: Server, ada: Person):
    elsewhere, third = await ada.elsewhere(), await ada.elsewhere()
    assert (await ada.post(LOGOUT, json={"refresh_token": elsewhere.refresh_token})).status_code == 204
    assert await _alive(ada) == (False, False)
    assert await _alive(elsewhere) == (False, False)
    assert await _alive(third) == (True, True)
    assert len(await server.events("session.revoked")) == 2


async def test_an_expired_access_token_signs_out_with_a_refresh_token_beside_it(stopped: Server, ada: Person):  # F06
    stopped.clock.move(timedelta(minutes=11))
    assert (await ada.post(LOGOUT)).status_code == 401
    assert (await ada.post(LOGOUT, json={"refresh_token": ada.refresh_token})).status_code == 204
    assert await _alive(ada) == (False, False)
    assert len(await stopped.events("session.revoked")) == 1


async def test_signing_out_many_times_at_once_is_on_record_once(server: Server, ada: Person):
    answers = await asyncio.gather(*(ada.post(LOGOUT) for _ in range(10)))
    assert {response.status_code for response in answers} == {204}
    assert len(await server.events("session.revoked")) == 1


# The others, and all


async def test_the_others_end_and_this_one_stays(server: Server, ada: Person, bob: Person):
    others = [await ada.elsewhere() for _ in range(3)]
    assert (await ada.post(f"{LOGOUT}?scope=others")).status_code == 204
    assert [await _alive(other) for other in others] == [(False, False)] * 3
    assert await _alive(ada) == (True, True)
    assert await _alive(bob) == (True, True)
    (event,) = await server.events("session.revoked")
    assert (event.target_id, event.details) == (ada.id, {"reason": "signed_out", "sessions": 3})
    assert (await ada.post(f"{LOGOUT}?scope=others")).status_code == 204
    assert len(await server.events("session.revoked")) == 1


async def test_all_end(server: Server, ada: Person, bob: Person):
    other = await ada.elsewhere()
    assert (await ada.post(f"{LOGOUT}?scope=all")).status_code == 204
    assert [await _alive(person) for person in (ada, other)] == [(False, False)] * 2
    assert await _alive(bob) == (True, True)
    (event,) = await server.events("session.revoked")
    assert event.details == {"reason": "signed_out", "sessions": 2}


@pytest.mark.parametrize("scope", ["others", "all"])
async def test_a_dead_session_cannot_end_what_was_opened_since(server: Server, ada: Person, scope):
    assert (await ada.post(LOGOUT)).status_code == 204
    elsewhere = await ada.elsewhere()
    assert (await ada.post(f"{LOGOUT}?scope={scope}")).status_code == 401
    assert await _alive(elsewhere) == (True, True)


# Refusals


async def test_who_may_sign_out_and_who_is_refused(server: Server, ada: Person, bob: Person):
    cases: list[tuple[str, str | None, Any, int]] = [
        # (query, authorization, body, status)
        ("", None, None, 401),
        ("", None, {}, 401),
        ("", None, {"refresh_token": None}, 401),
        ("", None, {"refresh_token": ""}, 401),
        ("", None, {"refresh_token": ada.access_token}, 401),  # E06
        ("", None, {"refresh_token": ada.refresh_token[:-1]}, 401),
        ("", None, {"refresh_token": 1}, 422),
        ("", None, {"refresh_token": ["x"]}, 422),
        ("", None, {"session_id": "x"}, 422),
        ("", None, [], 422),
        ("", "Bearer", None, 401),
        ("", "Bearer broken", None, 401),
        ("", "Basic YWRhOnB3", None, 401),
        ("", f"Bearer {ada.refresh_token}", None, 401),  # E06
        ("", f"Bearer {ada.access_token}", {"refresh_token": "broken"}, 401),
        ("?scope=this", None, None, 401),
        ("?scope=others", None, None, 401),
        ("?scope=all", None, None, 401),
        ("?scope=all", None, {"refresh_token": ada.refresh_token}, 401),
        ("?scope=ALL", f"Bearer {ada.access_token}", None, 422),
        ("?scope=", f"Bearer {ada.access_token}", None, 422),
        ("?scope=all&scope=this", f"Bearer {ada.access_token}", None, 422),
        ("?user=me", f"Bearer {ada.access_token}", None, 422),
        ("?access_token=x", None, None, 422),
    ]
    for query, authorization, body, status in cases:
        headers = {"Authorization": authorization} if authorization is not None else {}
        options = {"json": body} if body is not None else {}
        response = await server.nobody().post(LOGOUT + query, headers=headers, **options)
        assert (query, authorization, body, response.status_code) == (query, authorization, body, status)
        assert response.mimetype == "application/problem+json"
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert await _alive(ada) == (True, True)
    assert await server.events("session.revoked") == []


async def test_a_form_post_of_another_site_signs_nobody_out(server: Server, ada: Person):  # J03
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        body = f'{{"refresh_token": "{ada.refresh_token}"}}'
        response = await server.nobody().post(LOGOUT, data=body, headers={"Content-Type": media_type})
        assert (media_type, response.status_code) == (media_type, 415)
    assert await _alive(ada) == (True, True)


# Several instances


async def test_another_instance_knows_at_the_next_request(  # L08, F10
    server: Server, ada: Person, another_server: StartServer
):
    there = at(await another_server(), ada)
    assert await _alive(there) == (True, True)
    ada.keep({"access_token": there.access_token, "refresh_token": there.refresh_token})
    assert (await ada.post(LOGOUT)).status_code == 204
    assert await _alive(there) == (False, False)
    assert (await there.post(LOGOUT)).status_code == 204


@pytest.mark.parametrize("scope", ["others", "all"])
async def test_ending_many_sessions_reaches_another_instance(
    server: Server, ada: Person, another_server: StartServer, scope
):
    other = await another_server()
    elsewhere = at(other, await ada.elsewhere())
    assert await _alive(elsewhere) == (True, True)
    assert (await ada.post(f"{LOGOUT}?scope={scope}")).status_code == 204
    assert await _alive(elsewhere) == (False, False)
    assert await _alive(at(other, ada)) == ((True, True) if scope == "others" else (False, False))


async def test_a_lost_right_is_lost_on_another_instance_at_the_next_request(  # F10
    server: Server, admin: Person, manager: Person, another_server: StartServer
):
    there = at(await another_server(), manager)
    assert (await there.get("/api/users")).status_code == 200
    for _ in range(5):
        assert (await admin.delete(f"/api/users/{manager.id}/roles/manager")).status_code == 204
        assert (await there.get("/api/users")).status_code == 403
        assert (await admin.put(f"/api/users/{manager.id}/roles/manager")).status_code == 204
        assert (await there.get("/api/users")).status_code == 200


async def _alive(person: Person) -> tuple[bool, bool]:
    """Whether the access token opens anything, and whether the refresh token is exchanged; if so, for the new pair."""
    answers = await person.get("/api/auth/session")
    assert answers.status_code in (200, 401)
    refreshed = await Person(person._server).post(REFRESH, json={"refresh_token": person.refresh_token})
    assert refreshed.status_code in (200, 401)
    if refreshed.status_code == 200:
        person.keep(await refreshed.get_json())
    return answers.status_code == 200, refreshed.status_code == 200
