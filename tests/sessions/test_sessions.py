"""Who is signed in where: listing sessions and ending them, in force at the next request on every worker."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.settings import Settings

HALF_A_MINUTE = timedelta(seconds=30)
LOGIN = "/api/auth/login"


def sessions_of(person: Person) -> str:
    return f"/api/users/{person.id}/sessions"


async def listed(asker: Person, person: Person) -> list[dict[str, Any]]:
    response = await asker.get(sessions_of(person))
    assert response.status_code == 200
    items: list[dict[str, Any]] = (await response.get_json())["items"]
    return items


async def statuses(*people: Person) -> list[int]:
    """Whether each of them is still signed in."""
    return [(await person.get("/api/auth/session")).status_code for person in people]


async def test_one_sees_where_one_is_signed_in(server: Server, ada: Person, bob: Person):  # F13
    body = {"username": "ada", "password": PASSWORD}
    scope = {"client": ("192.0.2.7", 1)}
    await server.nobody().post(LOGIN, json=body, headers={"User-Agent": "a phone"}, scope_base=scope)
    newest, oldest = await listed(ada, ada)
    assert (newest["current"], oldest["current"]) == (False, True)
    assert (newest["address"], newest["user_agent"]) == ("192.0.2.7", "a phone")
    assert set(newest) == {
        "id",
        "current",
        "created_at",
        "authenticated_at",
        "refreshed_at",
        "expires_at",
        "idle_expires_at",
        "address",
        "user_agent",
    }
    response = await ada.get("/api/users/me/sessions")
    shown = await response.get_data(as_text=True)
    assert ada.refresh_token not in shown
    assert response.headers["Cache-Control"] == "no-store"


async def test_one_ends_one_session_the_others_or_all(server: Server, ada: Person):
    phone, tablet, laptop = [await ada.elsewhere() for _ in range(3)]
    ids = [session["id"] for session in await listed(ada, ada)]
    assert (await ada.delete(f"{sessions_of(ada)}/{ids[0]}")).status_code == 204
    assert await statuses(ada, phone, tablet, laptop) == [200, 200, 200, 401]
    assert (await phone.delete(f"{sessions_of(ada)}?scope=others")).status_code == 204
    assert await statuses(ada, phone, tablet) == [401, 200, 401]
    assert (await phone.delete(sessions_of(ada))).status_code == 204
    assert await statuses(phone) == [401]
    for person in (ada, phone, tablet, laptop):
        body = {"refresh_token": person.refresh_token}
        await problem_of(await server.nobody().post("/api/auth/refresh", json=body), 401, "session_revoked")


async def test_what_is_no_live_session_of_the_account_is_404(server: Server, ada: Person, bob: Person):  # F13
    (other,) = await listed(bob, bob)
    (own,) = await listed(ada, ada)
    absent = "01900000-0000-7000-8000-000000000000"
    for session_id in (other["id"], absent):
        await problem_of(await ada.delete(f"{sessions_of(ada)}/{session_id}"), 404, "session_not_found")
    await problem_of(await ada.delete(f"{sessions_of(ada)}/{own['id'].upper()}"), 404, "not_found")
    assert await statuses(ada, bob) == [200, 200]


async def test_administrators_end_sessions_but_not_of_those_who_hold_more(server: Server, admin: Person, ada: Person):
    body = {"name": "guard", "permissions": ["sessions:manage"]}
    assert (await admin.post("/api/roles", json=body)).status_code == 201
    guard = await server.person("guard", roles=["guard"])
    assert len(await listed(guard, ada)) == 1
    assert (await guard.delete(sessions_of(ada))).status_code == 204
    assert await statuses(ada) == [401]
    assert len(await listed(guard, admin)) == 1
    (session,) = await listed(guard, admin)
    await problem_of(await guard.delete(sessions_of(admin)), 403, "exceeds_own_rights")
    await problem_of(await guard.delete(f"{sessions_of(admin)}/{session['id']}"), 403, "exceeds_own_rights")
    assert await statuses(admin) == [200]
    (event,) = await server.events("session.revoked")
    assert (event.actor_name, event.target_id, event.details["reason"]) == ("guard", ada.id, "revoked_by_admin")


@pytest.mark.parametrize("path", ["", "/01900000-0000-7000-8000-000000000000"])
async def test_an_unknown_account_has_no_sessions(admin: Person, path: str):
    unknown = f"/api/users/01900000-0000-7000-8000-000000000001/sessions{path}"
    await problem_of(await admin.delete(unknown), 404, "user_not_found")
    if not path:
        await problem_of(await admin.get(unknown), 404, "user_not_found")


async def test_an_ended_session_is_refused_by_the_other_worker_at_once(server: Server, settings: Settings, ada: Person):
    other = Server(settings)  # L08
    async with other.running():
        for _ in range(20):
            phone = await ada.elsewhere()
            elsewhere = Person(other)
            elsewhere.access_token = phone.access_token
            assert await statuses(elsewhere) == [200]
            newest, *_ = await listed(ada, ada)
            assert (await ada.delete(f"{sessions_of(ada)}/{newest['id']}")).status_code == 204
            assert await statuses(elsewhere) == [401]


@pytest.mark.parametrize("flags", [{"tokens.max_sessions": 3}], ids=["three"])
async def test_the_newest_sessions_stay_when_there_are_too_many(server: Server, ada: Person):  # F12
    others = [await ada.elsewhere() for _ in range(4)]
    assert await statuses(ada, *others) == [401, 401, 200, 200, 200]
    assert len(await listed(others[-1], ada)) == 3
    reasons = [event.details["reason"] for event in await server.events("session.revoked")]
    assert reasons == ["too_many_sessions"] * 2


@pytest.mark.parametrize("flags", [{"tokens.max_sessions": 3}], ids=["three"])
async def test_fifty_sign_ins_at_once_leave_no_session_too_many(server: Server, ada: Person):  # F12
    body = {"username": "ada", "password": PASSWORD}
    answers = await asyncio.gather(*(server.nobody().post(LOGIN, json=body) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    live = await server.rows("SELECT count(*) FROM sessions WHERE revoked_at IS NULL")
    assert live == [(3,)]


@pytest.mark.parametrize("flags", [{"tokens.session_idle_lifetime": "1h", "tokens.session_lifetime": "3h"}], ids=["h"])
async def test_a_session_that_is_over_is_not_listed(server: Server, ada: Person):  # F11
    server.clock.move(timedelta(minutes=59))
    phone = await ada.elsewhere()
    server.clock.move(HALF_A_MINUTE)
    assert len(await listed(phone, ada)) == 2
    server.clock.move(HALF_A_MINUTE)
    assert len(await listed(phone, ada)) == 1


@pytest.mark.parametrize("flags", [{"tokens.session_idle_lifetime": "1h", "tokens.session_lifetime": "3h"}], ids=["h"])
async def test_a_session_that_was_idle_too_long_is_not_ended_once_more(server: Server, ada: Person):  # F11
    server.clock.move(timedelta(minutes=40))
    tablet, _phone = await ada.elsewhere(), await ada.elsewhere()
    server.clock.move(timedelta(minutes=40))
    laptop = await ada.elsewhere()
    assert (await laptop.delete(sessions_of(ada))).status_code == 204
    (event,) = await server.events("session.revoked")
    assert event.details["sessions"] == 3
    for person, code in ((ada, "session_expired"), (tablet, "session_revoked")):
        body = {"refresh_token": person.refresh_token}
        await problem_of(await server.nobody().post("/api/auth/refresh", json=body), 401, code)


async def test_a_sign_in_from_somewhere_new_is_on_record(server: Server, ada: Person):
    async def sign_in(address: str, agent: str) -> list[str]:
        before = {event.id for event in await server.events()}
        body = {"username": "ada", "password": PASSWORD}
        scope = {"client": (address, 1)}
        await server.nobody().post(LOGIN, json=body, headers={"User-Agent": agent}, scope_base=scope)
        return sorted(event.event for event in await server.events() if event.id not in before)

    new_device, new_network, usual = "login.from_new_device", "login.from_new_network", "login.succeeded"
    assert await sign_in("192.0.2.7", "a phone") == [new_device, new_network, usual]
    assert await sign_in("192.0.2.7", "a phone") == [usual]
    assert await sign_in("192.0.2.8", "a phone") == [new_network, usual]
    assert await sign_in("192.0.2.8", "a tablet") == [new_device, usual]
    assert await sign_in("2001:db8::1", "a phone") == [new_network, usual]
    assert await sign_in("2001:db8::ffff", "a phone") == [usual]


async def test_the_very_first_sign_in_is_from_nowhere_new(server: Server):
    await server.person("eve")
    assert [event.event for event in await server.events() if event.event.startswith("login.")] == ["login.succeeded"]
