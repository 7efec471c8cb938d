"""Calling a server that runs as a process of its own."""

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SECONDS = 20
BODY = b'{"username": "nobody", "password": "wrong"}'
HEAD = b"\r\n".join(
    (
        b"POST /api/auth/login HTTP/1.1",
        b"Host: x",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(BODY),
        b"\r\n",
    )
)
"""A sign-in that is refused: what comes before its body."""


def call(url: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer: GET, or POST when there is a body."""
    return call_as(None, url, body)


def call_as(token: str | None, url: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """The same with an access token; None for an answer without a body."""
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with DIRECT.open(urllib.request.Request(url, data, headers), timeout=SECONDS) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sign_in(url: str, username: str, password: str) -> int:
    """The status of a sign-in."""
    return call(f"{url}/api/auth/login", {"username": username, "password": password})[0]


def connection_to(url: str) -> socket.socket:
    """A connection to the server."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=SECONDS)


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of the answer on a connection."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, response.read()
