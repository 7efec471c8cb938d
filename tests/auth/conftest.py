"""What the tests of signing in stand on: a stopped clock, further instances, and what a session's row holds."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.people import Person, Server

GRACE = timedelta(seconds=10)  # tokens.refresh_grace
SECOND = timedelta(seconds=1)

StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def another_server(database_url: str, flags: dict[str, Any], server: Server) -> AsyncIterator[StartServer]:
    """Starts a further instance on the same database, with the same settings or some that differ."""
    async with AsyncExitStack() as instances:

        async def start(**different: Any) -> Server:
            other = Server(settings_for(database_url, **{**flags, **different}))
            other.clock.move(server.clock.ahead)
            return await instances.enter_async_context(other.running())

        yield start


@pytest.fixture
def stopped(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with a clock that stands still, so that a limit can be met to the millisecond."""
    stopped_at = server.clock.now() - server.clock.ahead
    monkeypatch.setattr(server.clock, "now", lambda: stopped_at + server.clock.ahead)
    return server


def at(server: Server, person: Person) -> Person:
    """The same person with the same tokens, calling another instance."""
    there = Person(server, username=person.username, password=person.password, id=person.id)
    there.access_token, there.refresh_token = person.access_token, person.refresh_token
    return there
