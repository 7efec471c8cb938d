import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.users.accounts import (
    RESERVED_FIELDS,
    UNKNOWN_FIELDS,
    assert_whole,
    field_errors,
    refusal,
    stored,
    user_of,
)

NEW_PASSWORD = "another fine passphrase"
STALE = timedelta(minutes=16)


async def sign_in(server: Server, name: str, password: str) -> Response:
    return await server.nobody().post("/api/auth/login", json={"username": name, "password": password})


async def is_signed_in(person: Person) -> bool:
    """Whether a session is alive; the token and the refresh token must agree."""
    called = (await person.get("/api/auth/session")).status_code
    refreshed = await person.post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
    if refreshed.status_code == 200:
        person.keep(await refreshed.get_json())
    assert (called, refreshed.status_code) in {(200, 200), (401, 401)}
    return called == 200


async def grow_stale(server: Server, person: Person) -> None:
    """Let so much time pass that a sign-in is no longer recent, and take new tokens of the same session."""
    server.clock.move(STALE)
    response = await person.post("/api/auth/refresh", json={"refresh_token": person.refresh_token})
    person.keep(await response.get_json())


# PUT and PATCH


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        ("nobody", (401, "missing_credentials")),
        ("stranger", (403, "permission_missing")),
        ("self", 200),
        ("manager", 200),
        ("admin", 200),
    ],
)
async def test_who_may_change_an_account(as_, server: Server, ada, caller, expected):
    for method in ("PUT", "PATCH"):
        before = await stored(server)
        response = await as_(caller).call(method, f"/api/users/{ada.id}", json={"display_name": method})
        if expected == 200:
            assert (await user_of(response))["display_name"] == method
        else:
            assert await refusal(response) == expected
            assert await stored(server) == before


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_what_is_sent_is_set(server: Server, ada, method):
    values = {
        "display_name": "Ada",
        "attributes": {"team": "engine"},
        "email": "ada@example.org",
        "username": "lovelace",
    }
    user = await user_of(await ada.get("/api/users/me"))
    for version, (name, value) in enumerate(values.items(), start=2):
        server.clock.move(timedelta(seconds=1))
        changed = await user_of(await ada.call(method, "/api/users/me", json={name: value}))
        assert changed["updated_at"] > user["updated_at"]
        user = {**user, name: value, "version": version, "updated_at": changed["updated_at"]}
        assert changed == user
    assert await user_of(await ada.get("/api/users/me")) == user
    (*_, event) = await server.events("user.updated")
    assert (str(event.target_id), str(event.actor_id), event.details) == (ada.id, ada.id, {"fields": ["username"]})


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_what_changes_nothing_counts_no_version_and_leaves_no_record(server: Server, admin, ada, method):
    values = {"username": "ada", "email": ada.email, "display_name": None, "status": "active", "roles": ["user"]}
    before, events = await stored(server), len(await server.events())
    for body in ({}, values, {"attributes": {}}):
        response = await admin.call(method, f"/api/users/{ada.id}", json=body)
        assert (await user_of(response))["version"] == 1
        assert response.headers["ETag"] == '"1"'
    assert await stored(server) == before
    assert len(await server.events()) == events


async def test_attributes_are_compared_as_json_and_not_as_python_does(ada):
    values = [1, True, 1.5, "1", None, 0, False, "", [], [1], [True], {"b": 1}, {"b": True}, {"b": None}, {}]
    for version, value in enumerate(values, start=2):
        user = await user_of(await ada.put("/api/users/me", json={"attributes": {"a": value}}))
        assert (user["version"], repr(user["attributes"])) == (version, repr({"a": value}))
    again = await ada.put("/api/users/me", json={"attributes": {"a": values[-1]}})
    assert (await user_of(again))["version"] == version


