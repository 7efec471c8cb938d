"""POST /api/auth/refresh."""

import asyncio
import re
import string
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from quart import Response

from tests.auth.conftest import GRACE, SECOND, StartServer, at
from tests.conftest import SECRET
from tests.people import PASSWORD, Person, Server
from usermgmt.schema import metadata
from usermgmt.security import encoding
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.security.tokens import REFRESH_PREFIX, RefreshClaims, RefreshTokens
from usermgmt.sessions.models import Session

REFRESH = "/api/auth/refresh"
NEWER_SECRET = "tests-only-2d94b86fe0a15c73d8e6f0912ab74c5e"
DAY = timedelta(days=1)
INVALID, EXPIRED, REVOKED = "invalid_refresh_token", "session_expired", "session_revoked"


# Rotation


async def test_a_refresh_gives_a_new_pair_of_the_same_session(stopped: Server, ada: Person):
    before = await _session_of(ada)
    first = ada.refresh_token, ada.access_token
    stopped.clock.move(timedelta(hours=1))
    response = await _refresh(stopped, ada.refresh_token)
    body = await response.get_json()
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert body | {"access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "refresh_token": "",
        "token_type": "Bearer",
        "expires_in": 600,
        "refresh_expires_in": 14 * 24 * 3600,
    }
    assert not {body["refresh_token"], body["access_token"]} & {*first}
    ada.keep(body)
    after = await _session_of(ada)
    assert (after["id"], after["authenticated_at"]) == (before["id"], before["authenticated_at"])
    assert after["refreshed_at"] > before["refreshed_at"]
    assert after["idle_expires_at"] > before["idle_expires_at"]
    assert after["expires_at"] == before["expires_at"]


async def test_a_refresh_is_on_record_once(server: Server, ada: Person):
    assert (await _refresh(server, ada.refresh_token)).status_code == 200
    assert (await _refresh(server, ada.refresh_token)).status_code == 200  # the same exchange again
    (event,) = await server.events("session.refreshed")
    assert (event.outcome, event.target_id, event.actor_id, event.details) == ("success", ada.id, None, {})
    assert event.session_id == (await _row(server)).id


async def test_an_access_token_lives_on_after_a_refresh(server: Server, ada: Person):
    assert (await _refresh(server, ada.refresh_token)).status_code == 200
    assert (await ada.get("/api/auth/session")).status_code == 200


async def test_a_credential_in_the_header_is_not_looked_at(server: Server, ada: Person):
    headers = {"Authorization": "Bearer broken"}
    assert (
        await server.nobody().post(REFRESH, json={"refresh_token": ada.refresh_token}, headers=headers)
    ).status_code == 200


async def test_a_lost_answer_can_be_asked_for_again_within_the_grace(stopped: Server, ada: Person):
    first = await (await _refresh(stopped, ada.refresh_token)).get_json()
    for wait in (timedelta(0), GRACE / 2, GRACE / 2):
        stopped.clock.move(wait)
        again = await _refresh(stopped, ada.refresh_token)
        assert again.status_code == 200
        assert (await again.get_json())["refresh_token"] == first["refresh_token"]
    assert (await _row(stopped)).generation == 1
    assert await _outcome(stopped, first["refresh_token"]) == (200, None)


async def test_asking_again_does_not_prolong_the_grace(stopped: Server, ada: Person):
    await _refresh(stopped, ada.refresh_token)
    stopped.clock.move(GRACE)
    assert await _outcome(stopped, ada.refresh_token) == (200, None)
    stopped.clock.move(timedelta(milliseconds=1))
    assert await _outcome(stopped, ada.refresh_token) == (401, REVOKED)


async def test_the_grace_ends_with_the_session(stopped: Server, ada: Person):
    first = ada.refresh_token
    ada.keep(await (await _refresh(stopped, first)).get_json())
    assert (await ada.post("/api/auth/logout")).status_code == 204
    assert await _outcome(stopped, first) == (401, REVOKED)
    assert await stopped.events("session.refresh_reused") == []


@pytest.mark.parametrize("flags", [{"tokens.refresh_grace": "0s"}])
async def test_without_a_grace_a_second_use_ends_the_session(stopped: Server, ada: Person):
    assert await _outcome(stopped, ada.refresh_token) == (200, None)
    stopped.clock.move(timedelta(milliseconds=1))
    assert await _outcome(stopped, ada.refresh_token) == (401, REVOKED)


