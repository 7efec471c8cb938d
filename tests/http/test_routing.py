"""What is remembered of requests changes no answer, and has an end."""

from uuid import uuid4

from hypercorn.typing import HTTPScope
from quart.asgi import ASGIHTTPConnection

from tests.people import Person, Server
from usermgmt.http.connection import Connection
from usermgmt.http.requests import RequestHeaders
from usermgmt.http.routing import LONGEST_PATH, PATHS

SENT = [(b"host", b"a.example"), (b"accept", b"text/html"), (b"accept", b"*/*"), (b"x-empty", b""), (b"x-count", b"7")]
ASKED_FOR = ("Host", "HOST", "accept", "X-Empty", "X-Count", "X-Missing", "Remote-Addr")


async def test_a_path_that_was_seen_has_its_methods_and_no_others(server: Server, ada: Person):
    for _ in range(2):
        assert (await ada.get("/api/users/me")).status_code == 200
        assert (await ada.call("HEAD", "/api/users/me")).status_code == 200
        refused = await ada.call("POST", "/api/users/me")
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}
        assert (await ada.get("/api/users/mes")).status_code == 404
        assert (await ada.get("//api/users/me")).status_code == 404


async def test_what_is_remembered_has_an_end(server: Server, ada: Person):
    matches = server.app._matches  # type: ignore[attr-defined]
    for _ in range(PATHS + 10):
        await server.nobody().get(f"/api/users/{uuid4()}")
    assert 0 < len(matches) <= PATHS
    before = len(matches)
    assert (await ada.get(f"/problems/{'a' * LONGEST_PATH}")).status_code == 404
    assert (await ada.get("/nowhere")).status_code == 404
    assert len(matches) == before


def scope(headers: list[tuple[bytes, bytes]]) -> HTTPScope:
    return {
        "type": "http",
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/users/me",
        "raw_path": b"/api/users/me",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.7", 5000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
    }  # type: ignore[typeddict-item]


async def test_headers_read_as_the_frameworks_do(server: Server):
    async def send(_: object) -> None:
        """Nothing is sent."""

    ours, theirs = (
        kind(server.app, scope(SENT))._create_request_from_scope(send).headers
        for kind in (Connection, ASGIHTTPConnection)
    )
    assert isinstance(ours, RequestHeaders)
    assert list(ours) == list(theirs)
    for name in ASKED_FOR:
        assert (name in ours) == (name in theirs), name
        assert ours.get(name) == theirs.get(name)
        assert ours.get(name, "other") == theirs.get(name, "other")
        assert ours.getlist(name) == theirs.getlist(name)
        assert ours.get(name, type=int) == theirs.get(name, type=int)
