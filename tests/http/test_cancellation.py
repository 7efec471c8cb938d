"""Clients that go away, at whatever moment, leave nothing behind: no connection taken, no half of a write."""

import asyncio
import gc
import json
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.loopback import exchange, head, listening
from tests.people import PASSWORD, Person, Server

ROUNDS, AT_ONCE = 5, 20
PATIENCE = 20.0

_GRANTS = "SELECT 1 FROM role_grants WHERE user_id = users.id"
_NAMES = "SELECT count(*) FROM login_names WHERE user_id = users.id"
_OWN = "SELECT count(*) FROM audit_events WHERE owner_id = users.id AND event"
_SIGNED_IN = "SELECT count(*) FROM audit_events WHERE session_id = sessions.id AND event"
HALVES = (
    f"SELECT username FROM users WHERE NOT EXISTS ({_GRANTS})",
    f"SELECT username FROM users WHERE 2 <> ({_NAMES})",
    f"SELECT username FROM users WHERE 1 <> ({_OWN} = 'user.created')",
    f"SELECT version FROM users WHERE version - 1 <> ({_OWN} = 'user.updated')",
    "SELECT name FROM login_names WHERE user_id NOT IN (SELECT id FROM users)",
    "SELECT user_id FROM role_grants WHERE user_id NOT IN (SELECT id FROM users)",
    f"SELECT id FROM sessions WHERE 1 <> ({_SIGNED_IN} = 'login.succeeded')",
    f"SELECT generation FROM sessions WHERE generation <> ({_SIGNED_IN} = 'session.refreshed')",
)


@pytest.fixture
def flags() -> dict[str, Any]:
    """Fewer connections than clients, so that some go away while they wait for one."""
    return {"database.pool_size": 5}


@pytest.fixture
def chance() -> random.Random:
    """The same moments in each run."""
    return random.Random(7)


def requests(
    person: Person, refresh_token: str, chance: random.Random
) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Reads and writes in turn, for ever."""
    number = 0
    while True:
        number += 1
        name = f"guest{number}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        yield "POST", "/api/users", body
        yield "POST", "/api/auth/login", {"username": person.username, "password": person.password}
        yield "GET", "/api/users?limit=10", None
        yield "PUT", "/api/users/me", {"display_name": f"{chance.random()}", "attributes": {"n": number}}
        yield "POST", "/api/auth/refresh", {"refresh_token": refresh_token}
        yield "GET", "/api/auth/session", None


def taken(server: Server) -> int:
    """How many connections are out of their pools."""
    database = server.runtime.database
    pools = {id(engine.pool): engine.pool for engine in (database._writer, database._reader)}
    return sum(pool.checkedout() for pool in pools.values())


async def eventually(holds: Callable[[], Awaitable[bool]], *, within: float = PATIENCE) -> None:
    deadline = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)  # threads and the database end by themselves


async def assert_nothing_is_left(server: Server, admin: Person) -> None:
    async def at_rest() -> bool:
        hasher = server.runtime.hasher
        return (taken(server), hasher.running, hasher.waiting) == (0, 0, 0)

    async def no_transaction_is_open() -> bool:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        return await server.rows(idle) == [(0,)]

    await eventually(at_rest)
    gc.collect()  # a connection that nobody closed is found here, and fails the test
    if not server.runtime.database.is_sqlite:
        await eventually(no_transaction_is_open, within=5)  # half of what would end it anyway
    for half in HALVES:
        assert await server.rows(half) == [], half
    again = {"username": "afterwards", "email": "afterwards@example.com", "password": PASSWORD}
    assert (await server.nobody().post("/api/users", json=again)).status_code == 201
    answers = await asyncio.gather(*(admin.get("/api/users/me") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await admin.get("/health/ready")).status_code == 200


class Client:
    """An ASGI client that goes away: it says so, or whoever runs the application ends its task."""

    def __init__(self, server: Server, person: Person, method: str, path: str, body: dict[str, Any] | None) -> None:
        self._app = server.app
        self._gone = asyncio.Event()
        self._sent = self.was_answered = False
        self._body = json.dumps(body).encode() if body is not None else b""
        route, _, query = path.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"test"),
                (b"content-type", b"application/json"),
                (b"authorization", f"Bearer {person.access_token}".encode()),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {},
        }

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.was_answered = True

    async def visit(self, seconds: float, *, says_so: bool) -> bool:
        """Ask, and go away after a while. Whether an answer came before."""
        serving = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))  # type: ignore[arg-type]
        await asyncio.sleep(seconds)  # the moment at which it goes is the subject
        was_answered = self.was_answered
        if says_so:
            self._gone.set()
        else:
            serving.cancel()
        await asyncio.wait([serving], timeout=PATIENCE)
        self._gone.set()
        return was_answered


async def slowest(server: Server, admin: Person) -> float:
    """About how long a request takes here and now."""
    started = time.perf_counter()
    for number in range(3):
        body = {"username": f"first{number}", "email": f"first{number}@example.com", "password": PASSWORD}
        assert (await admin.post("/api/users", json=body)).status_code == 201
    return (time.perf_counter() - started) / 3


@pytest.mark.parametrize("says_so", [True, False], ids=["disconnects", "is-cancelled"])
async def test_a_client_that_goes_away_leaves_nothing_behind(
    server: Server, admin: Person, chance: random.Random, says_so: bool
):
    usual = await slowest(server, admin)
    asked = requests(admin, (await admin.elsewhere()).refresh_token, chance)  # used again too late it ends its session
    answered: list[bool] = []
    for _ in range(ROUNDS):
        clients = [Client(server, admin, *next(asked)) for _ in range(AT_ONCE)]
        longest = usual * AT_ONCE
        answered += await asyncio.gather(*(c.visit(chance.uniform(0, longest), says_so=says_so) for c in clients))
    for _ in range(40):  # and one at a time, when each moment of a request is as likely as the next
        client = Client(server, admin, *next(asked))
        answered.append(await client.visit(chance.uniform(0, usual * 1.5), says_so=says_so))
    assert {True, False} == set(answered)
    await assert_nothing_is_left(server, admin)


async def test_a_socket_that_is_closed_early_leaves_nothing_behind(
    server: Server, admin: Person, chance: random.Random
):
    usual = await slowest(server, admin)
    asked = requests(admin, (await admin.elsewhere()).refresh_token, chance)  # used again too late it ends its session

    async def visit(port: int, longest: float) -> None:
        method, path, body = next(asked)
        content = json.dumps(body).encode() if body is not None else b""
        bearer = f"Authorization: Bearer {admin.access_token}"
        request = head(method, path, bearer, "Content-Type: application/json", f"Content-Length: {len(content)}")
        whole = request + content
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        writer.write(whole if chance.random() < 0.75 else whole[: chance.randrange(len(whole))])
        await asyncio.sleep(chance.uniform(0, longest))  # at any point of what it does
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with listening(server.app) as port:
        for _ in range(ROUNDS):
            await asyncio.gather(*(visit(port, usual * AT_ONCE) for _ in range(AT_ONCE)))
        for _ in range(20):
            await visit(port, usual * 1.5)
        await assert_nothing_is_left(server, admin)


async def test_clients_that_hang_up_while_signing_in_lock_nobody_out(server: Server, ada: Person):
    body = json.dumps({"username": "ada", "password": PASSWORD}).encode()
    request = head("POST", "/api/auth/login", "Content-Type: application/json", f"Content-Length: {len(body)}") + body
    async with listening(server.app) as port:
        for number in range(120):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(number % 12 / 500)  # at each point of what it does
            writer.close()
        answer = await exchange(port, request)
    assert answer.status == 200