# Reuse


async def test_reuse_after_the_grace_ends_the_family_and_is_on_record_once(stopped: Server, ada: Person):  # F01
    first, access_tokens = ada.refresh_token, [ada.access_token]
    family = [first]
    for _ in range(3):
        stopped.clock.move(SECOND)
        ada.keep(await (await _refresh(stopped, ada.refresh_token)).get_json())
        family.append(ada.refresh_token)
        access_tokens.append(ada.access_token)
    elsewhere = await ada.elsewhere()
    stopped.clock.move(GRACE + SECOND)
    assert await _outcome(stopped, first) == (401, REVOKED)
    assert [await _outcome(stopped, token) for token in family] == [(401, REVOKED)] * 4
    for token in access_tokens:
        ada.access_token = token
        assert (await ada.get("/api/auth/session")).status_code == 401
    (event,) = await stopped.events("session.refresh_reused")
    assert (event.outcome, event.target_id, event.details) == ("failure", ada.id, {"presented": 0, "current": 3})
    assert (await elsewhere.get("/api/auth/session")).status_code == 200
    assert await _outcome(stopped, elsewhere.refresh_token) == (200, None)


async def test_the_generation_before_the_last_ends_the_session_even_within_the_grace(stopped: Server, ada: Person):
    first = ada.refresh_token
    for _ in range(2):
        ada.keep(await (await _refresh(stopped, ada.refresh_token)).get_json())
    assert await _outcome(stopped, first) == (401, REVOKED)
    assert await _outcome(stopped, ada.refresh_token) == (401, REVOKED)
    row = await _row(stopped)
    assert (row.revoked_at, row.revoked_reason) == (stopped.clock.now(), "refresh_reused")


async def test_a_generation_that_was_never_given_is_refused_and_harms_nobody(server: Server, ada: Person):
    row = await _row(server)
    ahead = server.runtime.refresh_tokens.issue(RefreshClaims(row.user_id, row.id, 1))
    assert await _outcome(server, ahead) == (401, INVALID)
    assert await _outcome(server, ada.refresh_token) == (200, None)


# Many at once


async def test_fifty_refreshes_at_once_leave_one_lineage(server: Server, ada: Person):  # P9
    answers = await asyncio.gather(*(_refresh(server, ada.refresh_token) for _ in range(50)))
    assert Counter(response.status_code for response in answers) == {200: 50}
    pairs = [await response.get_json() for response in answers]
    assert len({pair["refresh_token"] for pair in pairs}) == 1
    row = await _row(server)
    assert (row.generation, row.revoked_at) == (1, None)
    assert len(await server.events("session.refreshed")) == 1
    assert await server.events("session.refresh_reused") == []
    for pair in (pairs[0], pairs[-1]):
        ada.keep(pair)
        assert (await ada.get("/api/auth/session")).status_code == 200
    assert await _outcome(server, ada.refresh_token) == (200, None)


async def test_twenty_rounds_of_eight_at_once_with_a_thief_after_each(stopped: Server, ada: Person):  # P9
    for round_ in range(1, 21):
        victim = await ada.elsewhere()
        answers = await asyncio.gather(*(_refresh(stopped, victim.refresh_token) for _ in range(8)))
        assert {response.status_code for response in answers} == {200}
        (successor,) = {(await response.get_json())["refresh_token"] for response in answers}
        stopped.clock.move(GRACE + SECOND)
        thieves = await asyncio.gather(*(_outcome(stopped, victim.refresh_token) for _ in range(8)))
        assert set(thieves) == {(401, REVOKED)}
        assert await _outcome(stopped, successor) == (401, REVOKED)
        assert (await victim.get("/api/auth/session")).status_code == 401
        assert len(await stopped.events("session.refresh_reused")) == round_
        assert len(await stopped.events("session.refreshed")) == round_
    assert (await ada.get("/api/auth/session")).status_code == 200


