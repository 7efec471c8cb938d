"""Steady load that remembers: so many requests a second whatever becomes of them, and what each was answered."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Client, request
from benchmarks.server import PASSWORD

PATIENCE = 25.0  # seconds; nobody waits longer
NO_ANSWER = 0  # the connection broke, or nothing came
NOT_TAKEN = -1  # nobody took the connection: the request was not made
PROBE_PAUSE = 0.2
PROBLEM = b"content-type: application/problem+json"


@dataclass(slots=True)
class Call:
    """A request and what became of it. Times are in seconds of the monotonic clock."""

    kind: str
    name: str
    started: float
    ended: float = 0.0
    status: int = NO_ANSWER
    code: str = ""
    version: int = 0
    is_odd: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.started

    @property
    def is_good(self) -> bool:
        """Whether it did what was asked."""
        return 200 <= self.status < 300

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.kind in ("register", "update")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who is read and changed."""

    id: str
    username: str


@dataclass
class Traffic:
    """Requests at a rate. Each fifth registers, each fifth changes an account, one in ten signs in, the rest read."""

    port: int
    token: str
    accounts: Sequence[Account]
    rate: float
    is_writing_only: bool = False
    prefix: str = "w"
    calls: list[Call] = field(default_factory=list)
    probes: list[Call] = field(default_factory=list)
    _idle: list[Client] = field(default_factory=list)
    _under_way: set["asyncio.Task[None]"] = field(default_factory=set)
    _resting: bool = False
    _count: int = 0

    async def run(self) -> None:
        """Ask at the rate until cancelled."""
        probing = [asyncio.create_task(self._probe(path)) for path in ("live", "ready")]
        due = time.monotonic()
        try:
            while True:
                due += 1 / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not self._resting:
                    self.ask()
        finally:
            for task in probing:
                task.cancel()

    def ask(self) -> "asyncio.Task[None]":
        """Begin one request now."""
        task = asyncio.create_task(self._make(self._count))
        self._count += 1
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def rest(self) -> None:
        """Ask nothing for now; returns when everything is answered."""
        self._resting = True
        await self.settle()

    def go_on(self) -> None:
        """Ask again."""
        self._resting = False

    async def settle(self) -> None:
        """Wait until every request is answered."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def repeat(self, name: str) -> Call:
        """Register under a name again, with the key of the first time."""
        return await self._call(Call("repeat", name, time.monotonic()), _registration(name))

    async def _make(self, number: int) -> None:
        call, wire = self._next(number)
        self.calls.append(await self._call(call, wire))

    def _next(self, number: int) -> tuple[Call, bytes]:
        account = self.accounts[number % len(self.accounts)]
        turn, now = number % 10, time.monotonic()
        if self.is_writing_only:
            turn = turn % 2
        if turn in (0, 5):
            name = f"{self.prefix}{number}"
            return Call("register", name, now), _registration(name)
        if turn in (1, 6):
            wire = request(
                "PATCH", f"/api/users/{account.id}", token=self.token, body={"display_name": f"{self.prefix}{number}"}
            )
            return Call("update", account.id, now), wire
        if turn == 2:
            body = {"username": account.username, "password": PASSWORD}
            return Call("sign in", account.username, now), request("POST", "/api/auth/login", body=body)
        path = ("/api/users/me", f"/api/users/{account.id}", "/api/users?limit=10")[number % 3]
        return Call("read", path, now), request("GET", path, token=self.token)

    async def _call(self, call: Call, wire: bytes) -> Call:
        client = self._idle.pop() if self._idle else Client("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(PATIENCE):
                call.status, body = await client.call(wire)
        except ConnectionRefusedError:
            call.status = NOT_TAKEN
        except (OSError, EOFError):
            client.close()
        else:
            self._idle.append(client)
            _note(call, client.head, body)
        call.ended = time.monotonic()
        return call

    async def _probe(self, path: str) -> None:
        """Ask for the health again and again, on a connection of its own each time."""
        wire = request("GET", f"/health/{path}", headers={"Connection": "close"})
        while True:
            call = Call(path, "", time.monotonic())
            client = Client("127.0.0.1", self.port)
            try:
                async with asyncio.timeout(PATIENCE):
                    call.status, _ = await client.call(wire)
            except ConnectionRefusedError:
                call.status = NOT_TAKEN
            except (OSError, EOFError):
                pass
            finally:
                client.close()
            call.ended = time.monotonic()
            self.probes.append(call)
            await asyncio.sleep(PROBE_PAUSE)


def _registration(name: str) -> bytes:
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    return request("POST", "/api/users", body=body, headers={"Idempotency-Key": f"key-of-{name}"})


def _note(call: Call, head: bytes, body: bytes) -> None:
    """What an answer tells beside its status; one that is not as promised is odd."""
    if call.is_good:
        call.version = _version_of(head) if call.kind == "update" else 0
        return
    document: Any = json.loads(body) if body[:1] == b"{" else {}
    call.code = str(document.get("code", ""))
    call.is_odd = PROBLEM not in head or (call.status == 503 and b"\r\nretry-after: " not in head)


def _version_of(head: bytes) -> int:
    for line in _lines(head):
        if line.startswith(b"etag:"):
            return int(line.partition(b'"')[2].partition(b'"')[0])
    return 0


def _lines(head: bytes) -> Iterator[bytes]:
    yield from head.split(b"\r\n")
