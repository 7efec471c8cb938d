"""Budgets admit exactly what they say, to whom they say it, and their headers can be read by a program."""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import settings_for
from tests.http.forwarding import FORWARDING
from tests.people import Person, Server
from tests.problems import problem_of
from tests.servers import Valkey

GENEROUS_SECONDS = 10.0
WRONG = {"username": "nobody-has-this-name", "password": "wrong"}
_ITEM = re.compile(r'"([a-z]+)"((?:;[a-z]+=[0-9]{1,15})+)')  # RFC 9651: a string with integer parameters


@pytest.fixture
def flags() -> dict[str, Any]:
    """Budgets small enough to spend, over an hour so that nothing comes back meanwhile."""
    return {"limits.enabled": True, "limits.login": "3/h", "limits.read": "5/h", "limits.refresh": "2/h"}


class Elsewhere(Person):
    """Somebody who calls from an address of their own."""

    address = ""

    async def call(self, method: str, path: str, **options: Any) -> Any:
        return await super().call(method, path, scope_base={"client": (self.address, 4711)}, **options)


def at(server: Server, address: str, person: Person | None = None) -> Elsewhere:
    caller = Elsewhere(server)
    caller.address = address
    caller.access_token = person.access_token if person is not None else None
    return caller


async def counted(calls: Iterable[Coroutine[Any, Any, Any]]) -> Counter[int]:
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


def item(value: str) -> tuple[str, dict[str, int]]:
    """The one item of a list of RFC 9651."""
    found = _ITEM.fullmatch(value)
    assert found is not None, value
    pairs = (part.split("=") for part in found[2][1:].split(";"))
    return found[1], {name: int(number) for name, number in pairs}


async def test_admission_is_exact_under_a_hundred_at_once(server: Server, ada: Person, bob: Person):  # C01
    guesser = at(server, "198.51.100.1")
    assert await counted(guesser.post("/api/auth/login", json=WRONG) for _ in range(100)) == {401: 3, 429: 97}
    assert await counted(ada.get("/api/users/me") for _ in range(100)) == {200: 5, 429: 95}
    assert len(await server.events("login.failed")) == 3
    again = await server.nobody().post("/api/auth/login", json=WRONG)  # another address, with one left of three
    assert again.status_code == 401


async def test_a_budget_belongs_to_the_subject_wherever_it_calls_from(server: Server, ada: Person, bob: Person):
    places = [at(server, f"198.51.100.{number}", ada) for number in range(10)]
    assert await counted(place.get("/api/users/me") for place in places) == {200: 5, 429: 5}
    for address in ("198.51.100.1", "198.51.100.2"):
        assert (await at(server, address, bob).get("/api/users/me")).status_code == 200
    assert (await ada.get("/api/auth/session")).status_code == 429  # all routes that read share one
    assert (await ada.put("/api/users/me", json={"display_name": "x"})).status_code == 200


async def test_without_a_subject_a_budget_belongs_to_the_network(server: Server):  # D05
    for _ in range(3):
        assert (await at(server, "198.51.100.1").post("/api/auth/login", json=WRONG)).status_code == 401
    for spelling in ("198.51.100.1", "::ffff:198.51.100.1", "::FFFF:C633:6401"):
        assert (await at(server, spelling).post("/api/auth/login", json=WRONG)).status_code == 429
    for number in range(200):
        answer = await at(server, f"2001:db8:0:1::{number:x}").post("/api/auth/login", json=WRONG)
        assert answer.status_code == (401 if number < 3 else 429), number
    for spelling in ("2001:db8:0:1::%eth0", "2001:DB8:0:1:0:0::ffff", "2001:db8::1:f:f:f:f%9"):
        assert (await at(server, spelling).post("/api/auth/login", json=WRONG)).status_code == 429
    assert (await at(server, "2001:db8:0:2::1").post("/api/auth/login", json=WRONG)).status_code == 401
    assert (await at(server, "198.51.100.2").post("/api/auth/login", json=WRONG)).status_code == 401


@pytest.mark.parametrize("flags", [{"limits.enabled": True, "limits.unknown": "4/h"}], ids=["four"])
async def test_what_does_not_exist_costs_too(server: Server, ada: Person):
    wanderer = at(server, "198.51.100.1")
    statuses = [(await wanderer.get(f"/nowhere/{number}")).status_code for number in range(3)]
    statuses += [(await wanderer.call("POST", "/api/users/me")).status_code for _ in range(2)]
    assert statuses == [404, 404, 404, 405, 429]
    answer = await wanderer.get("/nowhere")
    await problem_of(answer, 429, "rate_limited")
    assert item(answer.headers["RateLimit-Policy"]) == ("unknown", {"q": 4, "w": 3600})
    assert (await at(server, "198.51.100.1", ada).get("/api/users/me")).status_code == 200
    assert (await at(server, "198.51.100.2").get("/nowhere")).status_code == 404


async def test_what_a_client_says_of_its_address_changes_nothing(server: Server):  # D01
    for number, header in enumerate([*FORWARDING, *FORWARDING]):
        guesser = at(server, "198.51.100.1")
        answer = await guesser.post("/api/auth/login", json=WRONG, headers={header: f"203.0.113.{number}"})
        assert answer.status_code == (401 if number < 3 else 429), header
    assert {event.address for event in await server.events("login.failed")} == {"198.51.100.1"}