async def test_refreshing_and_signing_out_at_once_never_leaves_a_live_session(server: Server, ada: Person):
    moved = 0
    for _ in range(10):
        device = await ada.elsewhere()
        body = {"refresh_token": device.refresh_token}
        refreshes = [_refresh(server, device.refresh_token) for _ in range(4)]
        answers = await asyncio.gather(*refreshes, server.nobody().post("/api/auth/logout", json=body))
        assert answers[-1].status_code == 204
        assert {response.status_code for response in answers[:-1]} <= {200, 401}
        for response in answers[:-1]:
            if response.status_code == 200:
                moved += 1
                device.keep(await response.get_json())
                assert (await device.get("/api/auth/session")).status_code == 401
                assert await _outcome(server, device.refresh_token) == (401, REVOKED)
    assert moved, "none was refreshed before it was signed out: this has tested nothing"


async def test_refreshing_on_two_instances_at_once_leaves_one_lineage(
    server: Server, ada: Person, another_server: StartServer
):
    instances = [server, await another_server()]
    for generation in range(1, 6):
        token = ada.refresh_token
        answers = await asyncio.gather(*(_refresh(instances[number % 2], token) for number in range(8)))
        assert {response.status_code for response in answers} == {200}
        pairs = [await response.get_json() for response in answers]
        assert len({pair["refresh_token"] for pair in pairs}) == 1
        ada.keep(pairs[0])
        assert (await _row(server)).generation == generation


# Expiry


@pytest.mark.parametrize(
    ("early", "status", "code"), [(SECOND, 200, None), (timedelta(0), 401, EXPIRED), (-SECOND, 401, EXPIRED)]
)
async def test_a_session_ends_when_it_is_not_refreshed_in_time(
    stopped: Server, ada: Person, early, status, code
):  # F11
    stopped.clock.move(timedelta(days=14) - early)
    assert await _outcome(stopped, ada.refresh_token) == (status, code)


async def test_a_session_that_is_refreshed_daily_ends_at_its_absolute_limit(stopped: Server, ada: Person):  # F11
    for day in range(1, 30):
        stopped.clock.move(DAY)
        pair = await (await _refresh(stopped, ada.refresh_token)).get_json()
        assert pair["refresh_expires_in"] == min(14, 30 - day) * 24 * 3600
        ada.keep(pair)
    stopped.clock.move(DAY - SECOND)
    previous = ada.refresh_token
    ada.keep(await (await _refresh(stopped, previous)).get_json())
    assert (await ada.get("/api/auth/session")).status_code == 200
    stopped.clock.move(SECOND)
    assert await _outcome(stopped, ada.refresh_token) == (401, EXPIRED)
    assert await _outcome(stopped, previous) == (401, EXPIRED)  # within the grace, but over
    assert (await ada.get("/api/auth/session")).status_code == 401  # though its access token is a second old
    assert await stopped.events("session.refresh_reused") == []


async def test_an_expired_session_is_told_from_a_stolen_one(stopped: Server, ada: Person):
    first = ada.refresh_token
    for _ in range(2):
        ada.keep(await (await _refresh(stopped, ada.refresh_token)).get_json())
    stopped.clock.move(timedelta(days=14))
    assert [await _outcome(stopped, token) for token in (first, ada.refresh_token)] == [(401, EXPIRED)] * 2
    assert await stopped.events("session.refresh_reused") == []


@pytest.mark.parametrize("flags", [{"tokens.session_lifetime": "1h", "tokens.session_idle_lifetime": "2h"}])
async def test_the_shorter_of_two_lifetimes_counts(stopped: Server, ada: Person):
    stopped.clock.move(timedelta(hours=1) - SECOND)
    pair = await (await _refresh(stopped, ada.refresh_token)).get_json()
    assert pair["refresh_expires_in"] == 1
    stopped.clock.move(SECOND)
    assert await _outcome(stopped, pair["refresh_token"]) == (401, EXPIRED)


# Accounts that may no longer sign in


async def test_a_disabled_user_cannot_refresh_nor_after_being_enabled(  # F09
    server: Server, admin: Person, ada: Person, another_server: StartServer
):
    other = await another_server()
    await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"})
    assert await _outcome(other, ada.refresh_token) == (401, REVOKED)
    assert (await at(other, ada).get("/api/auth/session")).status_code == 401
    await admin.put(f"/api/users/{ada.id}", json={"status": "active"})
    assert await _outcome(server, ada.refresh_token) == (401, REVOKED)
    assert (await ada.get("/api/auth/session")).status_code == 401
    assert (await ada.log_in()).status_code == 200


