"""How many statements each hot request costs, exactly: a number that no machine changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.people import PASSWORD, Person, Server
from usermgmt.storage.watchdog import Watchdog

EVE = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements of the block, without what begins and ends a transaction."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture(autouse=True)
def _no_chores(monkeypatch: pytest.MonkeyPatch):
    """What the server does by the clock would be counted with what a request does."""
    for name in ("own_chores", "shared_chores"):
        monkeypatch.setattr(f"usermgmt.app.{name}", lambda _: ())

    async def answers(_: Watchdog) -> bool:
        return True

    monkeypatch.setattr(Watchdog, "_probe", answers)


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"limits.enabled": "false"}


async def test_reads(server: Server, admin: Person, ada: Person):
    exact = 3 if server.runtime.database.is_sqlite else 4  # PostgreSQL is told how long counting may take
    for caller, path, count in (
        (ada, "/api/users/me", 2),  # the session with its account and rights; the account
        (admin, f"/api/users/{ada.id}", 2),
        (admin, "/api/users?limit=50", 2),
        (admin, "/api/users?limit=50&count=exact", exact),
        (server.nobody(), "/health/live", 0),
    ):
        await caller.get(path)
        with counted() as seen:
            assert (await caller.get(path)).status_code == 200
        assert len(seen) == count, (path, seen)


async def test_a_refresh(ada: Person):
    with counted() as seen:
        answer = await ada.post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})
    assert answer.status_code == 200
    assert [statement.split()[0] for statement in seen] == ["UPDATE", "INSERT"]


async def test_writes(server: Server, ada: Person):
    with counted() as seen:
        assert (await ada.patch("/api/users/me", json={"display_name": "Ada"})).status_code == 200
    assert len(seen) == 6, seen
    with counted() as seen:
        assert (await server.nobody().post("/api/users", json=EVE)).status_code == 201
    assert len(seen) == 6, seen
    with counted() as seen:
        answer = await server.nobody().post("/api/auth/login", json={"username": "eve", "password": PASSWORD})
    assert answer.status_code == 200
    assert len(seen) == 14, seen
    with counted() as seen:
        assert (await ada.post("/api/auth/logout")).status_code == 204
    assert len(seen) == 3, seen
