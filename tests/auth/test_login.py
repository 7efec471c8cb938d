"""POST /api/auth/login."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import bcrypt
import pytest

from tests.conftest import SECRET
from tests.people import PASSWORD, Person, Server

LOGIN = "/api/auth/login"
WRONG = "not the password of anybody"
NEWER_SECRET = "tests-only-2d94b86fe0a15c73d8e6f0912ab74c5e"
NAMED = [
    {"username": "ada"},
    {"username": "ADA"},
    {"username": "ａｄａ"},
    {"username": "ada@example.com"},
    {"username": "Ada@EXAMPLE.com"},
    {"email": "ada@example.com"},
    {"email": "ADA@example.COM"},
    {"email": "ada"},
]
BODIES: list[tuple[Any, int, str | None]] = [
    ({"username": "ada", "password": PASSWORD}, 200, None),
    ({"username": "ada", "password": WRONG}, 401, "invalid_credentials"),
    ({"username": "ada", "password": PASSWORD.upper()}, 401, "invalid_credentials"),
    ({"username": "ada", "password": f" {PASSWORD}"}, 401, "invalid_credentials"),  # A06
    ({"username": "ada", "password": f"{PASSWORD}\n"}, 401, "invalid_credentials"),  # A06
    ({"username": "ada", "password": ""}, 401, "invalid_credentials"),
    ({"username": "", "password": PASSWORD}, 401, "invalid_credentials"),
    ({"username": " ada", "password": PASSWORD}, 401, "invalid_credentials"),
    ({"username": "аda", "password": PASSWORD}, 401, "invalid_credentials"),  # its first letter is Cyrillic
    ({"username": "ada' OR '1'='1", "password": PASSWORD}, 401, "invalid_credentials"),
    ({"username": "a" * 320, "password": PASSWORD}, 401, "invalid_credentials"),
    ({"username": "ada", "password": "x" * 4096}, 401, "invalid_credentials"),
    ({"username": "a" * 321, "password": PASSWORD}, 422, "validation_failed"),
    ({"username": "ada", "password": "x" * 4097}, 422, "validation_failed"),
    ({"username": "ada", "password": "x" * (1 << 20)}, 413, "body_too_large"),  # A05
    ({"username": "ada", "password": f"{PASSWORD}\0"}, 422, "validation_failed"),  # A06
    ({"username": "ada\0", "password": PASSWORD}, 422, "validation_failed"),
    ({"username": "ada", "email": "ada@example.com", "password": PASSWORD}, 422, "validation_failed"),
    ({"username": "ada", "email": None, "password": PASSWORD}, 422, "validation_failed"),
    ({"password": PASSWORD}, 422, "validation_failed"),
    ({"username": "ada"}, 422, "validation_failed"),
    ({"username": "ada", "password": None}, 422, "validation_failed"),
    ({"username": "ada", "password": 12345678}, 422, "validation_failed"),
    ({"username": ["ada"], "password": PASSWORD}, 422, "validation_failed"),
    ({"username": {"$ne": ""}, "password": PASSWORD}, 422, "validation_failed"),
    ({"username": "ada", "password": PASSWORD, "remember": True}, 422, "validation_failed"),
    ([], 422, "validation_failed"),
    ("ada", 422, "validation_failed"),
    (None, 422, "validation_failed"),
]
FORMS = [
    (b'{"username": "ada", "password": "%s"}' % PASSWORD.encode(), "application/json", 200),
    (b'{"username": "ada", "password": "%s"' % PASSWORD.encode(), "application/json", 400),
    (b'{"username": "ada", "username": "bob", "password": ""}', "application/json", 400),
    (b'{"username": "ada", "password": "\\ud800"}', "application/json", 400),
    (b'{"username": "ada", "password": "\xff"}', "application/json", 400),
    (b"", "application/json", 400),
    (b'{"username": "ada", "password": "%s"}' % PASSWORD.encode(), "text/plain", 415),  # J03
    (b"username=ada&password=correct+horse+battery+staple", "application/x-www-form-urlencoded", 415),
]
UNKNOWN_FORMS = [
    "",
    "!",
    "um1$",
    "um1$zz",
    "um1$zz$$2b$04$" + "a" * 53,
    "$1$salt$digest",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$ZGlnZXN0",
    "$2b$99$" + "a" * 53,
    "$2b$04$" + "!" * 53,
    "$2b$04$short",
    "$2b$０４$" + "a" * 53,
]


# Who gets in


async def test_an_account_signs_in_by_any_of_its_names_in_any_spelling(server: Server, ada: Person):
    for named in NAMED:
        response = await server.nobody().post(LOGIN, json={**named, "password": PASSWORD})
        assert (named, response.status_code) == (named, 200)
        assert (await response.get_json())["user"]["id"] == ada.id


@pytest.mark.parametrize(
    ("username", "typed"),
    [("Zoe\u0308", "zo\u00eb"), ("Straße", "STRASSE"), ("bücher@bücher.example", "BÜCHER@xn--bcher-kva.example")],
)
async def test_names_beyond_ascii_sign_in_however_they_are_composed_or_cased(server: Server, username, typed):
    made = {"username": "other", "email": "o@example.com", "password": PASSWORD}
    made["email" if "@" in username else "username"] = username
    assert (await server.nobody().post("/api/users", json=made)).status_code == 201
    assert await _status(server, typed, PASSWORD) == 200


async def test_the_answer_is_a_pair_of_tokens_and_the_user(server: Server, ada: Person):
    response = await server.nobody().post(LOGIN, json={"username": "ada", "password": PASSWORD})
    body = await response.get_json()
    user = body.pop("user")
    assert {name: type(value) for name, value in body.items()} == {
        "access_token": str,
        "refresh_token": str,
        "token_type": str,
        "expires_in": int,
        "refresh_expires_in": int,
    }
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    assert body["refresh_expires_in"] == timedelta(days=14).total_seconds()
    ada.keep(body)
    assert user == await (await ada.get("/api/users/me")).get_json()


async def test_signing_in_notes_when_but_leaves_the_version_alone(stopped: Server, ada: Person):
    before = await (await ada.get("/api/users/me")).get_json()
    stopped.clock.move(timedelta(hours=1))
    user = (await (await ada.log_in()).get_json())["user"]
    assert user["last_login_at"] == stopped.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert user["last_login_at"] > before["last_login_at"]
    assert (user["version"], user["updated_at"]) == (before["version"], before["updated_at"])


async def test_signing_in_with_an_old_token_at_hand_opens_a_fresh_session(server: Server, ada: Person):  # F16
    headers = {"Authorization": f"Bearer {ada.access_token}", "Cookie": f"session={ada.refresh_token}"}
    response = await server.nobody().post(LOGIN, json={"username": "ada", "password": PASSWORD}, headers=headers)
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
    assert len(await server.rows("SELECT id FROM sessions")) == 2


async def test_a_broken_credential_does_not_stand_in_the_way_of_signing_in(server: Server, ada: Person):
    body = {"username": "ada", "password": PASSWORD}
    for header in ("Bearer", "Bearer broken", "Basic YWRhOnB3"):
        assert (await server.nobody().post(LOGIN, json=body, headers={"Authorization": header})).status_code == 200


async def test_no_answer_may_be_kept_by_a_cache(server: Server, ada: Person):  # J04
    for password in (PASSWORD, WRONG, ""):
        response = await server.nobody().post(LOGIN, json={"username": "ada", "password": password})
        assert response.headers["Cache-Control"] == "no-store"


# Who does not


async def test_what_signs_in_and_what_is_refused(server: Server, ada: Person):
    for body, status, code in BODIES:
        before = len(await server.rows("SELECT id FROM sessions"))
        response = await server.nobody().post(LOGIN, json=body)
        seen = response.status_code, (await response.get_json()).get("code")
        assert (str(body)[:99], *seen) == (str(body)[:99], status, code)
        assert response.mimetype == ("application/json" if status == 200 else "application/problem+json")
        assert len(await server.rows("SELECT id FROM sessions")) == before + (status == 200)


async def test_credentials_come_as_json(server: Server, ada: Person):
    for sent, media_type, status in FORMS:
        response = await server.nobody().post(LOGIN, data=sent, headers={"Content-Type": media_type})
        assert (sent, media_type, response.status_code) == (sent, media_type, status)


async def test_signing_in_is_a_post_and_nothing_else(server: Server, ada: Person):  # A10
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        response = await server.nobody().call(method, LOGIN, json={"username": "ada", "password": PASSWORD})
        assert (method, response.status_code) == (method, 405)
        assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


@pytest.mark.parametrize("options", [{"json": {"username": "ada", "password": PASSWORD}}, {}], ids=["body", "no body"])
async def test_credentials_in_the_query_string_are_refused_and_not_logged(  # A10
    server: Server, ada: Person, options, capsys: pytest.CaptureFixture[str]
):
    response = await server.nobody().post(f"{LOGIN}?username=ada&password=in+the+query", **options)
    assert response.status_code == 422
    shown = "".join(capsys.readouterr()) + await response.get_data(as_text=True)
    assert "in+the+query" not in shown
    assert "in the query" not in shown
    assert len(await server.rows("SELECT id FROM sessions")) == 1


# What the answer must not tell


async def _nothing(_server: Server, _admin: Person, _ada: Person) -> None:
    """Leave the account as it is."""


async def _disable(_server: Server, admin: Person, ada: Person) -> None:
    assert (await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"})).status_code == 200


async def _delete(_server: Server, admin: Person, ada: Person) -> None:
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204


async def _take_password(server: Server, _admin: Person, ada: Person) -> None:
    await server.execute("UPDATE users SET password_hash = NULL WHERE username = 'ada'")


async def _spoil_hash(server: Server, _admin: Person, _ada: Person) -> None:
    await server.execute("UPDATE users SET password_hash = 'x' WHERE username = 'ada'")


REFUSED: list[tuple[str, Callable[[Server, Person, Person], Awaitable[None]], str, str, str]] = [
    ("wrong password", _nothing, "ada", WRONG, "wrong_password"),
    ("unknown username", _nothing, "nobody", PASSWORD, "unknown_user"),
    ("unknown address", _nothing, "nobody@example.com", PASSWORD, "unknown_user"),
    ("impossible name", _nothing, "\u202e", PASSWORD, "unknown_user"),
    ("disabled", _disable, "ada", PASSWORD, "not_active"),
    ("disabled, wrong password", _disable, "ada", WRONG, "wrong_password"),
    ("deleted", _delete, "ada", PASSWORD, "deleted"),
    ("without password", _take_password, "ada", PASSWORD, "no_password"),
    ("unreadable hash", _spoil_hash, "ada", PASSWORD, "wrong_password"),
]


@pytest.mark.parametrize(
    ("change", "name", "password", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_every_refusal_is_the_same_to_the_byte_and_its_reason_is_on_record(  # A11, B01
    server: Server, admin: Person, ada: Person, change, name, password, reason
):
    yardstick = await _all_that_shows(server, "nobody at all", WRONG)
    await change(server, admin, ada)
    assert await _all_that_shows(server, name, password) == yardstick
    event = (await server.events("login.failed"))[-1]
    assert event.details == {"reason": reason}
    is_known = reason not in ("unknown_user", "deleted")
    assert (event.target_type, event.target_id) == (("user", ada.id) if is_known else ("login_name", name))
    assert len(await server.events("login.failed")) == 2


# What is on record


async def test_a_sign_in_is_on_record_once_with_who_and_where(stopped: Server, ada: Person):
    before = {event.id for event in await stopped.events()}
    response = await stopped.nobody().post(
        LOGIN,
        json={"username": "ada", "password": PASSWORD},
        headers={"User-Agent": "a browser", "X-Request-ID": "request-0001"},
        scope_base={"client": ("192.0.2.7", 1234)},
    )
    (event,) = [event for event in await stopped.events("login.succeeded") if event.id not in before]
    ada.keep(await response.get_json())
    session = (await (await ada.get("/api/auth/session")).get_json())["session"]
    assert (event.event, event.outcome, event.details) == ("login.succeeded", "success", {})
    assert (event.actor_id, event.actor_name) == (None, None)
    assert (event.target_type, event.target_id, str(event.owner_id)) == ("user", ada.id, ada.id)
    assert str(event.session_id) == session["id"]
    assert (event.address, event.user_agent, event.request_id) == ("192.0.2.7", "a browser", "request-0001")
    assert event.at == stopped.clock.now()


async def test_a_failed_sign_in_is_on_record_once_and_never_with_the_password(server: Server, ada: Person):
    before = {event.id for event in await server.events()}
    secret = "canary-4711-password"
    await server.nobody().post(
        LOGIN, json={"username": "ADA", "password": secret}, headers={"User-Agent": "a" * 600, "X-Request-ID": "short"}
    )
    (event,) = [event for event in await server.events() if event.id not in before]
    assert (event.event, event.outcome) == ("login.failed", "failure")
    assert (event.actor_id, event.session_id, event.target_id) == (None, None, ada.id)
    assert event.user_agent == "a" * 512
    assert event.request_id not in (None, "short")
    assert secret not in str(vars(event))


async def test_an_unknown_name_is_on_record_shortened(server: Server):
    assert await _status(server, "x" * 300, PASSWORD) == 401
    (event,) = await server.events("login.failed")
    assert event.target_id == "x" * 64


async def test_what_is_not_a_sign_in_is_not_on_record(server: Server, ada: Person):
    before = len(await server.events())
    for body in ({"username": "ada"}, {"username": "ada", "password": "x\0"}, []):
        assert (await server.nobody().post(LOGIN, json=body)).status_code == 422
    assert len(await server.events()) == before


# Stored hashes of other times and places


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_a_plain_bcrypt_hash_from_elsewhere_verifies_and_is_replaced(server: Server, ada: Person, prefix):
    plain = prefix + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()[4:]
    await _store_hash(server, plain)
    assert await _status(server, "ada", WRONG) == 401
    assert await _stored_hash(server) == plain
    assert await _status(server, "ada", PASSWORD) == 200
    assert (await _stored_hash(server)).startswith("um1$")
    assert await _status(server, "ada", PASSWORD) == 200
    (event,) = await server.events("user.password_rehashed")
    assert (event.target_id, event.outcome, event.details) == (ada.id, "success", {})


async def test_a_hash_of_unknown_form_lets_nobody_in(server: Server, ada: Person):
    for stored in UNKNOWN_FORMS:
        await _store_hash(server, stored)
        assert (stored, await _status(server, "ada", PASSWORD)) == (stored, 401)
        assert await _stored_hash(server) == stored


async def test_replacing_a_hash_changes_neither_version_nor_sessions(server: Server, ada: Person):
    await _store_hash(server, bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode())
    before = await server.rows("SELECT version, updated_at, password_changed_at FROM users")
    assert await _status(server, "ada", PASSWORD) == 200
    assert await server.rows("SELECT version, updated_at, password_changed_at FROM users") == before
    assert (await ada.get("/api/auth/session")).status_code == 200


async def test_twenty_sign_ins_at_once_replace_a_cheap_hash_once(server: Server, ada: Person, another_server):  # A13
    assert "$2b$04$" in await _stored_hash(server)
    dearer = await another_server(**{"passwords.bcrypt_cost": 5})
    assert await asyncio.gather(*(_status(dearer, "ada", PASSWORD) for _ in range(20))) == [200] * 20
    assert "$2b$05$" in await _stored_hash(server)
    assert len(await server.events("user.password_rehashed")) == 1
    assert await _status(server, "ada", PASSWORD) == 200


async def test_a_hash_of_the_configured_cost_is_left_alone(server: Server, ada: Person):
    before = await _stored_hash(server)
    assert await _status(server, "ada", PASSWORD) == 200
    assert await _stored_hash(server) == before
    assert await server.events("user.password_rehashed") == []


async def test_a_new_root_secret_keeps_every_password_and_rehashes_it(server: Server, ada: Person, another_server):
    before = await _stored_hash(server)
    rotated = await another_server(**{"secret.keys": f"{NEWER_SECRET},{SECRET}", "secret.rollout": "0s"})
    assert await _status(rotated, "ada", PASSWORD) == 200
    assert (await _stored_hash(server)).split("$")[1] != before.split("$")[1]
    assert await _status(rotated, "ada", PASSWORD) == 200
    assert await _status(rotated, "ada", WRONG) == 401
    assert len(await server.events("user.password_rehashed")) == 1


async def test_a_removed_root_secret_lets_in_only_who_signed_in_meanwhile(
    server: Server, ada: Person, bob: Person, another_server
):
    rotated = await another_server(**{"secret.keys": f"{NEWER_SECRET},{SECRET}", "secret.rollout": "0s"})
    assert await _status(rotated, "ada", PASSWORD) == 200
    alone = await another_server(**{"secret.keys": NEWER_SECRET})
    assert [await _status(alone, name, PASSWORD) for name in ("ada", "bob")] == [200, 401]


# Races


@pytest.mark.parametrize("flags", [{"passwords.bcrypt_cost": 10}])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("UPDATE users SET last_login_at = NULL", 200),
        ("UPDATE users SET status = 'disabled'", 401),
        ("UPDATE users SET deleted_at = created_at", 401),
        ("UPDATE users SET password_changed_at = NULL", 401),
    ],
)
async def test_what_changes_while_the_password_is_verified_counts(server: Server, ada: Person, change, status):
    signing_in = asyncio.create_task(_status(server, "ada", PASSWORD))
    while not server.runtime.hasher.running:  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    await server.execute(change)
    assert await signing_in == status
    assert len(await server.rows("SELECT id FROM sessions")) == (2 if status == 200 else 1)


# Overload


@pytest.mark.parametrize(
    "flags", [{"passwords.hash_workers": 1, "passwords.hash_queue": "1ms", "passwords.bcrypt_cost": 11}]
)
async def test_more_sign_ins_than_can_be_verified_in_time_are_told_when_to_return(server: Server, ada: Person):  # M14
    names = ["ada", "nobody", "ada", "nobody", "ada", "nobody"]
    signing_in = [server.nobody().post(LOGIN, json={"username": name, "password": PASSWORD}) for name in names]
    answers = await asyncio.gather(*signing_in)
    refused = [response for response in answers if response.status_code == 503]
    assert {response.status_code for response in answers} <= {200, 401, 503}
    assert refused
    assert len(refused) < len(answers)
    for response in refused:
        assert (await response.get_json())["code"] == "overloaded"
        assert int(response.headers["Retry-After"]) >= 1
        assert response.mimetype == "application/problem+json"
    assert (server.runtime.hasher.running, server.runtime.hasher.waiting) == (0, 0)
    assert await _status(server, "ada", PASSWORD) == 200


async def _status(server: Server, name: str, password: str) -> int:
    response = await server.nobody().post(LOGIN, json={"username": name, "password": password})
    return response.status_code


async def _all_that_shows(server: Server, name: str, password: str) -> tuple[list[tuple[str, str]], bytes]:
    """All that an onlooker sees of a refused sign-in, who chose its request id: the headers in order, the bytes."""
    response = await server.nobody().post(
        LOGIN, json={"username": name, "password": password}, headers={"X-Request-ID": "the-same-always"}
    )
    assert response.status_code == 401
    assert (await response.get_json())["code"] == "invalid_credentials"
    return list(response.headers), await response.get_data(as_text=False)


async def _stored_hash(server: Server) -> str:
    ((stored,),) = await server.rows("SELECT password_hash FROM users WHERE username = 'ada'")
    return stored


async def _store_hash(server: Server, stored: str) -> None:
    await server.execute("UPDATE users SET password_hash = :stored WHERE username = 'ada'", stored=stored)