async def test_a_deleted_user_cannot_refresh_nor_after_being_restored(server: Server, admin: Person, ada: Person):
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204
    assert await _outcome(server, ada.refresh_token) == (401, REVOKED)
    assert (await admin.post(f"/api/users/{ada.id}/restore")).status_code == 200
    assert await _outcome(server, ada.refresh_token) == (401, REVOKED)
    assert (await ada.get("/api/auth/session")).status_code == 401


async def test_a_new_password_ends_the_other_sessions_only(server: Server, ada: Person):  # F08
    others = [await ada.elsewhere() for _ in range(2)]
    body = {"password": "another fine password", "current_password": PASSWORD}
    assert (await ada.put("/api/users/me", json=body)).status_code == 200
    for other in others:
        assert await _outcome(server, other.refresh_token) == (401, REVOKED)
        assert (await other.get("/api/auth/session")).status_code == 401
    assert (await ada.get("/api/auth/session")).status_code == 200
    assert await _outcome(server, ada.refresh_token) == (200, None)


# What is not a refresh token


async def test_only_the_issued_spelling_works(server: Server, ada: Person):  # F15
    token = ada.refresh_token
    forged = {token[:length] for length in range(len(token))}
    forged |= {token + extra for extra in ("A", "=", "==", ".", " ", "\n", "AAAA", token)}
    forged |= {extra + token for extra in ("A", " ", "Bearer ", REFRESH_PREFIX)}
    forged |= {token[:i] + token[i].swapcase() + token[i + 1 :] for i in range(len(token)) if token[i].isalpha()}
    last = string.ascii_letters + string.digits + "-_+/="
    forged |= {token[:-1] + character for character in last if character != token[-1]}
    forged |= {
        token.swapcase(),
        token.upper(),
        token[::-1],
        token.replace("_", "-"),
        token.removeprefix(REFRESH_PREFIX),
    }
    forged |= {"ж", "\u0000"[:0], "null", "../../etc/passwd", "' OR 1=1--", "\U0001f511" * 100}
    before = await _everything(server)
    assert {case: outcome for case in forged if (outcome := await _outcome(server, case)) != (401, INVALID)} == {}
    assert await _everything(server) == before
    assert await _outcome(server, token) == (200, None)


async def test_what_is_not_even_a_string_is_refused(server: Server, ada: Person):  # F15, E06
    token = ada.refresh_token
    cases: list[tuple[Any, int]] = [
        ({"refresh_token": ada.access_token}, 401),
        ({"refresh_token": ""}, 401),
        ({"refresh_token": "x" * 4096}, 401),
        ({"refresh_token": "x" * 4097}, 422),
        ({"refresh_token": "x" * (1 << 20)}, 413),
        ({"refresh_token": f"{token}\0"}, 422),
        ({"refresh_token": 1}, 422),
        ({"refresh_token": None}, 422),
        ({"refresh_token": [token]}, 422),
        ({"refresh_token": {"token": token}}, 422),
        ({"refresh_token": True}, 422),
        ({"refresh_token": token, "scope": "admin"}, 422),
        ({"refreshToken": token}, 422),
        ({}, 422),
        (token, 422),
        ([token], 422),
    ]
    before = await _everything(server)
    for body, status in cases:
        response = await server.nobody().post(REFRESH, json=body)
        assert (str(body)[:99], response.status_code) == (str(body)[:99], status)
        assert response.mimetype == "application/problem+json"
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert (await server.nobody().post(f"{REFRESH}?refresh_token={token}")).status_code == 422
    assert (await server.nobody().get(f"{REFRESH}?refresh_token={token}")).status_code == 405
    assert await _everything(server) == before
    assert await _outcome(server, token) == (200, None)


