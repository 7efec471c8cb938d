"""A request at the least cost is the framework's request."""

from typing import cast

import pytest
from hypercorn.typing import HTTPScope
from quart.asgi import ASGIHTTPConnection

from tests.people import Server
from usermgmt.http.connection import Connection
from usermgmt.http.requests import RequestHeaders

SENT = [(b"host", b"a.example"), (b"accept", b"text/html"), (b"accept", b"*/*"), (b"x-empty", b""), (b"x-count", b"7")]
ASKED_FOR = ("Host", "HOST", "accept", "X-Empty", "X-Count", "X-Missing", "Remote-Addr")
COPIED = (
    "method",
    "scheme",
    "path",
    "query_string",
    "root_path",
    "http_version",
    "remote_addr",
    "server",
    "scope",
    "max_content_length",
    "body_timeout",
    "content_length",
    "url",
    "host",
)


def scope(**more: object) -> HTTPScope:
    return cast(
        "HTTPScope",
        {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": "/api/users/é",
            "raw_path": b"/api/users/%C3%A9",
            "query_string": b"limit=5",
            "root_path": "",
            "headers": SENT,
            "client": ("192.0.2.7", 5000),
            "server": ("127.0.0.1", 8000),
            "state": {},
            "extensions": {},
            **more,
        },
    )


@pytest.mark.parametrize(
    "more",
    [{}, {"http_version": "1.0"}, {"http_version": "2"}, {"root_path": "/api"}, {"client": None}, {"headers": []}],
    ids=repr,
)
async def test_it_reads_as_the_frameworks_does(server: Server, more: dict[str, object]):
    async def send(_: object) -> None:
        """Nothing is sent."""

    ours, theirs = (
        kind(server.app, scope(**more))._create_request_from_scope(send) for kind in (Connection, ASGIHTTPConnection)
    )
    async with server.app.app_context():  # where the limits of bodies are
        for name in COPIED:
            assert getattr(ours, name) == getattr(theirs, name), name
    assert list(ours.headers) == list(theirs.headers)
    assert isinstance(ours.headers, RequestHeaders) == (
        more.keys().isdisjoint({"root_path"}) and ours.http_version != "1.0"
    )
    for name in ASKED_FOR:
        assert (name in ours.headers) == (name in theirs.headers), name
        assert ours.headers.get(name) == theirs.headers.get(name)
        assert ours.headers.get(name, "other") == theirs.headers.get(name, "other")
        assert ours.headers.getlist(name) == theirs.headers.getlist(name)
        assert ours.headers.get(name, type=int) == theirs.headers.get(name, type=int)
