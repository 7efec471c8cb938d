"""What a server keeps of the requests that it has answered: nothing."""

import asyncio
import gc
import json
import socket
from contextlib import ExitStack, closing
from itertools import pairwise
from statistics import median

import pytest

from tests.operator.calls import answered, call, connection_to
from tests.operator.conftest import PROGRAM, Start, environment
from tests.people import Person, Server
from usermgmt.operator.connections import limit_connections
from usermgmt.operator.listening import House, serve_sockets
from usermgmt.operator.server import _config
from usermgmt.settings import Settings

MOST_OBJECTS_A_REQUEST = 0.5
ROUND = 100
WARM_UP_ROUNDS = 3
SETTLED_SECONDS = 20.0  # by then every connection has ended by itself, or one never does
ROUNDS = 8
"""Of about a hundred requests each: many more would find half an object a request no better."""


@pytest.mark.parametrize(
    "database_url", ["postgresql"], indirect=True
)  # once: it takes ten seconds, of which none less
async def test_requests_leave_no_objects_behind(settings: Settings):  # M16
    server = Server(settings)
    limit_connections(settings.server)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        grown: list[int] = []

        async def ask(house: House) -> None:
            ada, admin = await server.person("ada"), await server.person("root", roles=["admin"])
            for number in range(WARM_UP_ROUNDS + ROUNDS):
                await _mixed_requests(port, ada, admin)
                if number >= WARM_UP_ROUNDS and number % 2:
                    await _all_left(house)
                    await _forget_cancelled_timers()
                    gc.collect()
                    grown.append(len(gc.get_objects()))

        await serve_sockets(server.app, _config(settings.server), [listener], until=ask)
    more = median(after - before for before, after in pairwise(grown))
    assert more / (2 * ROUND) < MOST_OBJECTS_A_REQUEST, grown


async def _all_left(house: House) -> None:
    """Wait for what still waits for the rest of a body, or for a last word."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while house.guests:  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.05)


async def _forget_cancelled_timers() -> None:
    """The loop keeps timers that were cancelled, and what their contexts hold, until they are more than half of all."""
    loop = asyncio.get_running_loop()
    for _ in range(1_000):
        loop.call_later(3_600, gc.collect).cancel()
    for _ in range(2):
        await asyncio.sleep(0)  # a turn of the loop, at whose end it looks


async def _mixed_requests(port: int, ada: Person, admin: Person) -> None:
    """About a hundred requests: reads, a write, a refresh, refusals, connections that end in the middle."""
    for wire in _wires(ada, admin):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(10):
            writer.write(wire)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert not head.startswith(b"http/1.1 5"), (head, body)
        writer.write(wire[:-3])
        writer.close()
        await writer.wait_closed()
    tokens = await (await ada.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})).get_json()
    ada.keep(tokens)


def _wires(ada: Person, admin: Person) -> list[bytes]:
    """One of each kind."""

    def wire(method: str, path: str, person: Person | None = None, body: object = None) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        if person is not None:
            lines.append(f"Authorization: Bearer {person.access_token}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join([*lines, "", ""]).encode() + data

    return [
        wire("GET", "/health/ready"),
        wire("GET", "/api/users/me", ada),
        wire("GET", f"/api/users/{ada.id}", admin),
        wire("GET", "/api/users?limit=10", admin),
        wire("GET", "/api/users", ada),
        wire("GET", "/nowhere"),
        wire("PATCH", "/api/users/me", ada, {"display_name": "Ada"}),
        wire("POST", "/api/auth/login", None, {"username": "nobody", "password": "wrong"}),
        wire("POST", "/api/auth/login", None, {"username": 1}),
    ]


def test_few_descriptors_make_clients_wait_and_nobody_fall(start: Start, database_url: str):  # M15
    limited = ("sh", "-c", 'ulimit -n 64; exec "$0" "$@"', PROGRAM)
    process = start("serve", "--port", "0", program=limited, environ=environment(database_url, limits__enabled="false"))
    url = json.loads(process.wait_for('"serving"'))["url"]
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connection_to(url))) for _ in range(200)]
        for connection in held:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        process.wait_for("cannot_accept")
        assert answered(held[0])[0] == 200
    assert call(f"{url}/health/ready")[0] == 200
    assert call(f"{url}/api/auth/login", {"username": "nobody", "password": "wrong"})[0] == 401
    assert process.end(15) == 0
    assert "Traceback" not in process.output + process.errors()
