"""GET /api/auth/session."""

from datetime import datetime, timedelta

from tests.auth.conftest import SECOND
from tests.people import PASSWORD, Person, Server
from usermgmt.permissions import Permission

SESSION = "/api/auth/session"


async def test_a_session_tells_who_where_and_until_when(stopped: Server, ada: Person):
    response = await stopped.nobody().post(
        "/api/auth/login",
        json={"username": "ada", "password": PASSWORD},
        headers={"User-Agent": "a browser" + "x" * 600},
        scope_base={"client": ("::ffff:192.0.2.7", 1234)},
    )
    ada.keep(await response.get_json())
    body = await (await ada.get(SESSION)).get_json()
    session, now = body["session"], stopped.clock.now()
    ((session_id,),) = await stopped.rows("SELECT id FROM sessions WHERE address IS NOT NULL")
    assert session.pop("id").replace("-", "") == str(session_id).replace("-", "")
    assert {name: datetime.fromisoformat(value) - now for name, value in session.items() if name.endswith("_at")} == {
        "created_at": timedelta(0),
        "authenticated_at": timedelta(0),
        "refreshed_at": timedelta(0),
        "idle_expires_at": timedelta(days=14),
        "expires_at": timedelta(days=30),
    }
    assert session["address"] == "192.0.2.7"
    assert session["user_agent"] == ("a browser" + "x" * 600)[:512]
    assert all(value.endswith("Z") for name, value in session.items() if name.endswith("_at"))


async def test_a_session_tells_the_user_with_roles_and_permissions(server: Server, ada: Person, admin: Person):
    body = await (await ada.get(SESSION)).get_json()
    assert body["user"] == await (await ada.get("/api/users/me")).get_json()
    assert (body["roles"], body["permissions"]) == (["user"], [])
    body = await (await admin.get(SESSION)).get_json()
    assert (body["roles"], body["permissions"]) == (["admin"], sorted(Permission))


async def test_a_session_holds_nothing_that_could_continue_it(server: Server, ada: Person):  # F13, G11
    response = await ada.get(SESSION)
    body = await response.get_json()
    assert set(body) == {"session", "user", "roles", "permissions", "group_permissions"}
    assert set(body["session"]) == {
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
    shown = await response.get_data(as_text=True)
    assert "$2b$" not in shown
    assert ada.access_token not in shown
    assert ada.refresh_token not in shown
    assert response.headers["Cache-Control"] == "no-store"
    assert "Authorization" in response.headers["Vary"]


async def test_who_may_ask_for_their_session(stopped: Server, ada: Person):
    assert (await ada.get(SESSION)).status_code == 200
    assert (await ada.get(f"{SESSION}?user=me")).status_code == 422
    assert (await ada.post(SESSION)).status_code == 405
    refused = await stopped.nobody().get(SESSION)
    assert (refused.status_code, (await refused.get_json())["code"]) == (401, "missing_credentials")
    stopped.clock.move(timedelta(minutes=10) - SECOND)
    assert (await ada.get(SESSION)).status_code == 200
    stopped.clock.move(SECOND)
    refused = await ada.get(SESSION)
    assert (refused.status_code, (await refused.get_json())["code"]) == (401, "invalid_token")