async def test_put_replaces_attributes_and_patch_merges_them(ada):  # RFC 7396, appendix A
    document = {"title": "Goodbye!", "author": {"given": "John", "family": "Doe"}, "tags": ["a", "b"], "content": "x"}
    patch = {"title": "Hello!", "phone": "+01", "author": {"family": None}, "tags": ["a"]}
    merged = {"title": "Hello!", "author": {"given": "John"}, "tags": ["a"], "content": "x", "phone": "+01"}
    steps: list[tuple[str, Any, Any]] = [
        ("PUT", document, document),
        ("PATCH", patch, merged),
        ("PATCH", {}, merged),
        ("PATCH", {"author": "me", "nosuch": None}, {**merged, "author": "me"}),
        ("PATCH", {"author": {"a": {"b": None, "c": 1}}}, {**merged, "author": {"a": {"c": 1}}}),
        ("PUT", {"kept": None}, {"kept": None}),
        ("PATCH", None, {}),
    ]
    for method, sent, kept in steps:
        user = await user_of(await ada.call(method, "/api/users/me", json={"attributes": sent}))
        assert user["attributes"] == kept


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_null_clears_what_is_optional_only(server: Server, admin, ada, method):
    await ada.put("/api/users/me", json={"display_name": "Ada"})
    before = await stored(server)
    required = {"username": "wrong_type", "email": "wrong_type", "password": "wrong_type", "roles": "wrong_type"}
    for name, code in {**required, "status": "not_an_option"}.items():
        response = await admin.call(method, f"/api/users/{ada.id}", json={name: None})
        assert await field_errors(response) == {(f"/{name}", code)}
    if method == "PUT":
        response = await admin.put(f"/api/users/{ada.id}", json={"attributes": None})
        assert await field_errors(response) == {("/attributes", "wrong_type")}
    assert await stored(server) == before
    cleared = await admin.call(method, f"/api/users/{ada.id}", json={"display_name": None})
    assert (await user_of(cleared))["display_name"] is None


async def test_a_merge_patch_has_its_own_media_type(ada):
    for content_type, method, status in (
        ("application/merge-patch+json", "PATCH", 200),
        ("application/json", "PATCH", 200),
        ("application/merge-patch+json", "PUT", 415),
        ("application/json-patch+json", "PATCH", 415),
    ):
        options: dict[str, Any] = {"data": b'{"display_name": "x"}', "headers": {"Content-Type": content_type}}
        assert (await ada.call(method, "/api/users/me", **options)).status_code == status


async def test_all_invalid_fields_are_told_at_once(admin, ada):
    body = {"username": "", "email": "@", "password": "short", "attributes": 1, "status": "x", "roles": "admin", "x": 0}
    for method in ("PUT", "PATCH"):
        assert await field_errors(await admin.call(method, f"/api/users/{ada.id}", json=body)) == {
            ("/username", "invalid_username"),
            ("/email", "invalid_email"),
            ("/password", "password_too_short"),
            ("/attributes", "wrong_type"),
            ("/status", "not_an_option"),
            ("/roles", "wrong_type"),
            ("/x", "unknown_field"),
        }


async def test_attributes_stay_below_8_kib(server: Server, ada):
    nearly = {"attributes": {"a": "x" * (8192 - 9)}}
    assert (await ada.put("/api/users/me", json=nearly)).status_code == 200
    before = await stored(server)
    for method, attributes in (("PUT", {"a": "x" * (8192 - 8)}), ("PUT", {"a": "é" * 4096}), ("PATCH", {"b": 1})):
        response = await ada.call(method, "/api/users/me", json={"attributes": attributes})
        assert await field_errors(response) == {("/attributes", "too_long")}
    assert await stored(server) == before


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_no_field_of_the_servers_own_can_be_set(server: Server, ada, method):  # G04, G03
    before = await stored(server)
    for name, value in UNKNOWN_FIELDS.items():
        response = await ada.call(method, "/api/users/me", json={name: value, "display_name": "x"})
        assert await field_errors(response) == {(f"/{name}", "unknown_field")}
    for name, value in RESERVED_FIELDS.items():
        response = await ada.call(method, "/api/users/me", json={name: value, "display_name": "x"})
        assert await refusal(response) == (403, "field_not_permitted")
    assert await stored(server) == before


