"""The headers of answers, as the contract lists them: on successes, on errors and on preflights."""

import pytest

from tests.conftest import settings_for
from tests.http import faults
from tests.loopback import exchange, head, listening
from tests.people import Person, Server
from tests.problems import assert_headers
from tests.walks import routes_of

HSTS = "max-age=31536000; includeSubDomains"


async def test_every_answer_has_the_security_headers(server: Server, admin: Person, ada: Person):  # J04
    for route in routes_of(server.app):
        for person in (server.nobody(), ada, admin):
            assert_headers(await person.call(route.method, route.path))
        assert_headers(await ada.call("HEAD", route.path))
        assert_headers(await ada.call("OPTIONS", route.path))
    assert_headers(await ada.get("/nowhere"))


async def test_what_is_secret_or_personal_is_not_cached(server: Server, admin: Person, ada: Person):  # J04
    log_in = {"username": ada.username, "password": ada.password}
    for answer in (
        await server.nobody().post("/api/auth/login", json=log_in),
        await server.nobody().post("/api/auth/refresh", json={"refresh_token": ada.refresh_token}),
        await ada.get("/api/auth/session"),
        await ada.get("/api/permissions"),
        await admin.get("/api/users"),
        await admin.get("/api/roles"),
        await admin.get("/api/users/me?nope=1"),
        await admin.get("/nowhere"),
        await ada.call("OPTIONS", "/api/users"),
        await server.nobody().get("/livez"),
        await server.nobody().get("/readyz"),
        await ada.post("/api/auth/logout"),
    ):
        assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert "ETag" not in answer.headers


async def test_a_user_is_cached_by_its_reader_alone_and_asked_for_again(ada: Person, admin: Person):
    for answer in (
        await ada.get("/api/users/me"),
        await ada.put("/api/users/me", json={"display_name": "Ada"}),
        await ada.patch("/api/users/me", json={}),
        await admin.get(f"/api/users/{ada.id}"),
    ):
        assert answer.status_code == 200
        assert answer.headers.getlist("Cache-Control") == ["private, no-cache"]
        assert answer.headers["ETag"] == f'"{(await answer.get_json())["version"]}"'
        assert "Authorization" in answer.headers["Vary"]


async def test_an_unchanged_user_is_304_with_its_tag_and_without_a_body(ada: Person):
    tag = (await ada.get("/api/users/me")).headers["ETag"]
    for sent in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = await ada.get("/api/users/me", headers={"If-None-Match": sent})
        assert (answer.status_code, await answer.get_data(), answer.headers["ETag"]) == (304, b"", tag)
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert_headers(answer)
    assert (await ada.get("/api/users/me", headers={"If-None-Match": '"x"'})).status_code == 200


async def test_the_public_keys_may_be_cached_by_anybody(server: Server):
    answer = await server.nobody().get("/.well-known/jwks.json")
    assert answer.headers.getlist("Cache-Control") == ["public, max-age=30"]
    assert "Authorization" not in answer.headers.get("Vary", "")


async def test_an_answer_varies_with_the_credential_where_one_is_looked_at(server: Server, ada: Person):  # J04
    for route in routes_of(server.app):
        answer = await ada.call(route.method, route.path)
        looked_at = route.marks.access is not None and route.marks.access.who != "anyone"
        varies = {name.strip() for line in answer.headers.getlist("Vary") for name in line.split(",")}
        assert varies == {"Origin"} | ({"Authorization"} if looked_at else set()), str(route)


async def test_strict_transport_only_under_tls(server: Server, ada: Person):
    for path in ("/livez", "/api/users/me", "/nowhere"):
        assert "Strict-Transport-Security" not in (await ada.get(path)).headers
        assert (await ada.get(path, scheme="https")).headers.getlist("Strict-Transport-Security") == [HSTS]
        forwarded = {"X-Forwarded-Proto": "https", "Forwarded": "proto=https"}
        assert "Strict-Transport-Security" not in (await ada.get(path, headers=forwarded)).headers
    assert (await ada.call("OPTIONS", "/livez", scheme="https")).headers["Strict-Transport-Security"] == HSTS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_strict_transport_behind_a_proxy_that_ends_tls(database_url: str):
    for public_url, expected in [("https://accounts.example", HSTS), ("http://accounts.example", None)]:
        server = Server(settings_for(database_url, **{"server.public_url": public_url}))
        async with server.running():
            answer = await server.nobody().get("/livez")
            assert answer.headers.get("Strict-Transport-Security") == expected


async def test_a_body_is_json_in_utf_8_and_no_content_has_no_type(server: Server, ada: Person):
    await ada.put("/api/users/me", json={"display_name": "Zoë 字"})
    answer = await ada.get("/api/users/me")
    assert answer.headers["Content-Type"] == "application/json"
    assert "Zoë 字".encode() in await answer.get_data(as_text=False)


async def test_an_answer_without_a_body_has_neither_type_nor_length(server: Server, ada: Person):
    bearer = f"Authorization: Bearer {ada.access_token}"
    async with listening(server.app) as port:
        unchanged = await exchange(port, head("GET", "/api/users/me", bearer, "If-None-Match: *"))
        gone = await exchange(port, head("POST", "/api/auth/logout", bearer))
    assert (unchanged.status, gone.status) == (304, 204)
    for answer in (unchanged, gone):
        assert answer.body == b""
        assert {"content-type", "content-length", "transfer-encoding"} & set(answer.headers) == set()


async def test_head_has_the_headers_of_get(ada: Person):
    got, headed = await ada.get("/api/users/me"), await ada.call("HEAD", "/api/users/me")
    own = {"x-request-id"}
    assert {n.lower(): v for n, v in headed.headers.items() if n.lower() not in own} == {
        n.lower(): v for n, v in got.headers.items() if n.lower() not in own
    }


async def test_limited_routes_tell_their_budget_and_others_do_not(database_url: str, monkeypatch: pytest.MonkeyPatch):
    with faults.installed(monkeypatch) as settings:
        server = Server(settings_for(database_url, **settings, **{"server.request_timeout": "2s"}))
        async with server.running():
            ada = await server.person("ada")
            for route in routes_of(server.app):
                answer = await ada.call(route.method, route.path)
                limited = route.marks.budget != "none"
                assert ("RateLimit" in answer.headers) == limited, str(route)
                assert ("RateLimit-Policy" in answer.headers) == limited
                older = {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"}
                assert older & {name.lower() for name, _ in answer.headers.items()} == set()
