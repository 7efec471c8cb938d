"""Guesses are counted before they are verified: by account, by network, by session; nobody is locked out by others."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.security.hashing import PasswordHasher
from usermgmt.settings import Settings
from usermgmt.throttle import service as throttle

LOGIN = "/api/auth/login"
LIMIT = 10
WINDOW = timedelta(minutes=15)
HOME, STRANGE = "192.0.2.7", "198.51.100.9"


@pytest.fixture
def flags() -> dict[str, Any]:
    return {
        "throttle.account": "10/15m",
        "throttle.network": "30/15m",
        "throttle.session": "5/15m",
        "throttle.refresh": "5/15m",
        "database.pool_timeout": "30s",  # it is the counting that is looked at, on however busy a machine
        "passwords.hash_queue": "30s",
        "server.request_timeout": "60s",
    }


async def guess(server: Server, name: str, password: str = "wrong", *, address: str = STRANGE) -> Response:
    """A sign-in from an address."""
    body = {"username": name, "password": password}
    return await server.nobody().post(LOGIN, json=body, scope_base={"client": (address, 1234)})


async def statuses(server: Server, name: str, count: int, *, address: str = STRANGE) -> list[int]:
    return [(await guess(server, name, address=address)).status_code for _ in range(count)]


class Verifications:
    """Counts what the hasher is asked, and still asks it."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self.count = 0
        self._verify = hasher.verify
        hasher.verify = self.verify  # type: ignore[method-assign]  # counts, and passes on

    async def verify(self, password: str, stored: str | None, **options: Any) -> Any:
        self.count += 1
        return await self._verify(password, stored, **options)


# By account


async def test_after_ten_wrong_guesses_the_next_is_refused_until_the_window_ends(server: Server, ada: Person):  # C01
    assert await statuses(server, "ada", LIMIT) == [401] * LIMIT
    refused = await guess(server, "ada", PASSWORD)
    await problem_of(refused, 429, "too_many_attempts")
    assert 890 <= int(refused.headers["Retry-After"]) <= 900
    assert len(await server.events("login.throttled")) == 1
    server.clock.move(WINDOW)
    assert (await guess(server, "ada", PASSWORD)).status_code == 200


async def test_many_addresses_share_the_account_s_guesses(server: Server, ada: Person):  # C02
    verified = Verifications(server.runtime.hasher)
    answers = [(await guess(server, "ada", address=f"203.0.113.{number}")).status_code for number in range(50)]
    assert answers == [401] * LIMIT + [429] * 40
    assert verified.count == LIMIT


async def test_every_spelling_of_a_name_is_one_name(server: Server, ada: Person):
    for name in ("ada", "ADA", "Ada", "\uff41da", "aDa"):
        assert await statuses(server, name, 2) == [401, 401]
    assert await statuses(server, "ada", 1) == [429]


async def test_unknown_names_are_answered_as_known_ones(server: Server, ada: Person):  # B04
    known = [await guess(server, "ada", address="198.51.100.1") for _ in range(LIMIT + 3)]
    unknown = [await guess(server, "nobody", address="198.51.100.2") for _ in range(LIMIT + 3)]
    for one, other in zip(known, unknown, strict=True):
        first, second = await one.get_json(), await other.get_json()
        assert {**first, "request_id": ""} == {**second, "request_id": ""}
        assert [name for name, _ in one.headers] == [name for name, _ in other.headers]
    assert [answer.status_code for answer in known] == [401] * LIMIT + [429] * 3


@pytest.mark.parametrize("name", ["no such name at all \u0378", "a@b", "x" * 300])
async def test_what_cannot_be_a_name_is_counted_too(server: Server, name: str):
    assert await statuses(server, name, LIMIT + 1) == [401] * LIMIT + [429]