async def test_an_id_beside_the_paths_changes_nobody(server: Server, ada, bob):  # G03
    before = await stored(server)
    body = {"display_name": "x"}
    path = "/api/users/me"
    assert (await ada.put(path, json={**body, "id": bob.id})).status_code == 422
    assert (await ada.put(f"{path}?id={bob.id}", json=body)).status_code == 422
    assert (await ada.put(f"{path}?id={ada.id}&id={bob.id}", json=body)).status_code == 422
    assert (await server.nobody().put(path, json={**body, "userId": bob.id})).status_code == 401
    assert await stored(server) == before


async def test_there_is_nothing_to_change_where_there_is_no_account(admin, ada):
    await admin.delete(f"/api/users/{ada.id}")
    for user_id in (ada.id, uuid4()):
        for method in ("PUT", "PATCH"):
            response = await admin.call(method, f"/api/users/{user_id}", json={"display_name": "x"})
            assert await refusal(response) == (404, "user_not_found")


# Passwords


async def test_a_new_password_ends_the_other_sessions_and_the_old_password(server: Server, ada):  # F08
    others = [await ada.elsewhere() for _ in range(2)]
    body = {"password": NEW_PASSWORD, "current_password": PASSWORD}
    assert (await user_of(await ada.put("/api/users/me", json=body)))["version"] == 2

    assert await is_signed_in(ada)
    assert [await is_signed_in(other) for other in others] == [False, False]
    assert (await sign_in(server, "ada", PASSWORD)).status_code == 401
    assert (await sign_in(server, "ada", NEW_PASSWORD)).status_code == 200
    assert len(await server.events("user.password_changed")) == 1
    (ended,) = await server.events("session.revoked")
    assert ended.details == {"reason": "password_changed", "sessions": 2}


async def test_a_new_password_needs_the_present_one(server: Server, ada):  # A09
    before, wrong = await stored(server), 0
    for method in ("PUT", "PATCH"):
        for current, expected in (
            ({}, (422, "validation_failed")),
            ({"current_password": None}, (422, "validation_failed")),
            ({"current_password": 7}, (422, "validation_failed")),
            ({"current_password": ""}, (403, "wrong_current_password")),
            ({"current_password": "wrong"}, (403, "wrong_current_password")),
            ({"current_password": PASSWORD + " "}, (403, "wrong_current_password")),
            ({"current_password": NEW_PASSWORD}, (403, "wrong_current_password")),
        ):
            body = {"password": NEW_PASSWORD, "display_name": "x", **current}
            assert await refusal(await ada.call(method, "/api/users/me", json=body)) == expected
            wrong += expected[0] == 403
            failed = await server.events("reauthentication.failed")
            assert [(str(event.actor_id), event.outcome) for event in failed] == [(ada.id, "failure")] * wrong
    assert await stored(server) == before


async def test_an_administrator_too_needs_the_present_password_for_their_own(admin):
    response = await admin.put("/api/users/me", json={"password": NEW_PASSWORD})
    assert await field_errors(response) == {("/current_password", "current_password_required")}


async def test_a_password_set_by_an_administrator_ends_every_session(server: Server, admin, ada):
    other = await ada.elsewhere()
    assert (await admin.put(f"/api/users/{ada.id}", json={"password": NEW_PASSWORD})).status_code == 200
    assert not await is_signed_in(ada)
    assert not await is_signed_in(other)
    assert await is_signed_in(admin)
    assert (await sign_in(server, "ada", PASSWORD)).status_code == 401
    assert (await sign_in(server, "ada", NEW_PASSWORD)).status_code == 200


