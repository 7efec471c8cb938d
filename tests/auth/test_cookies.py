"""The cookie mode: a refresh token that no script reads and no other site uses."""

from http.cookies import SimpleCookie
from typing import Any

import pytest
from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.security.principal import OPERATOR
from usermgmt.users import registration

NAME = "__Host-usermgmt-refresh"
LOGIN, REFRESH, LOGOUT = "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"
APP = "https://app.example.com"
SAME = {"Sec-Fetch-Site": "same-origin"}
ALLOWED = {"Origin": APP, "Sec-Fetch-Site": "same-site"}
HOSTILE: list[dict[str, str]] = [
    {},
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": f"{APP}.evil.example"},
    {"Origin": "http://app.example.com"},
    {"Origin": f"{APP}:8443"},
    {"Origin": f"{APP}/"},
    {"Origin": APP.upper()},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Referer": f"{APP}/"},
]


@pytest.fixture
def flags() -> dict[str, Any]:
    return {
        "tokens.transport": "cookie",
        "cors.origins": APP,
        "cors.credentials": True,
        "server.public_url": "https://accounts.example.com",
    }


@pytest.fixture
async def ada(server: Server) -> Person:
    new = registration.NewUser(username="ada", email="ada@example.com", password=PASSWORD)
    await registration.register_user(server.runtime, OPERATOR, new)
    return Person(server, username="ada", password=PASSWORD)


async def sign_in(server: Server, **headers: str) -> Response:
    return await server.nobody().post(LOGIN, json={"username": "ada", "password": PASSWORD}, headers=headers or SAME)


def cookie_of(response: Response) -> Any:
    return SimpleCookie(response.headers["Set-Cookie"])[NAME]


def sent(response: Response, headers: dict[str, str] = SAME) -> dict[str, str]:
    return {**headers, "Cookie": f"{NAME}={cookie_of(response).value}"}


async def test_the_token_is_in_a_cookie_and_not_in_the_body(server: Server, ada: Person):  # F16
    response = await sign_in(server)
    body = await response.get_json()
    assert "refresh_token" not in body
    assert body["access_token"]
    cookie = cookie_of(response)
    assert cookie["secure"]
    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Strict", "/", "")
    assert int(cookie["max-age"]) == body["refresh_expires_in"]
    assert response.headers["Cache-Control"] == "no-store"


async def test_the_cookie_refreshes_and_signs_out(server: Server, ada: Person):
    first = await sign_in(server)
    second = await server.nobody().post(REFRESH, headers=sent(first))
    assert second.status_code == 200
    assert cookie_of(second).value != cookie_of(first).value
    assert "refresh_token" not in await second.get_json()
    out = await server.nobody().post(LOGOUT, headers=sent(second))
    assert out.status_code == 204
    assert (cookie_of(out).value, cookie_of(out)["max-age"]) == ("", "0")
    await problem_of(await server.nobody().post(REFRESH, headers=sent(second)), 401, "session_revoked")


async def test_a_page_of_an_allowed_origin_may_use_it(server: Server, ada: Person):
    response = await sign_in(server, **ALLOWED)
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert (await server.nobody().post(REFRESH, headers=sent(response, ALLOWED))).status_code == 200


@pytest.mark.parametrize("headers", HOSTILE)
async def test_no_other_page_may_use_it(server: Server, ada: Person, headers: dict[str, str]):  # J03
    response = await sign_in(server)
    before = await server.rows("SELECT generation, revoked_at FROM sessions")
    for path in (REFRESH, LOGOUT):
        refused = await server.nobody().post(path, headers=sent(response, headers))
        await problem_of(refused, 403, "cross_site_request")
        assert "Set-Cookie" not in refused.headers
    body = {"username": "ada", "password": PASSWORD}
    await problem_of(await server.nobody().post(LOGIN, json=body, headers=headers), 403, "cross_site_request")
    assert await server.rows("SELECT generation, revoked_at FROM sessions") == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a_simple_request_of_another_site_does_nothing(server: Server, ada: Person, content_type: str):  # J03
    response = await sign_in(server)
    headers = {**sent(response, {"Origin": "https://evil.example"}), "Content-Type": content_type}
    for path in (LOGIN, REFRESH, LOGOUT):
        assert (await server.nobody().post(path, data=b"{}", headers=headers)).status_code in (403, 415)
    assert await server.rows("SELECT generation, revoked_at FROM sessions") == [(0, None)]


async def test_an_old_cookie_does_not_choose_the_new_session(server: Server, ada: Person):  # F16
    first = await sign_in(server)
    body = {"username": "ada", "password": PASSWORD}
    second = await server.nobody().post(LOGIN, json=body, headers=sent(first))
    assert cookie_of(second).value != cookie_of(first).value
    assert await server.rows("SELECT count(*) FROM sessions") == [(2,)]


async def test_without_a_cookie_there_is_nothing_to_refresh(server: Server, ada: Person):
    await problem_of(await server.nobody().post(REFRESH, headers=SAME), 401, "invalid_refresh_token")
    broken = {**SAME, "Cookie": f"{NAME}=umr1_nonsense"}
    await problem_of(await server.nobody().post(REFRESH, headers=broken), 401, "invalid_refresh_token")


async def test_a_cookie_is_no_access_token(server: Server, ada: Person):  # E12
    response = await sign_in(server)
    assert (await server.nobody().get("/api/users/me", headers=sent(response))).status_code == 401


@pytest.mark.parametrize("flags", [{}], ids=["body"])
async def test_in_body_mode_cookies_are_neither_set_nor_read(server: Server, ada: Person):  # E12
    response = await sign_in(server)
    token = (await response.get_json())["refresh_token"]
    assert "Set-Cookie" not in response.headers
    headers = {**SAME, "Cookie": f"{NAME}={token}"}
    await problem_of(await server.nobody().post(REFRESH, headers=headers), 422, "validation_failed")
    await problem_of(await server.nobody().post(LOGOUT, headers=headers), 401, "missing_credentials")
