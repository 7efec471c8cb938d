"""A new root secret signs nobody out: it is used when every process knows it, and what the old one made stays good."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.conftest import SECRET
from tests.people import PASSWORD, Person, Server
from usermgmt.root_secrets import service
from usermgmt.security.secrets import Purpose
from usermgmt.settings import Settings
from usermgmt.signing_keys import service as signing_keys

NEW = "tests-only-2b8046e8d24b60a1f7c3d95e7f3a9c51"
ROLLOUT = timedelta(minutes=10)


class Deployment:
    """Processes that are started after each other, on one database and one clock."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings, self._stack = settings, stack
        self._servers: list[Server] = []

    async def start(self, *secrets: str) -> Server:
        """Start a process with these root secrets."""
        secret = self._settings.secret.model_copy(update={"keys": tuple(map(SecretStr, secrets))})
        server = Server(self._settings.model_copy(update={"secret": secret}))
        if self._servers:
            server.clock.ahead = self._servers[0].clock.ahead
        await self._stack.enter_async_context(server.running())
        self._servers.append(server)
        return server

    async def move(self, by: timedelta) -> None:
        """Let time pass, and every process look what it has to make with."""
        for server in self._servers:
            server.clock.move(by)
            await service.choose_root(server.runtime)


@pytest.fixture
async def deployment(settings: Settings) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        yield Deployment(settings, stack)


def at(server: Server, person: Person) -> Person:
    """The same person, who calls another process."""
    there = Person(server, username=person.username, password=person.password, id=person.id)
    there.access_token, there.refresh_token = person.access_token, person.refresh_token
    return there


async def refreshed(person: Person) -> int:
    """Refresh; the status."""
    answer = await person.post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
    if answer.status_code == 200:
        person.keep(await answer.get_json())
    return answer.status_code


async def hash_of(server: Server, person: Person) -> str:
    ((stored,),) = await server.rows("SELECT password_hash FROM users WHERE username = :name", name=person.username)
    assert isinstance(stored, str)
    return stored


async def test_in_a_rolling_restart_every_process_takes_what_the_others_made(deployment: Deployment):
    old = await deployment.start(SECRET)
    new = await deployment.start(NEW, SECRET)
    ada = await new.person("ada")
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
    once = {"Idempotency-Key": "the-very-same"}
    assert (await new.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    assert (await old.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    for server in (old, new, old, new):
        there = at(server, ada)
        assert await refreshed(there) == 200
        assert (await there.get("/api/users/me")).status_code == 200
        await there.log_in()
        ada = there
    root = await new.person("root", roles=["admin"])
    page = await (await at(new, root).get("/api/users?limit=1")).get_json()
    assert (await at(old, root).get(f"/api/users?limit=1&cursor={page['next_cursor']}")).status_code == 200


async def test_then_all_turn_to_it_and_the_old_one_can_go(deployment: Deployment):
    await deployment.start(SECRET)
    first, second = await deployment.start(NEW, SECRET), await deployment.start(NEW, SECRET)
    ada, bob = await first.person("ada"), await first.person("bob")
    before = await hash_of(first, ada)
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
    once = {"Idempotency-Key": "the-very-same"}
    assert (await first.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    await deployment.move(ROLLOUT - timedelta(minutes=3))
    assert [root.is_making for root in await service.list_roots(first.runtime)] == [False, True]
    await deployment.move(timedelta(minutes=3))
    assert [root.is_making for root in await service.list_roots(first.runtime)] == [True, False]
    assert (await second.nobody().post("/api/users", json=body, headers=once)).status_code == 201
    for server in (second, first):
        there = at(server, ada)
        await there.log_in()
        assert await refreshed(there) == 200
        ada = there
    after = await hash_of(first, ada)
    assert after != before
    assert after.split("$")[1] == pepper(first, 0)
    assert await signing_keys.tend_keys(first.runtime) == 1
    alone = await deployment.start(NEW)
    there = at(alone, ada)
    assert (await there.get("/api/users/me")).status_code == 200
    assert await refreshed(there) == 200
    await there.log_in()
    assert await refreshed(at(alone, bob)) == 401  # whose refresh token the old one made: that is why one waits


def pepper(server: Server, position: int) -> str:
    return server.runtime.secrets.all(Purpose.PASSWORD_PEPPER)[position].key_id


@pytest.mark.parametrize(
    ("starts", "making"),
    [
        ([[SECRET]], SECRET),
        ([[NEW, SECRET]], NEW),  # a deployment that begins so has nobody to wait for
        ([[SECRET], [NEW]], NEW),  # the old one leaked: it is gone at once, and everybody signs in again
        ([[SECRET], [NEW, SECRET]], SECRET),
        ([[SECRET], [SECRET, NEW], [NEW, SECRET]], SECRET),
        ([[SECRET], [NEW, SECRET], [SECRET]], SECRET),  # taken back
    ],
)
async def test_which_one_makes(deployment: Deployment, starts: list[list[str]], making: str):
    for secrets in starts:
        server = await deployment.start(*secrets)
    assert secrets[server.runtime.secrets.making] == making


async def test_what_is_stored_of_a_root_secret_tells_nothing_of_it(deployment: Deployment):
    server = await deployment.start(NEW, SECRET)
    rows = json.dumps([list(map(str, row)) for row in await server.rows("SELECT * FROM root_secrets")])
    assert len(json.loads(rows)) == 2
    assert all(part not in rows for secret in (NEW, SECRET) for part in (secret, secret[11:19], secret[-8:]))