@pytest.mark.parametrize("body", [{}, {"username": "Ada.Lovelace"}], ids=["kept", "renamed"])
async def test_a_password_is_not_ones_own_name(server: Server, admin, body):  # A08
    person = await server.person("ada.lovelace.1815")
    for password in ("ADA.lovelace.1815", "ada.lovelace.1815@example.com"):
        wish = {"password": password, "current_password": PASSWORD, **body}
        for caller in (person, admin):
            response = await caller.put(f"/api/users/{person.id}", json=wish)
            assert await field_errors(response) == {("/password", "password_is_a_name")}
    assert (await sign_in(server, "ada.lovelace.1815", PASSWORD)).status_code == 200


async def test_of_two_password_changes_at_once_one_is_refused(server: Server, ada):
    other = await ada.elsewhere()
    bodies = [{"password": f"{NEW_PASSWORD} {n}", "current_password": PASSWORD} for n in range(2)]
    answers = await asyncio.gather(*(p.put("/api/users/me", json=b) for p, b in zip((ada, other), bodies, strict=True)))
    # the slower one finds the account changed, its password wrong by now, or its own session ended by then
    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert sorted(answer.status_code for answer in answers)[1] in {401, 403, 412}
    works = [(await sign_in(server, "ada", body["password"])).status_code == 200 for body in bodies]
    assert works == [answer.status_code == 200 for answer in answers]


# Names


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("change", [{"email": "new@example.org"}, {"username": "countess"}], ids=["email", "username"])
async def test_a_new_name_needs_a_recent_sign_in_or_the_password(server: Server, ada, method, change):  # G16
    await grow_stale(server, ada)
    before = await stored(server)
    refused = await ada.call(method, "/api/users/me", json=change)
    assert await refusal(refused) == (403, "recent_sign_in_required")
    wrong = await ada.call(method, "/api/users/me", json={**change, "current_password": "wrong"})
    assert await refusal(wrong) == (403, "wrong_current_password")
    assert await stored(server) == before
    allowed = await ada.call(method, "/api/users/me", json={**change, "current_password": PASSWORD})
    assert (await user_of(allowed)).items() >= change.items()


async def test_a_stale_sign_in_still_changes_what_is_no_name(server: Server, ada):
    await grow_stale(server, ada)
    for body in ({"display_name": "Ada"}, {"attributes": {"a": 1}}, {"username": "ada", "email": ada.email}):
        assert (await ada.put("/api/users/me", json=body)).status_code == 200
    await ada.log_in()
    assert (await ada.put("/api/users/me", json={"username": "countess"})).status_code == 200


async def test_a_wrong_password_is_refused_though_the_sign_in_is_recent(ada):
    response = await ada.put("/api/users/me", json={"username": "countess", "current_password": "wrong"})
    assert await refusal(response) == (403, "wrong_current_password")


async def test_an_administrator_renames_others_with_a_stale_sign_in(server: Server, admin, ada):
    await grow_stale(server, admin)
    assert (await admin.put(f"/api/users/{ada.id}", json={"username": "countess"})).status_code == 200
    own = await admin.put(f"/api/users/{admin.id}", json={"username": "emperor"})
    assert await refusal(own) == (403, "recent_sign_in_required")


async def test_a_new_address_is_not_verified(server: Server, ada):  # G16
    await server.execute("UPDATE users SET email_verified_at = created_at")
    assert (await user_of(await ada.get("/api/users/me")))["email_verified"] is True
    for body, verified in (
        ({"display_name": "Ada"}, True),
        ({"email": "ADA@Example.com"}, True),  # the same address in another spelling
        ({"email": "ada@example.org"}, False),
    ):
        assert (await user_of(await ada.put("/api/users/me", json=body)))["email_verified"] is verified


