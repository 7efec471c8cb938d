"""Every error is a problem document with the headers of every answer, and tells nothing of what is behind it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.conftest import settings_for
from tests.http import faults
from tests.loopback import exchange, head, listening
from tests.people import PASSWORD, Person, Server
from tests.problems import TELLTALES, problem_of
from tests.walks import routes_of
from usermgmt.errors import CATALOGUE, ApiError, OutcomeUnknown

STATUSES = {400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 500, 503}


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An application with routes that fail and a budget of one."""
    with faults.installed(monkeypatch) as settings:
        yield settings


async def test_every_error_is_a_problem_document(server: Server, ada: Person, bob: Person):  # I11
    for name, (provoke, status, code) in faults.PROVOKED.items():
        response = await provoke(server, ada, {})
        assert response.status_code == status, name
        body = await problem_of(response, status, code)
        assert faults.CANARY not in json.dumps(body)
        assert ("Allow" in response.headers) == (status == 405)


async def test_a_fault_is_logged_whole_and_told_as_its_request_id(server: Server):
    with structlog.testing.capture_logs() as logs:
        body = await problem_of(await server.nobody().get("/api/faults/bug"), 500, "internal_error")
    (line,) = [line for line in logs if line["event"] == "request_failed"]
    assert line["request_id"] == body["request_id"]
    assert faults.CANARY in str(line["exc_info"])


async def test_an_error_of_a_fault_is_not_the_end(server: Server):
    for _ in range(3):
        assert (await server.nobody().get("/api/faults/bug")).status_code == 500
    assert (await server.nobody().get("/livez")).status_code == 200


async def test_a_handler_that_takes_too_long_is_ended(database_url: str, flags: dict[str, Any]):
    server = Server(settings_for(database_url, **flags, **{"server.request_timeout": "200ms"}))
    async with server.running():
        await problem_of(await server.nobody().get("/api/faults/endless"), 503, "took_too_long")
        assert (await server.nobody().get("/livez")).status_code == 200


@pytest.mark.parametrize("sample", ["nginx/usermgmt.conf", "haproxy/haproxy.cfg"])
def test_what_a_proxy_answers_by_itself_is_named_as_ours_is(sample: str):
    text = (Path(__file__).parents[2] / "deploy" / sample).read_text()
    answers = [json.loads(found) for found in re.findall(r"'(\{\"type\".*\})'", text)]
    assert len(answers) >= 3
    for answer in answers:
        kind = CATALOGUE[answer["code"]]
        assert answer["type"] == f"/problems/{kind.code.replace('_', '-')}"
        assert answer["title"] == kind.title
        assert answer["status"] == kind.status or (kind is OutcomeUnknown and answer["status"] in {502, 504})
        may_have_been_done = "may have been made" in answer["detail"]
        assert may_have_been_done == (kind is OutcomeUnknown)


async def test_retry_after_is_what_the_refusal_says(server: Server):
    assert (await server.nobody().get("/api/faults/overload")).headers["Retry-After"] == "3"
    assert (await server.nobody().get("/api/faults/database")).headers["Retry-After"] == "1"


REQUEST_IDS = {
    "kept": ["abcdefgh", "A" * 128, "a.b-c_d:e/f+g=h@i", "0123456789abcdef"],
    "replaced": [
        "short",
        "A" * 129,
        "with spaces in it",
        "<script>alert</script>",
        "é" * 10,
        "",
        "a\tbcdefgh",
        "{evil:1}",
    ],
}


async def test_a_sane_request_id_is_kept_and_another_replaced(server: Server):
    for fate, ids in REQUEST_IDS.items():
        for given in ids:
            for path, status in (("/livez", 200), ("/nowhere", 404), ("/api/faults/bug", 500)):
                response = await server.nobody().get(path, headers={"X-Request-ID": given})
                assert response.status_code == status
                (found,) = response.headers.getlist("X-Request-ID")
                assert (found == given) == (fate == "kept"), given
                assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{8,128}", found)


# The vocabulary


def kinds(base: type[ApiError] = ApiError) -> list[type[ApiError]]:
    return [kind for child in base.__subclasses__() for kind in (child, *kinds(child))]


def test_every_code_is_unique_snake_case_and_catalogued():
    ours = [kind for kind in kinds() if "code" in vars(kind) and kind.__module__.startswith("usermgmt.")]
    codes = [kind.code for kind in ours]
    assert sorted(set(codes)) == sorted(codes)
    assert {kind.code: kind for kind in ours} == {c: k for c, k in CATALOGUE.items() if k.__module__[:5] == "userm"}
    assert [code for code in codes if not re.fullmatch(r"[a-z]+(_[a-z]+)*", code)] == []


def test_every_code_has_a_status_a_title_and_a_sentence():
    for code, kind in CATALOGUE.items():
        assert kind.status in STATUSES, code
        assert re.fullmatch(r"[A-Z].*[^.]", kind.title), code
        assert re.fullmatch(r"[A-Z].+\.", kind.detail), code
        assert kind.__doc__, code
        assert not [word for word in TELLTALES if word in kind.detail.lower()], code


def test_a_code_belongs_to_one_error():
    with pytest.raises(TypeError, match="not_found"):
        type("Another", (ApiError,), {"code": "not_found", "__qualname__": "Another"})


# Methods and paths