async def test_success_forgets_the_account_s_failures_and_only_these(server: Server, ada: Person, bob: Person):
    assert await statuses(server, "ada", LIMIT - 1) == [401] * (LIMIT - 1)
    assert await statuses(server, "bob", LIMIT) == [401] * LIMIT
    assert (await guess(server, "ada", PASSWORD)).status_code == 200
    assert await statuses(server, "ada", LIMIT) == [401] * LIMIT
    assert await statuses(server, "bob", 1) == [429]


# By network


async def test_one_password_for_many_accounts_uses_up_the_network(server: Server):  # C06
    answers = [(await guess(server, f"user{number}")).status_code for number in range(40)]
    assert answers == [401] * 30 + [429] * 10
    assert (await guess(server, "user99", address="198.51.100.10")).status_code == 401


async def test_the_addresses_of_one_customer_are_one_network(server: Server):  # D05
    answers = [(await guess(server, f"u{n}", address=f"2001:db8:1:2::{n:x}")).status_code for n in range(35)]
    assert answers == [401] * 30 + [429] * 5
    assert (await guess(server, "x", address="2001:db8:1:3::1")).status_code == 401
    assert (await guess(server, "x", address="2001:0db8:0001:0002:0:0:0:ffff")).status_code == 429


async def test_success_does_not_give_the_network_its_guesses_back(server: Server, ada: Person):
    for number in range(29):
        assert (await guess(server, f"user{number}")).status_code == 401
    for _ in range(5):
        assert (await guess(server, "ada", PASSWORD)).status_code == 200
    assert (await guess(server, "user50")).status_code == 401
    assert (await guess(server, "user51")).status_code == 429


# Nobody is locked out


async def test_a_network_that_signed_in_before_keeps_its_own_guesses(server: Server, ada: Person):  # P6
    assert (await guess(server, "ada", PASSWORD, address=HOME)).status_code == 200
    for number in range(60):
        await guess(server, "ada", address=f"203.0.113.{number}")
    assert (await guess(server, "ada", PASSWORD)).status_code == 429
    for _ in range(20):
        assert (await guess(server, "ada", PASSWORD, address=HOME)).status_code == 200
    assert (await guess(server, "ada", PASSWORD)).status_code == 429, "it frees no guesses for strangers"
    assert await statuses(server, "ada", LIMIT + 1, address=HOME) == [401] * LIMIT + [429]


async def test_live_sessions_and_refreshes_are_not_touched(server: Server, ada: Person):  # P6
    await statuses(server, "ada", 40)
    assert (await ada.get("/api/users/me")).status_code == 200
    scope = {"client": (STRANGE, 1)}
    for _ in range(8):
        forged = await server.nobody().post("/api/auth/refresh", json={"refresh_token": "umr1_x"}, scope_base=scope)
    await problem_of(forged, 429, "too_many_attempts")
    body = {"refresh_token": ada.refresh_token}
    assert (await server.nobody().post("/api/auth/refresh", json=body, scope_base=scope)).status_code == 200


async def test_forged_refresh_tokens_leave_one_row_however_many(server: Server):  # C12
    for _ in range(50):
        await server.nobody().post("/api/auth/refresh", json={"refresh_token": "umr1_x"})
    assert await server.rows("SELECT bucket, failures FROM throttles") == [("refresh", 5)]


# The current password


async def test_a_stolen_token_guesses_no_further_and_keeps_nobody_out(server: Server, ada: Person):  # A09
    owner = await ada.elsewhere()
    verified = Verifications(server.runtime.hasher)
    body = {"password": "a new phrase of mine", "current_password": "wrong"}
    answers = [(await ada.put("/api/users/me", json=body)).status_code for _ in range(20)]
    assert answers == [403] * 5 + [429] * 15
    assert verified.count == 5
    assert len(await server.events("reauthentication.failed")) == 5
    assert len(await server.events("reauthentication.throttled")) == 1
    body["current_password"] = PASSWORD
    assert (await ada.put("/api/users/me", json=body)).status_code == 429
    assert (await owner.put("/api/users/me", json=body)).status_code == 200


