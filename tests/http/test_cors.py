"""Pages of the configured origins may call, exactly those, and they can read every refusal too."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.http import faults
from tests.people import Person, Server
from tests.walks import routes_of
from usermgmt.http.cross_origin import ALLOWED_HEADERS, EXPOSED_HEADERS, METHODS
from usermgmt.settings.problems import common_problems
from usermgmt.settings.sources import SettingsError

ORIGIN = "https://app.example"
ANOTHER = "http://localhost:3000"
GRANTS = (
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Expose-Headers",
    "Access-Control-Max-Age",
    "Access-Control-Allow-Private-Network",
)
HOSTILE = [
    "null", "*", "", " ", "https://", "app.example", "//app.example", "http://app.example", "https://app.example:443",
    "https://app.example:8443", "https://app.example.", "https://app.example/", "https://app.example.evil.example",
    "https://evilapp.example", "https://evil.app.example", "https://app.example@evil.example", "https://APP.EXAMPLE",
    "HTTPS://app.example", "https://app.exampl", "https://app.examplee", "https://app-example", "https://appXexample",
    "https://app.example\x00.evil", "https://app.example%00", "https://app.example https://evil.example",
    "https://app.example, https://evil.example", "https://evil.example#https://app.example", "file://", "https://xn--app.example",
    "https://аpp.example", "http://localhost", "http://localhost:30000", "https://localhost:3000", "http://127.0.0.1:3000",
    "http://localhost:3000.evil.example", ".*", "https://.*",
]  # fmt: skip


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Two origins, and routes that fail."""
    with faults.installed(monkeypatch) as settings:
        yield settings | {"cors.origins": f"{ORIGIN},{ANOTHER}"}


def preflight(method: str, *, headers: str = "authorization,content-type", origin: str = ORIGIN) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
        "Access-Control-Request-Private-Network": "true",
    }


def granted(answer: Any) -> set[str]:
    return {name for name in GRANTS if name in answer.headers}


def listed(answer: Any, name: str) -> set[str]:
    return {item.strip() for line in answer.headers.getlist(name) for item in line.split(",")}


async def test_a_page_of_a_configured_origin_may_call(server: Server, ada: Person):
    for origin in (ORIGIN, ANOTHER):
        answer = await ada.get("/api/users/me", headers={"Origin": origin})
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [origin]
        assert {name.lower() for name in listed(answer, "Access-Control-Expose-Headers")} == {
            name.lower() for name in EXPOSED_HEADERS
        }
        assert granted(answer) == {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
        assert "Origin" in listed(answer, "Vary")


async def test_no_other_origin_is_granted_anything(server: Server, ada: Person):  # J01
    assert len(HOSTILE) >= 30
    for origin in HOSTILE:
        for answer in (
            await ada.get("/api/users/me", headers={"Origin": origin}),
            await ada.call("OPTIONS", "/api/users/me", headers=preflight("PUT", origin=origin)),
            await ada.get("/nowhere", headers={"Origin": origin}),
        ):
            assert granted(answer) == set(), repr(origin)
            assert "Origin" in listed(answer, "Vary")
    assert granted(await ada.get("/api/users/me")) == set()


async def test_a_preflight_of_every_route_is_answered(server: Server):  # J02
    for route in routes_of(server.app):
        answer = await server.nobody().call("OPTIONS", route.path, headers=preflight(route.method))
        assert answer.status_code == 200, str(route)
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert listed(answer, "Access-Control-Allow-Methods") == set(METHODS)
        assert listed(answer, "Access-Control-Allow-Headers") == {"authorization", "content-type"}
        assert answer.headers["Access-Control-Max-Age"] == "600"
        assert route.method in listed(answer, "Allow")
        assert "Access-Control-Allow-Private-Network" not in answer.headers
        assert await answer.get_data() == b""


async def test_a_preflight_grants_only_headers_and_methods_that_we_have(server: Server):  # J02
    wanted = ",".join([*ALLOWED_HEADERS, "X-Evil", "Cookie"])
    answer = await server.nobody().call("OPTIONS", "/api/users", headers=preflight("POST", headers=wanted))
    assert listed(answer, "Access-Control-Allow-Headers") == {name.lower() for name in ALLOWED_HEADERS}
    for method in ("TRACE", "CONNECT", "FOO", "*", ""):
        refused = await server.nobody().call("OPTIONS", "/api/users", headers=preflight(method))
        assert "Access-Control-Allow-Methods" not in refused.headers


async def test_a_preflight_of_no_route_is_404(server: Server):
    answer = await server.nobody().call("OPTIONS", "/nowhere", headers=preflight("GET"))
    assert answer.status_code == 404


async def test_a_page_can_read_every_error(server: Server, ada: Person, bob: Person):  # J02
    for name, (provoke, status, _) in faults.PROVOKED.items():
        answer = await provoke(server, ada, {"Origin": ORIGIN})
        assert answer.status_code == status, name
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [ORIGIN], name
        assert "Retry-After" in listed(answer, "Access-Control-Expose-Headers") or status not in (429, 503)
        assert "Origin" in listed(answer, "Vary")


async def test_no_error_is_readable_from_elsewhere(server: Server, ada: Person, bob: Person):
    for name, (provoke, _, _) in faults.PROVOKED.items():
        assert granted(await provoke(server, ada, {"Origin": "https://evil.example"})) == set(), name


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_the_settings_grant(database_url: str):
    for origins, credentials, origin, allowed, with_credentials in [
        ("", False, ORIGIN, None, None),
        (ORIGIN, False, ORIGIN, ORIGIN, None),
        (ORIGIN, True, ORIGIN, ORIGIN, "true"),
        (ORIGIN, True, "https://evil.example", None, None),
        ("*", False, "https://evil.example", "*", None),
        ("*", False, "null", "*", None),
    ]:
        server = Server(settings_for(database_url, **{"cors.origins": origins, "cors.credentials": credentials}))
        async with server.running():
            for answer in (
                await server.nobody().get("/livez", headers={"Origin": origin}),
                await server.nobody().call("OPTIONS", "/api/users", headers=preflight("GET", origin=origin)),
            ):
                assert answer.headers.get("Access-Control-Allow-Origin") == allowed
                assert answer.headers.get("Access-Control-Allow-Credentials") == with_credentials


def test_every_origin_with_credentials_is_refused_before_serving():
    settings = settings_for("sqlite+aiosqlite:///unused.db", **{"cors.origins": "*", "cors.credentials": True})
    assert "cors.origins" in [problem.key for problem in common_problems(settings)]


@pytest.mark.parametrize(
    "origin", ["https://app.example/", "https://App.example", "app.example", "https://*.example", "null"]
)
def test_an_origin_that_no_browser_sends_is_refused_at_load(origin: str):
    with pytest.raises(SettingsError):
        settings_for("sqlite+aiosqlite:///unused.db", **{"cors.origins": origin})
