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


def call(url: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer: GET, or POST when there is a body."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with DIRECT.open(request, timeout=SECONDS) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sign_in(url: str, username: str, password: str) -> int:
    """The status of a sign-in."""
    return call(f"{url}/api/auth/login", {"username": username, "password": password})[0]


def connected(url: str) -> socket.socket:
    """A connection to the server."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=SECONDS)


def half_sent(url: str) -> tuple[socket.socket, bytes]:
    """A connection on which a request was sent but for its last bytes, and those bytes."""
    body = b'{"username": "nobody", "password": "wrong"}'
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = connected(url)
    connection.sendall(head.encode() + body[:-5])
    return connection, body[-5:]


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of the answer on a connection."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()
