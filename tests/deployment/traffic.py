"""Front ends that call without pause, each on a connection of its own, and count every request that fails."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 30.0
PAUSE_SECONDS = 0.004  # of each caller after each request: what is asked is that none fails, not how many there are

Connect = Callable[[], socket.socket]


class Connection(http.client.HTTPConnection):
    """HTTP over sockets that `make` opens."""

    def __init__(self, make: Connect) -> None:
        super().__init__("accounts.example.com", timeout=PATIENCE)
        self._make = make

    def connect(self) -> None:
        """Open one."""
        self.sock = self._make()


class Client:
    """Somebody who calls the API, signed in or not, on one connection that is kept."""

    def __init__(self, make: Connect) -> None:
        self._connection = Connection(make)
        self.token = ""
        self.refresh_token = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request; the status and the document of the answer. `headers` are written with underscores."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            given.setdefault("Authorization", f"Bearer {self.token}")
        sent = body
        if body is not None and not isinstance(body, bytes):
            sent = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        self._connection.request(method, path, sent, given)
        response = self._connection.getresponse()
        answer = response.read()
        kind = response.headers.get("Content-Type", "")
        return response.status, json.loads(answer) if answer and kind.endswith("json") and "nd" not in kind else answer

    def sign_in(self, username: str, password: str, **headers: str) -> None:
        """Get a session."""
        status, tokens = self.ask("POST", "/api/auth/login", {"username": username, "password": password}, **headers)
        assert status == 200, tokens
        self.token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@dataclass(slots=True)
class Traffic:
    """What was asked and what failed."""

    asked: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[float, str, str]] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, str, float] = (0.0, "", 0.0)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, client: Client, username: str, kind: str) -> None:
        """Call until the end."""
        number = 0
        while not self._ended.is_set():
            number += 1
            self._one(client, username, kind, number)
            self._ended.wait(PAUSE_SECONDS)
        client.close()

    def _one(self, client: Client, username: str, kind: str, number: int) -> None:
        started = time.monotonic()
        name = f"{username} {number}"
        try:
            if kind == "read":
                status, document = client.ask("GET", "/api/users/me")
            elif kind == "list":
                status, document = client.ask("GET", "/api/users?limit=5")
            elif kind == "change":
                status, document = client.ask("PATCH", "/api/users/me", {"display_name": name})
            else:
                status, document = client.ask("POST", "/api/auth/refresh", {"refresh_token": client.refresh_token})
        except (OSError, http.client.HTTPException) as error:
            self._failed(kind, f"{error!r} {number} {time.monotonic() - started:.3f}")
            client.close()
            return
        with self._lock:
            self.asked[kind] += 1
            self.slowest = max(self.slowest, (time.monotonic() - started, kind, started))
            if status == 200 and kind == "change":
                self.acknowledged[username] = name
        if status != 200:
            self._failed(kind, f"{status} {document}")
        elif kind == "refresh":
            client.token, client.refresh_token = document["access_token"], document["refresh_token"]

    def _failed(self, kind: str, why: str) -> None:
        with self._lock:
            self.faults.append((time.monotonic(), kind, why))


def told(what: str, seen: Traffic) -> None:
    """Say what was counted, for the pages that quote it: `make deployment` shows it."""
    print(f"\n{what}: {sum(seen.asked.values())} requests, {len(seen.faults)} failed, slowest {seen.slowest[0]:.2f} s")  # noqa: T201


@contextmanager
def traffic(clients: list[tuple[Client, str, str]]) -> Iterator[Traffic]:
    """Calls without pause while the block runs: a client, its username, and what it does."""
    made = Traffic()
    threads = [threading.Thread(target=made.run, args=each) for each in clients]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made._ended.set()
        for thread in threads:
            thread.join()