# At once


@pytest.mark.parametrize("round_", range(3))
async def test_a_hundred_guesses_at_once_are_verified_ten_times(server: Server, ada: Person, round_: int):  # P18
    verified = Verifications(server.runtime.hasher)
    answers = await asyncio.gather(*(guess(server, "ada", address=f"203.0.113.{n}") for n in range(100)))
    assert sorted(answer.status_code for answer in answers) == [401] * LIMIT + [429] * 90
    assert verified.count == LIMIT


async def test_two_workers_count_together(server: Server, settings: Settings, ada: Person):  # C08, P18
    other = Server(settings)
    async with other.running():
        for _ in range(20):
            counts = [Verifications(each.runtime.hasher) for each in (server, other)]
            both = [guess(each, "ada", address=f"203.0.113.{n}") for n in range(50) for each in (server, other)]
            answers = await asyncio.gather(*both)
            assert sorted(answer.status_code for answer in answers) == [401] * LIMIT + [429] * 90
            assert sum(count.count for count in counts) == LIMIT
            for each in (server, other):
                each.clock.move(WINDOW)


async def test_fifty_right_passwords_at_once_all_sign_in(server: Server, ada: Person):
    answers = await asyncio.gather(*(guess(server, "ada", PASSWORD) for _ in range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert await server.rows("SELECT DISTINCT failures, pending FROM throttles") == [(0, 0)]


async def test_what_a_dead_process_left_pending_is_forgotten(server: Server, ada: Person):
    assert await statuses(server, "ada", 1) == [401]
    await server.execute("UPDATE throttles SET pending = 10")
    server.clock.move(timedelta(seconds=31))
    assert (await guess(server, "ada", PASSWORD)).status_code == 200


@pytest.mark.parametrize("flags", [{"throttle.account": "10/15m", "passwords.hash_queue": "1s"}], ids=["1s"])
async def test_who_waits_for_what_a_dead_process_left_is_told_in_time(server: Server, ada: Person):
    assert await statuses(server, "ada", 1) == [401]
    await server.execute("UPDATE throttles SET pending = 10")
    started = time.perf_counter()
    answers = await asyncio.gather(*(guess(server, "ada", PASSWORD) for _ in range(8)))
    assert [(answer.status_code, (await answer.get_json())["code"]) for answer in answers] == [(503, "overloaded")] * 8
    assert time.perf_counter() - started < 4  # not a second after each other


async def test_a_clock_that_was_ahead_locks_nobody_out(server: Server, ada: Person):  # C09
    server.clock.move(timedelta(hours=1))
    assert await statuses(server, "ada", LIMIT + 1) == [401] * LIMIT + [429]
    server.clock.move(timedelta(hours=-1))
    assert (await guess(server, "ada", PASSWORD)).status_code == 200


async def test_counters_that_are_over_are_deleted_and_others_stay(server: Server, ada: Person):  # C10
    await statuses(server, "ada", LIMIT)
    server.clock.move(WINDOW - timedelta(seconds=30))
    await statuses(server, "bob", 1, address=HOME)
    server.clock.move(timedelta(seconds=31))
    assert await throttle.forget_past(server.runtime) == 3  # the account, its network, and the one it signed in from
    assert len(await server.rows("SELECT * FROM throttles")) == 2


async def test_no_row_tells_which_name_was_typed(server: Server, ada: Person):
    await statuses(server, "my password typed as a name", 1)
    await statuses(server, "ada", 1)
    shown = str(await server.rows("SELECT * FROM throttles"))
    assert "ada" not in shown
    assert "password" not in shown
    assert STRANGE not in shown


@pytest.mark.parametrize("flags", [{"throttle.enabled": False}], ids=["off"])
async def test_counting_can_be_switched_off(server: Server, ada: Person):
    assert await statuses(server, "ada", 120) == [401] * 120