async def test_a_rename_frees_the_old_name_and_takes_the_new_one(server: Server, ada):
    change = {"username": "Countess", "email": "countess@example.org"}
    assert (await ada.put("/api/users/me", json=change)).status_code == 200
    await assert_whole(server)
    for name, status in (("ada", 401), ("ada@example.com", 401), ("COUNTESS", 200), ("countess@example.org", 200)):
        assert (await sign_in(server, name, PASSWORD)).status_code == status
    old = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    assert (await server.nobody().post("/api/users", json={**old, "username": "countess"})).status_code == 409
    assert (await server.nobody().post("/api/users", json=old)).status_code == 201
    await assert_whole(server)


async def test_an_account_may_move_among_its_own_names(server: Server, ada):
    for change in (
        {"username": "ADA"},
        {"username": "ada@example.com"},
        {"email": "ada@example.org"},
        {"username": "ada@example.org", "email": "ada@example.com"},
        {"username": "ada@example.com", "email": "ada@example.org"},
        {"username": "ada@example.org", "email": "ada@example.org"},
        {"username": "ada", "email": "ada@example.com"},
    ):
        assert (await user_of(await ada.put("/api/users/me", json=change))).items() >= change.items()
        await assert_whole(server)
        for name in change.values():
            assert (await sign_in(server, name, PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "BOB"}, "username_taken"),
        ({"username": "bob@example.com"}, "username_taken"),
        ({"email": "Bob@example.com"}, "email_taken"),
        ({"email": "ada@example.org", "username": "bob", "display_name": "x"}, "username_taken"),
        ({"email": "bob@example.com", "username": "fresh"}, "email_taken"),
        ({"username": "gone"}, "username_taken"),
    ],
    ids=str,
)
async def test_nobody_takes_the_name_of_another(server: Server, admin, ada, bob, change, code):
    gone = await server.person("gone")
    await admin.delete(f"/api/users/{gone.id}")
    before = await stored(server)
    assert await refusal(await ada.put("/api/users/me", json=change)) == (409, code)
    assert await stored(server) == before


async def test_renames_that_cross_neither_deadlock_nor_lose_a_name(server: Server, ada, bob):
    async def rename(person: Person, name: str) -> int:
        return (await person.put("/api/users/me", json={"username": name})).status_code

    for _ in range(5):
        statuses = await asyncio.gather(rename(ada, "bob"), rename(bob, "ada"), rename(ada, "x"), rename(bob, "x"))
        assert set(statuses) <= {200, 409, 412}
        await assert_whole(server)
        assert {await rename(ada, "first"), await rename(bob, "second")} == {200}
        assert {await rename(ada, "ada"), await rename(bob, "bob")} == {200}


# Status and roles


async def test_a_disabled_account_is_signed_out_and_enabling_it_revives_nothing(server: Server, manager, ada):  # F09
    path = f"/api/users/{ada.id}"
    wrong = await (await sign_in(server, "ada", "wrong")).get_json()
    assert (await user_of(await manager.put(path, json={"status": "disabled"})))["status"] == "disabled"
    assert not await is_signed_in(ada)
    refused = await (await sign_in(server, "ada", PASSWORD)).get_json()
    assert {**refused, "request_id": 0} == {**wrong, "request_id": 0}

    assert (await user_of(await manager.put(path, json={"status": "active"})))["status"] == "active"
    assert not await is_signed_in(ada)
    await ada.log_in()
    assert await is_signed_in(ada)
    assert len(await server.events("user.disabled")) == len(await server.events("user.enabled")) == 1