async def test_an_unknown_method_is_405_with_those_that_are_known(server: Server, ada: Person):  # I08
    for method in ("TRACE", "FOO", "CONNECT", "PROPFIND", "X" * 200):
        for path, allowed in [("/livez", {"GET", "HEAD", "OPTIONS"}), ("/api/auth/login", {"POST", "OPTIONS"})]:
            response = await ada.call(method, path)
            await problem_of(response, 405, "method_not_allowed")
            assert set(response.headers["Allow"].split(", ")) == allowed


async def test_every_route_tells_its_methods(server: Server, ada: Person):
    known: dict[str, set[str]] = {}
    for route in routes_of(server.app):
        known.setdefault(route.path, set()).add(route.method)
    for path, methods in known.items():
        response = await ada.call("FOO", path)
        await problem_of(response, 405, "method_not_allowed")
        automatic = {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        assert set(response.headers["Allow"].split(", ")) == methods | automatic


async def test_no_other_spelling_of_a_method_gets_past_a_rule(server: Server, ada: Person, bob: Person):  # G08
    override = {"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"}
    assert (await ada.get("/api/users/me", headers=override)).status_code == 200
    await problem_of(await ada.post("/api/users/me", headers=override), 405)
    await problem_of(await ada.get("/api/users/me?_method=DELETE"), 422)
    assert (await ada.call("HEAD", "/api/roles")).status_code == 403
    async with listening(server.app) as port:
        for method in ("delete", "Delete", "put", "get"):
            answer = await exchange(port, head(method, f"/api/users/{ada.id}"))
            assert answer.status in (401, 405)
    assert len(await server.rows("SELECT id FROM users WHERE deleted_at IS NULL")) == 2


SPELLINGS = [
    "//api/permissions", "///api/permissions", "/api/permissions/", "/api//permissions", "/api/./permissions",
    "/api/x/../permissions", "/../api/permissions", "/API/permissions", "/api/permissions%00", "/api/permissions;a=b",
    "/api\\permissions", "/api/permissions.", "/api/permissions%20", "/%20/api/permissions", "/.%2e/api/permissions",
    "//evil.example/api/permissions", "//evil.example", "/%2f/evil.example", "/\\evil.example", "/%ff", "/*", "/",
]  # fmt: skip


async def test_a_path_has_one_spelling_and_no_redirect(server: Server, ada: Person):
    for path in SPELLINGS:
        for person in (server.nobody(), ada):
            response = await person.get(path, headers={"Host": "evil.example"})
            assert response.status_code == 404, path
            await problem_of(response, 404, "not_found")
            assert "Location" not in response.headers
            assert "evil" not in await response.get_data(as_text=True)


HOSTILE = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Prefix": "/evil.example",
    "X-Original-URL": "/evil.example",
    "X-Rewrite-URL": "/evil.example",
    "Forwarded": "host=evil.example;proto=https;for=203.0.113.9",
}


@pytest.mark.parametrize("public_url", ["", "https://accounts.example/base"])
async def test_no_address_that_we_give_is_made_from_a_header(database_url: str, public_url: str):  # D10
    server = Server(settings_for(database_url, **{"server.public_url": public_url}))
    async with server.running():
        admin = await server.person("root", roles=["admin"])
        body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
        once = {**HOSTILE, "Idempotency-Key": "the-very-same"}
        for _ in range(2):  # the answer that is given again too
            made = await server.nobody().post("/api/users", json=body, headers=once)
            user = await made.get_json()
            assert (made.status_code, made.headers["Location"]) == (201, f"{public_url}/api/users/{user['id']}")
        role = await admin.post("/api/roles", json={"name": "auditor"}, headers=HOSTILE)
        assert role.headers["Location"] == f"{public_url}/api/roles/auditor"
        page = await admin.get("/api/users?limit=1", headers=HOSTILE)
        refused = await admin.get("/api/users?nope=1", headers=HOSTILE)
        assert (await problem_of(refused, 422))["type"] == f"{public_url}/problems/validation-failed"
        for response in (made, role, page, refused):
            shown = str(response.headers) + await response.get_data(as_text=True)
            assert "evil" not in shown
            assert "203.0.113.9" not in shown
        assert {event.address for event in await server.events()} == {None}


async def test_a_host_that_cannot_be_one_does_no_harm(server: Server):  # I08
    async with listening(server.app) as port:
        for host in ("<script>", "a b/\\@:99999", "[::1", "\xff\xfe", "a" * 5_000, "", ".", "a..b", "xn--" + "a" * 70):
            request = f"GET /nowhere HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
            answer = await exchange(port, request)
            assert answer.status in (400, 404), host
            assert b"script" not in answer.body
        for hosts in (b"", b"Host: a\r\nHost: b\r\n"):
            answer = await exchange(port, b"GET /livez HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
            assert answer.status == 400


async def test_a_query_that_is_no_text_does_no_harm(server: Server):
    """HTTP/2 lets any byte through; HTTP/1.1 servers refuse it themselves."""
    raw = {"query_string": b"q=\xff\xfe"}
    await problem_of(await server.nobody().get("/nowhere", scope_base=raw), 404)
    assert (await server.nobody().get("/livez", scope_base=raw)).status_code == 200


async def test_a_websocket_is_refused(server: Server):
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    async with listening(server.app) as port:
        for path in ("/api/users", "/livez", "/nowhere"):
            for origin in ((), ("Origin: https://app.example",), ("Origin: https://evil.example",)):
                request = head("GET", path, *upgrade, *origin).replace(b"Connection: close\r\n", b"")
                answer = await exchange(port, request)
                assert 400 <= answer.status < 500
                assert answer.headers["content-type"] == "application/problem+json"