async def test_a_token_with_a_guessed_or_borrowed_mac_is_refused(server: Server, ada: Person, bob: Person):  # F14
    row = await _row(server, ada)
    named = RefreshClaims(row.user_id, row.id, row.generation)
    message = row.user_id.bytes + row.id.bytes + row.generation.to_bytes(4, "big")
    genuine = encoding.decode(ada.refresh_token.removeprefix(REFRESH_PREFIX))
    assert genuine is not None
    assert genuine[:36] == message
    macs = {b"", bytes(32), bytes([255]) * 32, genuine[36:][::-1], genuine[36:68][:16] + bytes(16)}
    for purpose in Purpose:
        if purpose is not Purpose.REFRESH_TOKEN:
            macs.add(Secrets([SECRET]).making_key(purpose).sign(message))
    macs.add(encoding.decode(bob.refresh_token.removeprefix(REFRESH_PREFIX))[36:])
    forged = [REFRESH_PREFIX + encoding.encode(message + mac) for mac in macs]
    forged.append(RefreshTokens(Secrets([NEWER_SECRET])).issue(named))  # another installation
    assert [await _outcome(server, token) for token in forged] == [(401, INVALID)] * len(forged)
    assert await _outcome(server, ada.refresh_token) == (200, None)


async def test_a_genuine_mac_over_a_session_of_nobody_is_refused(server: Server, ada: Person, bob: Person):
    row, other = await _row(server, ada), await _row(server, bob)
    for claims in (RefreshClaims(other.user_id, row.id, 0), RefreshClaims(UUID(int=0), UUID(int=0), 0)):
        assert await _outcome(server, server.runtime.refresh_tokens.issue(claims)) == (401, INVALID)


async def test_nothing_that_the_database_holds_works_as_a_token(server: Server, ada: Person):  # F14
    ada.keep(await (await _refresh(server, ada.refresh_token)).get_json())
    held = {str(value) for row in await _everything(server) for value in row}
    held |= {piece for text in held for piece in re.split(r"[^A-Za-z0-9_.+/=-]+", text)}
    tried = {text.strip() for text in held if 0 < len(text) <= 4096}
    tried |= {REFRESH_PREFIX + text.replace("$", "") for text in tried}
    assert not any(token in text for text in held for token in (ada.refresh_token, ada.access_token))
    for text in tried:
        assert await _outcome(server, text) == (401, INVALID)
        headers = {"Authorization": f"Bearer {text}"}
        if text.isascii() and text.isprintable():
            assert (await server.nobody().get("/api/auth/session", headers=headers)).status_code == 401


# A new root secret


async def test_a_new_root_secret_signs_nobody_out(server: Server, ada: Person, another_server: StartServer):  # P13
    rotated = await another_server(**{"secret.keys": f"{NEWER_SECRET},{SECRET}", "secret.rollout": "0s"})
    there = at(rotated, ada)
    assert (await there.get("/api/auth/session")).status_code == 200
    there.keep(await (await _refresh(rotated, there.refresh_token)).get_json())
    assert await _outcome(rotated, there.refresh_token) == (200, None)
    assert (await at(server, there).get("/api/auth/session")).status_code == 200


async def test_a_removed_root_secret_takes_its_tokens_along(server: Server, ada: Person, another_server: StartServer):
    alone = await another_server(**{"secret.keys": NEWER_SECRET})
    assert await _outcome(alone, ada.refresh_token) == (401, INVALID)
    assert (await at(alone, ada).get("/api/auth/session")).status_code == 401
    assert await _outcome(server, ada.refresh_token) == (200, None)


async def _refresh(server: Server, token: Any) -> Response:
    return await server.nobody().post(REFRESH, json={"refresh_token": token})


async def _outcome(server: Server, token: Any) -> tuple[int, str | None]:
    response = await _refresh(server, token)
    return response.status_code, (await response.get_json()).get("code")


async def _session_of(person: Person) -> dict[str, Any]:
    return (await (await person.get("/api/auth/session")).get_json())["session"]


async def _row(server: Server, person: Person | None = None) -> Session:
    async with server.runtime.database.read() as session:
        statement = Session.__table__.select().order_by(Session.created_at)
        if person is not None:
            statement = statement.where(Session.user_id == UUID(person.id))
        return (await session.execute(statement)).one()


async def _everything(server: Server) -> list[tuple[Any, ...]]:
    """Every value of every table but those that count guesses, and that are written behind the requests."""
    behind = {"throttles", "chores", "audit_seals", "audit_head"}
    tables = [table for table in metadata.sorted_tables if table.name not in behind]
    async with server.runtime.database.read() as session:
        return [(*row,) for table in tables for row in (await session.execute(table.select())).all()]
