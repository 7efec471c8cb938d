"""Probes: alive as long as the process answers, ready as long as it can serve."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from tests.people import Person, Server
from tests.problems import assert_headers
from usermgmt.security.keys import KeyRing
from usermgmt.storage.database import SQLITE_READERS

LIVE = ("/health/live", "/livez", "/healthz")
READY = ("/health/ready", "/readyz")


@pytest.fixture
def flags() -> dict[str, Any]:
    """A small pool, and little patience with it."""
    return {"database.pool_size": 2, "database.pool_timeout": "100ms"}


async def probe(server: Server) -> tuple[list[int], list[dict[str, Any]]]:
    """The status of each probe, and what the readiness says."""
    answers = [await server.nobody().get(path) for path in (*LIVE, *READY)]
    for answer in answers:
        assert_headers(answer)
        assert ("Retry-After" in answer.headers) == (answer.status_code == 503)
    assert {await answer.get_data(as_text=True) for answer in answers[: len(LIVE)]} == {'{"status":"ok"}'}
    return [answer.status_code for answer in answers], [await answer.get_json() for answer in answers[len(LIVE) :]]


async def test_a_running_server_is_live_and_ready(server: Server):
    statuses, ready = await probe(server)
    assert statuses == [200, 200, 200, 200, 200]
    assert ready[0] == ready[1]
    assert ready[0]["status"] == "ok"
    assert set(ready[0]["checks"].values()) == {True}
    assert {"accepting", "database", "signing_key"} <= set(ready[0]["checks"])
    for path in (*LIVE, *READY):
        assert (await server.nobody().call("HEAD", path)).status_code == 200


async def test_draining_it_is_live_and_not_ready_but_still_serves(server: Server, ada: Person):  # M08
    server.runtime.is_draining = True
    statuses, ready = await probe(server)
    assert statuses == [200, 200, 200, 503, 503]
    assert ready[0]["status"] == "unavailable"
    assert [name for name, passed in ready[0]["checks"].items() if not passed] == ["accepting"]
    assert (await ada.get("/api/users/me")).status_code == 200


async def test_without_a_free_connection_it_is_live_and_not_ready(server: Server):  # M04
    readers = SQLITE_READERS if server.runtime.database.is_sqlite else 2
    async with AsyncExitStack() as held:
        for _ in range(readers):
            session = await held.enter_async_context(server.runtime.database.read())
            await session.execute(text("SELECT 1"))
        statuses, ready = await probe(server)
        assert statuses == [200, 200, 200, 503, 503]
        assert [name for name, passed in ready[0]["checks"].items() if not passed] == ["database"]
    assert (await probe(server))[0] == [200, 200, 200, 200, 200]


async def test_without_a_key_to_sign_with_it_is_not_ready(server: Server):
    server.runtime.ring = KeyRing(())
    statuses, ready = await probe(server)
    assert statuses == [200, 200, 200, 503, 503]
    assert [name for name, passed in ready[0]["checks"].items() if not passed] == ["signing_key"]


async def test_probes_leave_no_line_in_the_log(server: Server):
    with structlog.testing.capture_logs() as logs:
        await probe(server)
        await server.nobody().get("/.well-known/jwks.json")
    assert [line["route"] for line in logs if line["event"] == "request"] == ["/.well-known/jwks.json"]


async def test_a_credential_is_not_looked_at(server: Server):
    for header in ("Bearer x.y.z", "Basic eDp5", "\x7f"):
        for path in (*LIVE, *READY):
            assert (await server.nobody().get(path, headers={"Authorization": header})).status_code == 200
