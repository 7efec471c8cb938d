"""Access tokens: which are accepted, and how their keys rotate."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from quart import Response
from werkzeug.datastructures import Headers

from tests.auth.conftest import SECOND, StartServer, at
from tests.auth.forgeries import Forger, Forgery
from tests.people import Person, Server
from usermgmt.security.keys import ALGORITHMS, KeyRing
from usermgmt.security.principal import OPERATOR
from usermgmt.security.tokens import CLOCK_SKEW
from usermgmt.signing_keys import service as signing_keys

SESSION = "/api/auth/session"
JWKS = "/.well-known/jwks.json"
LIFETIME = timedelta(minutes=10)
REFUSED_TOKENS = 500
FAMILIES = [
    Forger.unsigned,
    Forger.symmetric,
    Forger.renamed_algorithms,
    Forger.key_names,
    Forger.extended_headers,
    Forger.types,
    Forger.other_headers,
    Forger.audiences,
    Forger.missing_claims,
    Forger.subjects,
    Forger.other_payloads,
    Forger.other_tokens,
    Forger.other_spellings,
]


# Forged, changed, borrowed


async def test_no_changed_token_is_accepted_and_the_unchanged_one_is(stopped: Server, ada: Person, bob: Person):  # P12
    forger = _forger(stopped, ada, bob)
    forgeries = [forgery for family in FAMILIES for forgery in family(forger)]
    forgeries += forger.times(LIFETIME, CLOCK_SKEW)
    assert len({token for _, token in forgeries}) >= REFUSED_TOKENS
    assert ada.access_token not in {token for _, token in forgeries}
    assert await _accepted(stopped, forgeries) == []
    assert (await ada.get(SESSION)).status_code == 200


async def test_a_key_that_a_token_brings_along_is_neither_used_nor_fetched(stopped: Server, ada: Person, bob: Person):
    visits = []  # E03
    listener = await asyncio.start_server(lambda *_: visits.append(1), "127.0.0.1", 0)
    async with listener:
        address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        forgeries = list(_forger(stopped, ada, bob).led_elsewhere(address))
        assert len(forgeries) > 40
        assert await _accepted(stopped, forgeries) == []
        await asyncio.sleep(0)
    assert visits == []
    assert (await ada.get(SESSION)).status_code == 200


async def test_the_real_key_makes_a_token_that_is_accepted(stopped: Server, ada: Person, bob: Person):
    forger = _forger(stopped, ada, bob)
    for token in (forger.signed(), forger.with_claims(), forger.with_claims(later="a claim of the next release")):
        ada.access_token = token
        assert (await ada.get(SESSION)).status_code == 200


@pytest.mark.parametrize("flags", [{"tokens.algorithm": "RS256"}])
async def test_an_rsa_key_in_any_form_is_no_hmac_secret(stopped: Server, ada: Person, bob: Person):  # E02
    forger = _forger(stopped, ada, bob)
    forgeries = [*forger.symmetric(), *forger.renamed_algorithms()]
    assert await _accepted(stopped, forgeries) == []
    assert (await ada.get(SESSION)).status_code == 200


async def test_a_key_of_another_installation_is_not_ours(server: Server, ada: Person, another_server: StartServer):
    foreign = await another_server(**{"secret.keys": "tests-only-of-another-house-5c1e8d24b60a1f7c3d"})
    claims = server.runtime.access_tokens.verify(ada.access_token, now=server.clock.now())
    ada.access_token = foreign.runtime.access_tokens.issue(claims.user_id, claims.session_id, now=server.clock.now())
    assert (await ada.get(SESSION)).status_code == 401
    assert (await at(foreign, ada).get(SESSION)).status_code == 200


@pytest.mark.parametrize("flags", [{"tokens.issuer": "https://id.example.com", "tokens.audience": "files"}])
async def test_issuer_and_audience_are_those_of_the_settings(
    server: Server, ada: Person, another_server: StartServer
):  # E07
    other_issuer = await another_server(**{"tokens.issuer": "https://id.example.com/"})
    other_audience = await another_server(**{"tokens.audience": "mail"})
    assert [(await at(where, ada).get(SESSION)).status_code for where in (server, other_issuer, other_audience)] == [
        200,
        401,
        401,
    ]


# Time


async def test_a_token_is_good_until_it_expires_and_not_a_moment_longer(stopped: Server, ada: Person):  # E09
    issued = stopped.runtime.access_tokens.verify(ada.access_token, now=stopped.clock.now())
    assert issued.expires_at - issued.issued_at == LIFETIME
    stopped.clock.move(issued.expires_at - stopped.clock.now() - timedelta(milliseconds=1))
    assert (await ada.get(SESSION)).status_code == 200
    stopped.clock.move(timedelta(milliseconds=1))
    refused = await ada.get(SESSION)
    assert (refused.status_code, (await refused.get_json())["detail"]) == (401, "The access token has expired.")


async def test_a_token_of_a_worker_whose_clock_is_ahead_is_good_up_to_the_skew(  # E09
    stopped: Server, ada: Person, bob: Person
):
    forger = _forger(stopped, ada, bob)
    for ahead, status in ((0, 200), (29, 200), (30, 200), (31, 401), (60, 401)):
        ada.access_token = forger.with_claims(iat=forger.now + ahead, exp=forger.now + ahead + 600)
        assert (ahead, (await ada.get(SESSION)).status_code) == (ahead, status)


async def test_a_lifetime_is_at_most_ours(stopped: Server, ada: Person, bob: Person):
    forger = _forger(stopped, ada, bob)
    for seconds, status in ((1, 200), (599, 200), (600, 200), (601, 401)):
        ada.access_token = forger.with_claims(iat=forger.now, exp=forger.now + seconds)
        assert (seconds, (await ada.get(SESSION)).status_code) == (seconds, status)


# Where a token is looked for


async def test_which_authorization_headers_are_read(server: Server, ada: Person):  # E11
    token = ada.access_token
    cases: list[tuple[list[str], int]] = [
        ([f"Bearer {token}"], 200),
        ([f"bearer {token}"], 200),
        ([f"BEARER {token}"], 200),
        ([], 401),
        ([""], 401),
        (["Bearer"], 401),
        (["Bearer "], 401),
        (["bearer x"], 401),
        ([f"Bearer  {token}"], 401),
        ([f"Bearer\t{token}"], 401),
        ([f" Bearer {token}"], 401),
        ([f"Bearer {token} "], 401),
        ([f"Bearer {token}, Bearer {token}"], 401),
        ([f"Bearer {token},"], 401),
        ([f'Bearer "{token}"'], 401),
        ([f"Bearer token={token}"], 401),
        ([f"Token {token}"], 401),
        ([f"JWT {token}"], 401),
        ([token], 401),
        (["Basic YWRhOnB3"], 401),
        ([f"Basic {token}"], 401),
        (['Digest username="ada"'], 401),
        (["Negotiate YII="], 401),
        ([f"Bearer {token}", f"Bearer {token}"], 401),
        ([f"Bearer {token}", "Basic YWRhOnB3"], 401),
        (["", f"Bearer {token}"], 401),
        (["Bearer " + "a" * 60_000], 401),
        (["Bearer " + "." * 60_000], 401),
        (["Bearer " + "=" * 60_000], 401),
        ([f"Bearer {token}\x80\xff"], 401),
        (["Bearer " + "".join(map(chr, range(0x80, 0x100)))], 401),
        ([f"Bearer\xa0{token}"], 401),
    ]
    for values, status in cases:
        response = await _get(server, [("Authorization", value) for value in values])
        assert (values, response.status_code) == (values, status)
        await _check_refusal(response)


async def test_a_token_anywhere_else_is_not_looked_for(server: Server, ada: Person):  # E12
    token = ada.access_token
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"{SESSION}?access_token={token}", {}),
        (f"{SESSION}?token={token}", {}),
        (SESSION, {"headers": {"Cookie": f"access_token={token}; session={token}; Authorization=Bearer {token}"}}),
        (SESSION, {"headers": {"X-Access-Token": token}}),
        (SESSION, {"headers": {"X-Authorization": f"Bearer {token}", "Proxy-Authorization": f"Bearer {token}"}}),
        (SESSION, {"headers": {"X-Auth-Token": token, "X-API-Key": token, "X-Forwarded-User": "ada"}}),
        (SESSION, {"form": {"access_token": token}}),
        (SESSION, {"json": {"access_token": token}}),
    ]
    for path, options in ways:
        response = await server.nobody().get(path, **options)
        assert (path, options, response.status_code) == (path, options, 401)
        assert (await response.get_json())["code"] == "missing_credentials"


async def test_an_access_token_is_nothing_that_refreshes(server: Server, ada: Person):  # E06
    response = await server.nobody().post("/api/auth/refresh", json={"refresh_token": ada.access_token})
    assert (response.status_code, (await response.get_json())["code"]) == (401, "invalid_refresh_token")


async def test_a_refusal_before_the_database_costs_no_connection(
    server: Server, ada: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
):
    forgeries = list(_forger(server, ada, bob).other_headers())
    await server.runtime.database.close()
    monkeypatch.setattr(server.runtime.database, "read", None)  # whoever reads now, fails
    assert await _accepted(server, forgeries) == []


# Algorithms, and the published keys


@pytest.mark.parametrize("flags", [{"tokens.algorithm": name} for name in ALGORITHMS], ids=ALGORITHMS)
async def test_each_algorithm_signs_verifies_and_is_published(server: Server, ada: Person, flags):
    algorithm = flags["tokens.algorithm"]
    assert (await ada.get(SESSION)).status_code == 200
    header = jwt.get_unverified_header(ada.access_token)
    assert header == {"typ": "at+jwt", "alg": algorithm, "kid": server.runtime.ring.keys[0].kid}
    response = await server.nobody().get(JWKS)
    keys = (await response.get_json())["keys"]
    assert response.headers["Cache-Control"] == "public, max-age=30"
    if algorithm == "HS256":
        assert keys == []
        return
    (key,) = keys
    assert (key["kid"], key["alg"], key["use"]) == (header["kid"], algorithm, "sig")
    assert not {"d", "p", "q", "dp", "dq", "qi", "k", "key_ops"} & set(key)
    claims = _verified_by_a_service(ada.access_token, keys, algorithm)
    assert set(claims) == {"iss", "aud", "sub", "sid", "jti", "iat", "exp"}
    assert claims["sub"] == ada.id


async def test_changed_tokens_of_each_algorithm_are_refused(server: Server, ada: Person, another_server: StartServer):
    for algorithm in ("EdDSA", "HS256"):
        other = await another_server(**{"tokens.algorithm": algorithm})
        person = Person(other, username="ada", password=ada.password)
        await person.log_in()
        genuine = person.access_token or ""
        first, second, third = genuine.split(".")
        changed = [f"{first}.{second}.{third[:place]}{character}{third[place + 1 :]}"
                   for place in range(len(third)) for character in "AQg"]  # fmt: skip
        changed += [genuine.replace(first, ada.access_token.split(".")[0]), f"{first}.{second}."]
        forgeries = [("changed", token) for token in changed if token != genuine]
        assert await _accepted(other, forgeries) == []
        assert (await person.get(SESSION)).status_code == 200


async def test_the_unknown_is_not_published(server: Server):
    for method in ("POST", "PUT", "DELETE"):
        assert (await server.nobody().call(method, JWKS)).status_code == 405
    assert (await server.nobody().get("/.well-known/openid-configuration")).status_code == 404


# Rotation


async def test_a_rotation_signs_nobody_out(stopped: Server, ada: Person, another_server: StartServer):  # P13
    other = await another_server()
    other.clock.now = stopped.clock.now
    old_kid = _kid(ada)
    rotation = await signing_keys.rotate_key(stopped.runtime, caller=OPERATOR)
    await _reload(stopped, other)
    assert await _published(other) == {old_kid, rotation.kid}  # before it signs
    await ada.log_in()
    assert _kid(ada) == old_kid
    stopped.clock.move(signing_keys.PUBLICATION_TIME - timedelta(milliseconds=1))
    await ada.log_in()
    assert _kid(ada) == old_kid
    stopped.clock.move(timedelta(milliseconds=1))
    last_of_old = ada.access_token
    await ada.log_in()
    assert _kid(ada) == rotation.kid
    assert (await at(other, ada).get(SESSION)).status_code == 200
    ada.access_token = last_of_old
    stopped.clock.move(LIFETIME - SECOND)
    assert [(await at(where, ada).get(SESSION)).status_code for where in (stopped, other)] == [200, 200]
    await _reload(stopped, other)
    assert await _published(stopped) == {old_kid, rotation.kid}
    stopped.clock.move(signing_keys.CLOCK_MARGIN + SECOND)
    assert await _published(stopped) == {rotation.kid}
    assert await _published(other) == {rotation.kid}


async def test_an_instance_that_starts_during_a_rotation_makes_no_key_of_its_own(
    server: Server, ada: Person, another_server: StartServer
):
    rotation = await signing_keys.rotate_key(server.runtime, caller=OPERATOR)
    other = await another_server()
    assert {key.kid for key in other.runtime.ring.keys} == {_kid(ada), rotation.kid}
    assert (await at(other, ada).get(SESSION)).status_code == 200


async def test_a_rotation_at_once_signs_at_once_and_old_tokens_stay_good(server: Server, ada: Person):
    old_kid = _kid(ada)
    rotation = await signing_keys.rotate_key(server.runtime, caller=OPERATOR, at_once=True)
    await _reload(server)
    assert (await ada.get(SESSION)).status_code == 200
    await ada.log_in()
    assert _kid(ada) == rotation.kid != old_kid


async def test_rotating_twice_leaves_one_key_that_signs(stopped: Server, ada: Person):
    for _ in range(2):
        rotation = await signing_keys.rotate_key(stopped.runtime, caller=OPERATOR)
        stopped.clock.move(SECOND)
    await _reload(stopped)
    assert len(await _published(stopped)) == 3
    stopped.clock.move(timedelta(minutes=30))
    await ada.log_in()
    assert _kid(ada) == rotation.kid
    assert await _published(stopped) == {rotation.kid}


async def test_a_retired_key_is_trusted_no_more_after_the_reload(
    stopped: Server, ada: Person, another_server: StartServer
):
    other = await another_server()
    other.clock.now = stopped.clock.now
    old_kid = _kid(ada)
    rotation = await signing_keys.rotate_key(stopped.runtime, caller=OPERATOR, at_once=True)
    await signing_keys.retire_key(stopped.runtime, old_kid, caller=OPERATOR)
    await _reload(stopped, other)
    for where in (stopped, other):
        assert (await at(where, ada).get(SESSION)).status_code == 401
        assert await _published(where) == {rotation.kid}
    response = await stopped.nobody().post("/api/auth/refresh", json={"refresh_token": ada.refresh_token})
    ada.keep(await response.get_json())
    assert (await at(other, ada).get(SESSION)).status_code == 200
    (event,) = await stopped.events("signing_key.retired")
    assert (event.target_type, event.target_id, event.actor_name) == ("signing_key", old_kid, "operator")


async def test_the_only_key_that_signs_cannot_be_retired(stopped: Server, ada: Person):
    with pytest.raises(signing_keys.LastSigningKey):
        await signing_keys.retire_key(stopped.runtime, _kid(ada), caller=OPERATOR)
    await signing_keys.rotate_key(stopped.runtime, caller=OPERATOR)  # which signs in a minute
    with pytest.raises(signing_keys.LastSigningKey):
        await signing_keys.retire_key(stopped.runtime, _kid(ada), caller=OPERATOR)
    with pytest.raises(signing_keys.NoSuchKey):
        await signing_keys.retire_key(stopped.runtime, "unknown", caller=OPERATOR)
    await _reload(stopped)
    assert (await ada.get(SESSION)).status_code == 200


async def test_a_change_of_algorithm_signs_nobody_out(server: Server, ada: Person, another_server: StartServer):
    other = await another_server(**{"tokens.algorithm": "EdDSA"})
    there = at(other, ada)
    assert (await there.get(SESSION)).status_code == 200
    await there.log_in()
    assert jwt.get_unverified_header(there.access_token)["alg"] == "EdDSA"
    await _reload(server)
    assert (await at(server, there).get(SESSION)).status_code == 200
    assert await _published(other) == {_kid(ada), _kid(there)}
    with pytest.raises(signing_keys.LastSigningKey):  # a key of another algorithm does not sign here
        await signing_keys.retire_key(other.runtime, _kid(there), caller=OPERATOR)
    await signing_keys.retire_key(other.runtime, _kid(ada), caller=OPERATOR)
    await _reload(other)
    assert (await there.log_in()).status_code == 200


async def test_an_instance_learns_of_a_rotation_elsewhere_by_itself(
    server: Server, ada: Person, another_server: StartServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(signing_keys, "RELOAD_INTERVAL", timedelta(milliseconds=1))
    other = await another_server()
    rotation = await signing_keys.rotate_key(server.runtime, caller=OPERATOR)
    async with asyncio.timeout(10):
        while rotation.kid not in await _published(other):  # noqa: ASYNC110 - nothing tells when it has reloaded
            await asyncio.sleep(0)


def test_a_ring_without_keys_signs_and_verifies_nothing():
    ring = KeyRing(())
    assert ring.signing_key("ES256", datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert ring.verifying_key("", datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert ring.jwks(datetime(2026, 1, 1, tzinfo=UTC)) == []


class _ServicesClient(jwt.PyJWKClient):
    """PyJWT's own client, as another service has it, but for the fetching."""

    def __init__(self, keys: list[dict[str, Any]]) -> None:
        super().__init__("https://id.example.com/.well-known/jwks.json")
        self._keys = keys

    def fetch_data(self) -> Any:
        return {"keys": self._keys}


