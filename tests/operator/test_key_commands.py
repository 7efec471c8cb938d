"""`usermgmt keys`."""

import asyncio
import json
import time

import pytest

from tests.conftest import settings_for
from tests.operator.conftest import CommandLine
from tests.people import PASSWORD, Server


@pytest.fixture
def first(line: CommandLine, database_url: str) -> str:
    """The kid of the key that a first start makes."""

    async def start() -> None:
        async with Server(settings_for(database_url)).running():
            pass

    asyncio.run(start())
    (key,) = line.documents("keys", "list")
    assert (key["state"], key["algorithm"], key["retired_at"]) == ("signing", "ES256", None)
    kid: str = key["kid"]
    return kid


def states(line: CommandLine) -> dict[str, str]:
    return {key["kid"]: key["state"] for key in line.documents("keys", "list")}


def test_a_rotation_publishes_before_it_signs(line: CommandLine, first: str) -> None:
    made = line.document("keys", "rotate")
    assert states(line) == {first: "signing", made["kid"]: "published"}
    assert first in line.done("keys", "list")


def test_a_rotation_at_once_signs_at_once(line: CommandLine, first: str) -> None:
    made = line.document("keys", "rotate", "--at-once")
    assert states(line) == {first: "verifying", made["kid"]: "signing"}


def test_a_key_is_retired_after_a_yes(line: CommandLine, first: str) -> None:
    made = line.document("keys", "rotate", "--at-once")
    assert "--yes" in line.refused(2, "keys", "retire", first)
    line.done("keys", "retire", first, "--yes")
    assert states(line) == {first: "retired", made["kid"]: "signing"}


@pytest.mark.parametrize(("kid", "code"), [("nope", "signing_key_not_found"), ("first", "last_signing_key")])
def test_what_cannot_be_retired(line: CommandLine, first: str, kid: str, code: str) -> None:
    named = first if kid == "first" else kid
    assert json.loads(line.refused(1, "keys", "retire", named, "--yes", "--json"))["error"]["code"] == code


def test_a_key_under_another_secret_is_told(line: CommandLine, first: str) -> None:
    line.environ["USERMGMT_SECRET_KEYS"] = "another-root-secret-3f9a1c77e0b54d2c"
    assert states(line) == {first: "unreadable"}


def test_it_is_told_how_many_live_tokens_each_key_signed(line: CommandLine, database_url: str) -> None:
    async def sign() -> None:
        server = Server(settings_for(database_url))
        async with server.running():
            ada, bob, eve = [await server.person(name) for name in ("ada", "bob", "eve")]
            for _ in range(2):
                body = {"refresh_token": ada.refresh_token}
                answer = await ada.post("/api/auth/refresh", json=body)
                repeated = await ada.post("/api/auth/refresh", json=body)  # a lost answer
                assert (answer.status_code, repeated.status_code) == (200, 200)
                ada.keep(await answer.get_json())
            assert (await bob.post("/api/auth/logout")).status_code == 204
            assert (await eve.get("/api/users/me")).status_code == 200

    asyncio.run(sign())
    assert [key["live_tokens"] for key in line.documents("keys", "list")] == [4]  # three of ada's, one of eve's
    line.document("keys", "rotate", "--at-once")
    assert [key["live_tokens"] for key in line.documents("keys", "list")] == [4, 0]
    asyncio.run(sign_in_again(database_url))
    assert [key["live_tokens"] for key in line.documents("keys", "list")] == [4, 1]
    line.environ["USERMGMT_TOKENS__ACCESS_LIFETIME"] = "1s"
    time.sleep(1.1)  # real time: a command has no clock that a test could move
    assert [key["live_tokens"] for key in line.documents("keys", "list")] == [0, 0]


async def sign_in_again(database_url: str) -> None:
    server = Server(settings_for(database_url))
    async with server.running():
        body = {"username": "bob", "password": PASSWORD}
        assert (await server.nobody().post("/api/auth/login", json=body)).status_code == 200
