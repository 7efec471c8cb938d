"""Faults are told to an error tracker with what mends them and with nothing that a client sent."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import NoReturn

import pytest

from tests.conftest import settings_for
from tests.people import PASSWORD, Person, Server
from tests.telemetry.receivers import Receiver, receiving
from usermgmt import __version__
from usermgmt.audit import seals
from usermgmt.telemetry import error_tracking

HANGS = pytest.mark.parametrize("receiver", [True], indirect=True)


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(hangs=getattr(request, "param", False)) as receiver:
        yield receiver


@pytest.fixture
def flags(receiver: Receiver) -> dict[str, object]:
    return {"errors.sentry_dsn": f"http://key@127.0.0.1:{receiver.port}/1", "errors.environment": "tests"}


class CanaryFault(Exception):
    pass


async def breaks(**_: object) -> NoReturn:
    """A handler with a fault, and a secret in all that it holds."""
    password = "-".join(["canary", "in", "variable"])
    try:
        raise ValueError(f"{password} in the message of the cause")
    except ValueError as error:
        raise CanaryFault(f"{password} in the message", {"token": password}) from error


@pytest.fixture
def broken(server: Server) -> Server:
    """The server, one of whose handlers is broken."""
    server.app.view_functions["users.update_user"] = breaks
    assert "users.update_user" in server.app.view_functions
    return server


async def break_it(person: Person) -> str:
    response = await person.put(
        "/api/users/me?canary-in-query=1",
        json={"display_name": "canary-in-body", "password": "canary-in-body"},
        headers={"X-Anything": "canary-in-header", "Cookie": "session=canary-in-cookie", "User-Agent": "canary-agent"},
    )
    assert response.status_code == 500
    body = await response.get_json()
    assert body["code"] == "internal_error"
    return str(body["request_id"])


async def test_a_fault_is_told_with_its_place_and_its_request(broken: Server, ada: Person, receiver: Receiver):
    request_id = await break_it(ada)
    whole, event = receiver.envelope()
    route = "/api/users/<user_ref:user_id>"
    assert event["tags"] == {"request_id": request_id, "method": "PUT", "route": route}
    assert event["transaction"] == f"PUT {route}"
    assert (event["release"], event["environment"]) == (f"usermgmt@{__version__}", "tests")
    kinds = [each["type"] for each in event["exception"]["values"]]
    assert kinds == ["ValueError", "CanaryFault"]
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames[-1]["function"] == "breaks"
    assert 'raise CanaryFault(f"{password} in the message"' in frames[-1]["context_line"]
    assert not {"request", "user", "breadcrumbs", "extra", "contexts", "modules"} & set(event)
    for secret in (b"canary-", ada.access_token, ada.refresh_token, PASSWORD, ada.username, "127.0.0.1", ada.id):
        needle = secret if isinstance(secret, bytes) else str(secret).encode()
        assert needle not in whole.replace(f"127.0.0.1:{receiver.port}".encode(), b""), secret


@HANGS
async def test_nobody_waits_for_the_tracker(broken: Server, ada: Person, receiver: Receiver):
    for _ in range(3):
        await break_it(ada)
    receiver.next()  # it came, and is not answered
    assert not receiver.lets_go.is_set()
    assert (await ada.get("/api/users/me")).status_code == 200


async def test_a_refusal_is_no_fault(server: Server, ada: Person, receiver: Receiver):
    assert (await ada.get("/api/users")).status_code == 403
    assert (await ada.get("/api/users/me", headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await ada.get("/nowhere")).status_code == 404
    error_tracking.end()  # sends what waits
    assert receiver.rest() == []


@pytest.mark.parametrize("rate", ["0", "1"])
async def test_only_the_share_that_is_wanted_is_told(flags, database_url: str, receiver: Receiver, rate: str):
    server = Server(settings_for(database_url, **flags, **{"errors.sample_rate": rate}))
    async with server.running():
        server.app.view_functions["users.update_user"] = breaks
        await break_it(await server.person("ada"))
    told = [body for body in receiver.rest() if b'"exception"' in body]
    assert len(told) == int(rate)


@pytest.mark.parametrize("flags", [{}])
async def test_without_a_dsn_nothing_is_told(broken: Server, ada: Person, receiver: Receiver):
    await break_it(ada)
    assert receiver.rest() == []


async def test_a_chore_that_fails_is_told(receiver: Receiver, flags, database_url: str):
    server = Server(settings_for(database_url, **flags, **{"audit.seal_interval": "100ms"}))
    async with server.running():
        await server.person("ada")
        server.clock.move(timedelta(minutes=1))
        await seals.seal_pending(server.runtime)
        await server.execute("UPDATE audit_head SET signature = 'canary-signature'")
        whole, event = await _taken(receiver)
    assert event["tags"] == {"chore": "audit_seals"}
    assert event["exception"]["values"][-1]["type"] == "ChainBroken"
    assert b"canary" not in whole


async def _taken(receiver: Receiver) -> tuple[bytes, dict[str, object]]:
    return await asyncio.to_thread(receiver.envelope)