@pytest.mark.parametrize("way", ["disabled", "deleted", "password"])
async def test_a_sign_in_at_the_same_instant_leaves_no_session_behind(server: Server, admin, ada, way):
    path = f"/api/users/{ada.id}"
    for number in range(8):
        end = {
            "disabled": lambda: admin.put(path, json={"status": "disabled"}),
            "deleted": lambda: admin.delete(path),
            "password": lambda number=number: admin.put(path, json={"password": f"{NEW_PASSWORD} {number}"}),
        }[way]
        first, ended, *others = await asyncio.gather(
            sign_in(server, "ada", ada.password), end(), *(sign_in(server, "ada", ada.password) for _ in range(3))
        )
        assert ended.status_code in (200, 204)
        if way == "disabled":
            assert (await admin.put(path, json={"status": "active"})).status_code == 200
        elif way == "deleted":
            assert (await admin.post(f"{path}/restore")).status_code == 200
        else:
            ada.password = f"{NEW_PASSWORD} {number}"
        for response in (first, *others):
            assert response.status_code in (200, 401)
            if response.status_code == 200:
                ada.keep(await response.get_json())
                assert not await is_signed_in(ada)
    live = "SELECT username FROM sessions JOIN users ON users.id = user_id WHERE revoked_at IS NULL"
    assert {row.username for row in await server.rows(live)} == {"root"}


async def test_who_disables_themselves_is_out(manager, admin):
    assert (await manager.put("/api/users/me", json={"status": "disabled"})).status_code == 200
    assert await refusal(await manager.put("/api/users/me", json={"status": "active"})) == (401, "session_ended")


async def test_roles_are_replaced_as_a_whole(server: Server, admin, ada):
    path = f"/api/users/{ada.id}"
    for roles, granted, revoked in ((["manager", "user"], 1, 0), (["manager"], 1, 1), ([], 1, 2), (["user"], 2, 2)):
        user = await user_of(await admin.put(path, json={"roles": roles}))
        assert user["roles"] == sorted(roles)
        assert len(await server.events("role.granted")) == granted
        assert len(await server.events("role.revoked")) == revoked
    assert user["version"] == 5


async def test_unknown_roles_are_named_by_their_place(server: Server, admin, ada):
    before = await stored(server)
    response = await admin.put(f"/api/users/{ada.id}", json={"roles": ["zzz", "user", "aaa", "zzz"]})
    assert await field_errors(response) == {
        ("/roles/0", "unknown_role"),
        ("/roles/2", "unknown_role"),
        ("/roles/3", "unknown_role"),
    }
    assert await stored(server) == before


async def test_nobody_reaches_beyond_their_rights(as_, server: Server):  # G02, G04
    before = await stored(server)
    table: tuple[tuple[str, str, dict[str, Any], str], ...] = (
        ("self", "self", {"status": "disabled"}, "field_not_permitted"),
        ("self", "self", {"status": "active"}, "field_not_permitted"),
        ("self", "self", {"roles": ["user"]}, "field_not_permitted"),
        ("self", "self", {"roles": []}, "field_not_permitted"),
        ("manager", "self", {"roles": ["user"]}, "field_not_permitted"),
        ("manager", "manager", {"roles": ["admin"]}, "field_not_permitted"),
        ("manager", "manager", {"roles": ["manager"]}, "field_not_permitted"),
        ("manager", "admin", {"display_name": "x"}, "exceeds_own_rights"),
        ("manager", "admin", {}, "exceeds_own_rights"),
        ("manager", "admin", {"status": "disabled"}, "exceeds_own_rights"),
        ("manager", "admin", {"status": "active"}, "exceeds_own_rights"),
        ("manager", "admin", {"password": NEW_PASSWORD}, "exceeds_own_rights"),
        ("manager", "admin", {"email": "mine@example.com"}, "exceeds_own_rights"),
        ("manager", "admin", {"username": "nobody"}, "exceeds_own_rights"),
        ("manager", "admin", {"attributes": {"a": 1}}, "exceeds_own_rights"),
        ("manager", "admin", {"roles": []}, "field_not_permitted"),
    )
    for caller, target, body, code in table:
        for method in ("PUT", "PATCH"):
            response = await as_(caller).call(method, f"/api/users/{as_(target).id}", json=body)
            assert await refusal(response) == (403, code), (caller, target, body)
    assert await stored(server) == before
    denied = await server.events("access.denied")
    assert len(denied) == 2 * len(table)
    assert {event.details["code"] for event in denied} == {"field_not_permitted", "exceeds_own_rights"}


# Versions


