import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.users.accounts import SEED, assert_whole, refusal, stored, user_of

KEY = "5d3f0b1e-register"
OTHER = {"username": "another", "email": "another@example.com", "password": "secure_password"}


async def register(person: Person, body: dict[str, Any], key: str = KEY) -> Response:
    return await person.post("/api/users", json=body, headers={"Idempotency-Key": key})


async def test_the_same_request_under_a_key_is_answered_the_same(server: Server):
    first = await register(server.nobody(), SEED)
    user = await user_of(first, 201)
    assert "Idempotency-Replayed" not in first.headers
    before = await stored(server)

    again = await register(server.nobody(), SEED)
    assert again.headers.pop("Idempotency-Replayed") == "true"
    assert await user_of(again, 201) == user
    assert first.headers.pop("X-Request-ID") != again.headers.pop("X-Request-ID")
    assert sorted(again.headers.items()) == sorted(first.headers.items())
    assert await stored(server) == before
    assert len(await server.events("user.created")) == 1


async def test_the_answer_stays_what_it_was_though_the_account_has_changed(server: Server, admin):
    user = await user_of(await register(server.nobody(), SEED), 201)
    assert (await admin.put(f"/api/users/{user['id']}", json={"display_name": "New"})).status_code == 200
    assert await user_of(await register(server.nobody(), SEED), 201) == user


async def test_a_key_stands_for_one_body(server: Server):
    assert (await register(server.nobody(), SEED)).status_code == 201
    before = await stored(server)
    for other in (OTHER, {**SEED, "password": "another_password"}, {**SEED, "display_name": None}):
        assert await refusal(await register(server.nobody(), other)) == (422, "idempotency_key_reused")
    assert await stored(server) == before


async def test_a_key_belongs_to_one_caller(server: Server, admin, manager):
    made = [await user_of(await register(server.nobody(), SEED), 201)]
    for number, caller in enumerate((admin, manager)):
        body = {**SEED, "username": f"user{number}", "email": f"user{number}@example.com"}
        made.append(await user_of(await register(caller, body), 201))
    assert len({user["id"] for user in made}) == 3
    assert await refusal(await register(manager, SEED)) == (422, "idempotency_key_reused")


async def test_twenty_requests_under_one_key_make_one_account(server: Server):
    for number in range(4):
        body = {**SEED, "username": f"user{number}", "email": f"user{number}@example.com"}
        barrier = asyncio.Barrier(20)

        async def ask(body: dict[str, Any] = body, barrier: asyncio.Barrier = barrier) -> Response:
            await barrier.wait()
            return await register(server.nobody(), body, key=body["username"])

        answers = await asyncio.gather(*(ask() for _ in range(20)))
        assert [answer.status_code for answer in answers] == [201] * 20, [await a.get_json() for a in answers]
        assert len({await answer.get_data() for answer in answers}) == 1
        assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 19
    assert len(await server.rows("SELECT 1 FROM users")) == 4
    await assert_whole(server)


async def test_a_repeat_finds_the_answer_at_whatever_moment_it_comes(server: Server):
    for number in range(6):
        body = {**SEED, "username": f"user{number}", "email": f"user{number}@example.com"}
        asked = [asyncio.create_task(register(server.nobody(), body))]
        while not asked[0].done() and len(asked) < 40:
            asked.append(asyncio.create_task(register(server.nobody(), body)))
            for _ in range(4):
                await asyncio.sleep(0)  # lets the others run a step, so that the next one comes a little later
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {201}
        await server.execute("DELETE FROM idempotency_keys")
    assert len(await server.rows("SELECT 1 FROM users")) == 6


async def test_of_different_bodies_under_one_key_at_once_one_is_answered(server: Server):
    barrier = asyncio.Barrier(10)

    async def ask(number: int) -> tuple[int, str | None]:
        await barrier.wait()
        body = {**SEED, "username": f"user{number}", "email": f"user{number}@example.com"}
        response = await register(server.nobody(), body)
        return response.status_code, (await response.get_json()).get("code")

    answers = Counter(await asyncio.gather(*(ask(number) for number in range(10))))
    assert answers == {(201, None): 1, (422, "idempotency_key_reused"): 9}
    await assert_whole(server)


async def test_a_key_is_forgotten_after_a_day(server: Server):
    first = await user_of(await register(server.nobody(), SEED), 201)
    server.clock.move(timedelta(hours=24, seconds=-5))
    assert (await user_of(await register(server.nobody(), SEED), 201))["id"] == first["id"]
    server.clock.move(timedelta(seconds=6))
    assert await refusal(await register(server.nobody(), SEED)) == (409, "username_taken")
    second = await register(server.nobody(), OTHER)
    assert (await user_of(second, 201))["id"] != first["id"]
    assert "Idempotency-Replayed" not in second.headers


async def test_a_refusal_is_not_kept(server: Server, ada):
    body = {"username": "ada", "email": "new@example.com", "password": PASSWORD}
    assert await refusal(await register(server.nobody(), {**body, "password": "x"})) == (422, "validation_failed")
    assert await refusal(await register(server.nobody(), body)) == (409, "username_taken")
    assert await server.rows("SELECT * FROM idempotency_keys") == []
    assert (await ada.put("/api/users/me", json={"username": "lovelace"})).status_code == 200
    assert (await register(server.nobody(), body)).status_code == 201


async def test_what_is_kept_for_a_key_tells_no_password(server: Server):
    await register(server.nobody(), SEED)
    (row,) = await server.rows("SELECT * FROM idempotency_keys")
    assert SEED["password"] not in repr(tuple(row))
    assert "um1$" not in repr(tuple(row))


async def test_a_key_has_1_to_255_printable_characters(server: Server):
    for key in ("k" * 256, "k" * 10_000, "", "a\tb"):
        assert await refusal(await register(server.nobody(), SEED, key=key)) == (400, "invalid_header")
    assert (await register(server.nobody(), SEED, key="k" * 255)).status_code == 201
    assert (await register(server.nobody(), OTHER, key="k")).status_code == 201