def _verified_by_a_service(token: str, keys: list[dict[str, Any]], algorithm: str) -> dict[str, Any]:
    key = _ServicesClient(keys).get_signing_key_from_jwt(token)
    required = {"require": ["iss", "aud", "sub", "sid", "jti", "iat", "exp"]}
    return jwt.decode(token, key, algorithms=[algorithm], audience="usermgmt", issuer="usermgmt", options=required)


def _forger(server: Server, person: Person, other: Person) -> Forger:
    key = server.runtime.ring.keys[-1]
    token = person.access_token or ""
    return Forger(token, key, now=server.clock.now(), other_user=other.id, refresh_token=person.refresh_token)


async def _accepted(server: Server, forgeries: list[Forgery]) -> list[str]:
    """What is wrong with those that were not refused as they should be."""
    wrong = []
    for what, token in forgeries:
        response = await _get(server, [("Authorization", f"Bearer {token}")])
        if response.status_code != 401:
            wrong.append(f"{what}: {response.status_code}")
        else:
            await _check_refusal(response)
    return wrong


async def _check_refusal(response: Response) -> None:
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(await response.get_data())["status"] == 401


async def _get(server: Server, headers: list[tuple[str, str]]) -> Response:
    return await server.app.test_client().get(SESSION, headers=Headers(headers))


async def _published(server: Server) -> set[str]:
    return {key["kid"] for key in (await (await server.nobody().get(JWKS)).get_json())["keys"]}


async def _reload(*servers: Server) -> None:
    """What each instance does by itself every few seconds."""
    for server in servers:
        server.runtime.ring = await signing_keys.load_ring(server.runtime)


def _kid(person: Person) -> str:
    return str(jwt.get_unverified_header(person.access_token or "")["kid"])
