"""Clocks that jump, and clocks of workers that do not agree (M13)."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.people import Person, Server
from usermgmt.settings import Settings

DAY = timedelta(days=1)
APART = timedelta(seconds=29)
WRONG = "wrong battery staple"


@pytest.fixture
def flags() -> dict[str, str | bool]:
    return {"throttle.account": "3/15m", "limits.enabled": True, "limits.refresh": "10/m"}


@pytest.fixture
async def other(server: Server, settings: Settings) -> AsyncIterator[Server]:
    """Another worker on the same database."""
    other = Server(settings)
    async with other.running():
        yield other


def at(server: Server, person: Person) -> Person:
    """The same person, who calls another worker."""
    there = Person(server, username=person.username, password=person.password, id=person.id)
    there.access_token, there.refresh_token = person.access_token, person.refresh_token
    return there


async def refreshed(person: Person) -> int:
    """Refresh, and keep the tokens; the status."""
    response = await Person(person._server).post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
    if response.status_code == 200:
        person.keep(await response.get_json())
    return response.status_code


@pytest.mark.parametrize("apart", [APART, -APART])
async def test_workers_that_are_half_a_minute_apart_take_each_others_tokens(
    server: Server, other: Server, ada: Person, apart: timedelta
):
    other.clock.move(apart)
    there = at(other, ada)
    assert (await there.get("/api/users/me")).status_code == 200
    assert await refreshed(there) == 200
    back = at(server, there)
    assert (await back.get("/api/users/me")).status_code == 200
    assert await refreshed(back) == 200
    assert (await at(other, back).get("/api/users/me")).status_code == 200


async def test_a_token_from_too_far_ahead_is_refused_until_then(server: Server, other: Server, ada: Person):
    other.clock.move(timedelta(minutes=2))
    there = at(other, ada)
    await there.log_in()
    back = at(server, there)
    assert (await back.get("/api/users/me")).status_code == 401
    assert await refreshed(back) == 200  # the session is nobody's clock's
    assert (await back.get("/api/users/me")).status_code == 200


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_jump_of_a_day_and_back_signs_nobody_out(server: Server, ada: Person, jump: timedelta):
    for by in (jump, -jump):
        server.clock.move(by)
        assert (await ada.get("/api/users/me")).status_code == 401  # its access token is of another day
        assert await refreshed(ada) == 200
        assert (await ada.get("/api/users/me")).status_code == 200
    assert await server.rows("SELECT 1 FROM sessions WHERE revoked_at IS NOT NULL") == []


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_guesses_are_counted_before_and_after_a_jump(server: Server, ada: Person, jump: timedelta):
    async def guess(password: str) -> tuple[int, int]:
        body = {"username": "ada", "password": password}
        response = await server.nobody().post("/api/auth/login", json=body)
        return response.status_code, int(response.headers.get("Retry-After", "0"))

    for by in (timedelta(), jump, -jump):
        server.clock.move(by)
        outcomes = [await guess(WRONG) for _ in range(4)]
        assert outcomes[-1][0] == 429
        assert all(after <= 15 * 60 for _, after in outcomes), outcomes
    server.clock.move(timedelta(minutes=16))
    assert (await guess(ada.password))[0] == 200


async def test_budgets_do_not_ask_the_clock(server: Server, ada: Person):
    statuses = [await refreshed(ada) for _ in range(11)]
    assert statuses[-1] == 429
    for by in (DAY, -DAY, -DAY):
        server.clock.move(by)
        assert await refreshed(ada) == 429