async def test_a_token_that_is_not_good_chooses_no_subject(server: Server, ada: Person, bob: Person):
    claims = jwt.decode(bob.access_token or "", options={"verify_signature": False})
    header = jwt.get_unverified_header(bob.access_token or "")
    forged = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=header)
    cut = (bob.access_token or "")[:-2]
    forger = at(server, "198.51.100.1")
    for token in (forged, cut, forged, cut, forged):
        forger.access_token = token
        await problem_of(await forger.get("/api/users/me"), 401, "invalid_token")
    assert (await forger.get("/api/users/me")).status_code == 429  # its own address paid
    assert (await bob.get("/api/users/me")).headers["RateLimit"].startswith('"read";r=4;')


async def test_signing_in_is_counted_for_the_address_whatever_token_comes_along(server: Server, ada: Person):
    assert await counted(
        at(server, "198.51.100.1", person).post("/api/auth/login", json=WRONG) for person in (ada, None, ada, None)
    ) == {401: 3, 429: 1}


async def test_every_answer_of_a_limited_route_tells_what_is_left(server: Server, ada: Person):  # C11
    for left in (4, 3, 2, 1, 0):
        answer = await ada.get("/api/users/me?nope=1" if left == 2 else "/api/users/me")
        assert answer.status_code == (422 if left == 2 else 200)
        assert item(answer.headers["RateLimit-Policy"]) == ("read", {"q": 5, "w": 3600})
        name, parameters = item(answer.headers["RateLimit"])
        assert (name, parameters["r"]) == ("read", left)
        assert 0 < parameters["t"] <= 3600
        assert "Retry-After" not in answer.headers
    for _ in range(3):
        answer = await ada.get("/api/users/me")
        await problem_of(answer, 429, "rate_limited")
        name, parameters = item(answer.headers["RateLimit"])
        assert (name, parameters["r"]) == ("read", 0)
        assert 1 <= int(answer.headers["Retry-After"]) <= 720  # a fifth of the hour
        assert int(answer.headers["Retry-After"]) >= parameters["t"]
        assert item(answer.headers["RateLimit-Policy"]) == ("read", {"q": 5, "w": 3600})


async def test_a_refusal_spends_too(server: Server):  # C12
    guesser = at(server, "198.51.100.1")
    for body, status in [({}, 422), ({"refresh_token": "x"}, 401), ({"refresh_token": "x"}, 429)]:
        assert (await guesser.post("/api/auth/refresh", json=body)).status_code == status


async def test_preflights_probes_and_public_keys_are_free(server: Server, ada: Person):
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    for _ in range(20):
        assert (await ada.call("OPTIONS", "/api/users/me", headers=preflight)).status_code == 200
        for path in ("/livez", "/readyz", "/healthz", "/health/live", "/health/ready", "/.well-known/jwks.json"):
            answer = await ada.get(path)
            assert answer.status_code == 200
            assert not [name for name, _ in answer.headers.items() if name.lower().startswith("ratelimit")]
    assert (await ada.get("/api/users/me")).headers["RateLimit"].startswith('"read";r=4;')
    assert (await ada.call("OPTIONS", "/api/users/me")).headers["RateLimit"].startswith('"unknown";r=299;')


async def test_a_budget_comes_back(database_url: str):
    server = Server(settings_for(database_url, **{"limits.enabled": True, "limits.login": "2/s"}))
    async with server.running():
        deadline = time.monotonic() + GENEROUS_SECONDS
        seen: list[int] = []
        while seen[-2:] != [429, 401]:
            seen.append((await server.nobody().post("/api/auth/login", json=WRONG)).status_code)
            assert time.monotonic() < deadline, seen
        assert seen[:2] == [401, 401]


async def test_switched_off_nothing_is_counted(database_url: str):
    server = Server(settings_for(database_url, **{"limits.enabled": False, "limits.login": "1/h"}))
    async with server.running():
        for _ in range(3):
            answer = await server.nobody().post("/api/auth/login", json=WRONG)
            assert answer.status_code == 401
            assert "RateLimit" not in answer.headers


# Several workers


async def test_workers_share_the_budget_of_a_caller(database_url: str, valkey: Valkey):  # C08, P18
    settings = settings_for(database_url, **{"limits.enabled": True, "limits.read": "10/h", "valkey.url": valkey.url})
    server, other = Server(settings), Server(settings)
    async with server.running(), other.running():
        for each in range(5):
            ada = await server.person(f"ada{each}")
            elsewhere = Person(other)
            elsewhere.access_token = ada.access_token
            calls = [person.get("/api/users/me") for _ in range(50) for person in (ada, elsewhere)]
            assert await counted(calls) == {200: 10, 429: 90}


@pytest.mark.parametrize("fault", ["killed", "hung", "read-only"])
async def test_without_valkey_requests_go_on(database_url: str, mortal_valkey: Valkey, fault: str):  # P24
    limits = {"limits.enabled": True, "limits.read": "30/h", "valkey.url": mortal_valkey.url}
    server = Server(settings_for(database_url, **limits))
    async with server.running():
        ada = await server.person("ada")
        assert (await ada.get("/api/users/me")).status_code == 200
        if fault == "killed":
            mortal_valkey.kill()
        elif fault == "hung":
            mortal_valkey.signal(signal.SIGSTOP)
        else:
            mortal_valkey.command("REPLICAOF", "127.0.0.1", "1")
        for _ in range(3):
            started = time.monotonic()
            assert await counted(ada.get("/api/users/me") for _ in range(10)) == {200: 10}
            assert time.monotonic() - started < 2.0
        assert (await server.nobody().get("/readyz")).status_code == 200
        assert (await ada.get("/api/users/me")).status_code == 429  # counted, if alone