async def test_if_match_names_the_version_that_is_meant(server: Server, ada):  # L02
    before = await stored(server)
    for header, expected in (
        ('W/"1"', (412, "user_changed")),
        ('"2"', (412, "user_changed")),
        ('W/"1", "7"', (412, "user_changed")),
        ('""', (412, "user_changed")),
        ("1", (400, "invalid_header")),
        ('"1', (400, "invalid_header")),
        ("", (400, "invalid_header")),
        ('"1" "2"', (400, "invalid_header")),
        ("*, *", (400, "invalid_header")),
        ("(" * 5000, (400, "invalid_header")),
        ('"' * 5001, (400, "invalid_header")),
    ):
        for method, body in (("PUT", {"json": {"display_name": "x"}}), ("PATCH", {"json": {}}), ("DELETE", {})):
            response = await ada.call(method, "/api/users/me", headers={"If-Match": header}, **body)
            assert await refusal(response) == expected, (method, header)
    assert await stored(server) == before


async def test_if_match_lets_the_version_pass_that_it_names(ada):  # L02
    version = 1
    for header in (None, '"{}"', "*", '"0", "{}"', '"{}","99"'):
        for method in ("PUT", "PATCH"):
            headers = {} if header is None else {"If-Match": header.format(version)}
            body = {"display_name": f"{method} {version}"}
            response = await ada.call(method, "/api/users/me", json=body, headers=headers)
            version += 1
            assert (await user_of(response))["version"] == version
    assert (await ada.delete("/api/users/me", headers={"If-Match": f'"{version}"'})).status_code == 204


async def test_of_two_changes_to_one_version_one_succeeds(server: Server, ada):  # L02
    other = await ada.elsewhere()
    for version in range(1, 11):
        barrier = asyncio.Barrier(2)

        async def change(person: Person, name: str, version: int = version, barrier: Any = barrier) -> Response:
            await barrier.wait()
            headers = {"If-Match": f'"{version}"'}
            return await person.put("/api/users/me", json={"display_name": f"{name}{version}"}, headers=headers)

        answers = await asyncio.gather(change(ada, "a"), change(other, "b"))
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert await user_of(await ada.get("/api/users/me")) == await user_of(winner)


async def test_changes_of_different_fields_at_once_lose_nothing(server: Server, ada):  # L03
    other = await ada.elsewhere()
    for number in range(50):
        bodies = {"display_name": f"Ada {number}"}, {"email": f"ada{number}@example.org"}
        answers = await asyncio.gather(
            *(p.put("/api/users/me", json=b) for p, b in zip((ada, other), bodies, strict=True))
        )
        assert [answer.status_code for answer in answers] == [200, 200]
        user = await user_of(await ada.get("/api/users/me"))
        assert user.items() >= {**bodies[0], **bodies[1], "version": 1 + 2 * (number + 1)}.items()
    await assert_whole(server)


async def test_merge_patches_at_once_lose_nothing(server: Server, ada):  # L03
    names = [f"n{number}" for number in range(20)]
    answers = await asyncio.gather(*(ada.patch("/api/users/me", json={"attributes": {n: n}}) for n in names))
    assert {answer.status_code for answer in answers} == {200}
    assert (await user_of(await ada.get("/api/users/me")))["attributes"] == {name: name for name in names}


async def test_a_change_does_not_bring_a_deleted_account_back(server: Server, admin):  # L03
    for number in range(20):
        person = await server.person(f"person{number}")
        path = f"/api/users/{person.id}"
        changed, gone = await asyncio.gather(
            person.put("/api/users/me", json={"email": f"new{number}@example.org", "display_name": "x"}),
            admin.delete(path),
        )
        assert gone.status_code == 204
        assert changed.status_code in (200, 401, 404)
        assert await refusal(await admin.get(path)) == (404, "user_not_found")
        assert await refusal(await person.get("/api/users/me")) == (401, "session_ended")
    await assert_whole(server)
