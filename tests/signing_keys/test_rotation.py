"""Signing keys are replaced by their age, published before they sign, and gone when nothing they signed is alive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.conftest import SECRET
from tests.people import Person, Server
from usermgmt.security.principal import OPERATOR
from usermgmt.settings import Settings
from usermgmt.signing_keys import service

NEW = "tests-only-2b8046e8d24b60a1f7c3d95e7f3a9c51"
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


async def published(server: Server) -> list[str]:
    """The kids that others read."""
    answer = await (await server.nobody().get("/.well-known/jwks.json")).get_json()
    return [key["kid"] for key in answer["keys"]]


async def tend(server: Server) -> int:
    """What the chore does, and what every process does a moment later."""
    touched = await service.tend_keys(server.runtime)
    await service.refresh_ring(server.runtime)
    return touched


def signing(server: Server) -> str:
    key = server.runtime.ring.signing_key("ES256", server.clock.now())
    assert key is not None
    return key.kid


async def test_an_old_key_is_replaced_and_nobody_is_signed_out(server: Server, ada: Person):
    (old,) = await published(server)
    assert await tend(server) == 0
    server.clock.move(90 * DAY)
    await ada.log_in()
    assert await tend(server) == 1
    assert await tend(server) == 0  # the next one is on its way
    (_, new) = await published(server)
    assert signing(server) == old  # published, not used
    server.clock.move(service.PUBLICATION_TIME)
    assert signing(server) == new
    assert (await ada.get("/api/users/me")).status_code == 200  # by the old one
    server.clock.move(8 * MINUTE)  # of ten, and one is over
    assert (await ada.get("/api/users/me")).status_code == 200
    await ada.log_in()
    server.clock.move(3 * MINUTE)
    assert (await ada.get("/api/users/me")).status_code == 200
    assert await published(server) == [new]
    assert await tend(server) == 0
    server.clock.move(DAY)
    assert await tend(server) == 1
    assert [key.kid for key in await service.list_keys(server.runtime)] == [new]


@pytest.mark.parametrize(
    ("flags", "days", "touched"),
    [
        ({"tokens.key_lifetime": "0"}, 3_000, 0),
        ({"tokens.key_lifetime": "7d"}, 6, 0),
        ({"tokens.key_lifetime": "7d"}, 7, 1),
    ],
)
async def test_how_old_a_key_becomes_is_a_setting(server: Server, days: int, touched: int):
    server.clock.move(days * DAY)
    assert await tend(server) == touched


async def test_a_key_that_somebody_rotated_is_as_old_as_its_last_rotation(server: Server):
    server.clock.move(80 * DAY)
    await service.rotate_key(server.runtime, caller=OPERATOR)
    server.clock.move(89 * DAY)
    assert await tend(server) == 1  # the retired one is removed, none is made
    assert len(await published(server)) == 1
    server.clock.move(DAY)
    assert await tend(server) == 0
    server.clock.move(MINUTE)
    assert await tend(server) == 1


@asynccontextmanager
async def process(settings: Settings, *secrets: str) -> AsyncIterator[Server]:
    """A process with these root secrets, which uses the first at once."""
    secret = settings.secret.model_copy(update={"keys": tuple(map(SecretStr, secrets)), "rollout": timedelta(0)})
    server = Server(settings.model_copy(update={"secret": secret}))
    async with server.running():
        yield server


async def test_keys_are_sealed_anew_before_an_old_root_secret_is_taken_away(settings: Settings):
    async with process(settings, SECRET) as before:
        ada = await before.person("ada")
        kids = await published(before)
    async with process(settings, NEW, SECRET) as during:
        assert await tend(during) == 1
        assert await tend(during) == 0
    async with process(settings, NEW) as after:
        assert await published(after) == kids
        answer = await after.nobody().get("/api/users/me", headers={"Authorization": f"Bearer {ada.access_token}"})
        assert answer.status_code == 200


async def test_without_that_the_keys_of_a_root_secret_go_with_it(settings: Settings):
    async with process(settings, SECRET) as before:
        kids = await published(before)
    async with process(settings, NEW) as after:
        assert set(await published(after)) & set(kids) == set()
