import asyncio
import re
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.people import PASSWORD, Server
from tests.users.accounts import (
    RESERVED_FIELDS,
    SEED,
    UNKNOWN_FIELDS,
    assert_whole,
    field_errors,
    refusal,
    stored,
    user_of,
)

OPEN: dict[str, Any] = {"registration.mode": "open"}
CLOSED: dict[str, Any] = {"registration.mode": "closed"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def account(name: str, **more: Any) -> dict[str, Any]:
    return {"username": name, "email": f"{name}@example.org", "password": PASSWORD, **more}


async def test_anybody_registers_and_gets_the_whole_account(server: Server):
    response = await server.nobody().post("/api/users", json=SEED)

    user = await user_of(response, 201)
    assert response.headers["Location"] == f"/api/users/{user['id']}"
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert TIME.fullmatch(user["created_at"])
    assert user == {
        "id": user["id"],
        "username": "newuser",
        "email": "user@example.com",
        "display_name": None,
        "status": "active",
        "roles": ["user"],
        "groups": [],
        "attributes": {},
        "email_verified": False,
        "created_at": user["created_at"],
        "updated_at": user["created_at"],
        "last_login_at": None,
        "version": 1,
    }
    (event,) = await server.events("user.created")
    assert (str(event.target_id), event.actor_id, event.outcome) == (user["id"], None, "success")
    await assert_whole(server)


async def test_a_new_account_keeps_its_name_and_attributes_as_sent(server: Server):
    more = {"display_name": "Ada  Lovelace \u202e🦊", "attributes": {"team": {"n": [1, None, "é"]}, "": 1.5}}
    user = await user_of(await server.nobody().post("/api/users", json=account("Ada", **more)), 201)
    assert {"username": user["username"], **{name: user[name] for name in more}} == {"username": "Ada", **more}


async def test_all_invalid_fields_are_told_at_once(server: Server):
    body = {
        "username": "a b",
        "email": "nowhere",
        "password": "short",
        "display_name": "",
        "attributes": [],
        "status": "asleep",
        "roles": ["user", "A b"],
        "nick/name": 1,
    }
    before = await stored(server)
    assert await field_errors(await server.nobody().post("/api/users", json=body)) == {
        ("/username", "invalid_username"),
        ("/email", "invalid_email"),
        ("/password", "password_too_short"),
        ("/display_name", "invalid_display_name"),
        ("/attributes", "wrong_type"),
        ("/status", "not_an_option"),
        ("/roles/1", "invalid_format"),
        ("/nick~1name", "unknown_field"),
    }
    assert await stored(server) == before


async def test_what_is_no_address_is_refused(server: Server):  # H14, H17
    before = await stored(server)
    for address in (
        *("", "x", "@", "a@", "@b.example", "a@b", "a@@b.example", "a@b@c.example", '"a b"@b.example', "a b@b.example"),
        *(
            "a@b.example.",
            "a@b..example",
            ".a@b.example",
            "a.@b.example",
            "a@-b.example",
            "a@[127.0.0.1]",
            "a@b_c.example",
        ),
        *("a@b.example\r\nBcc: c@d.example", "a@b.example\n", " a@b.example", "a@b.example ", "Ada <a@b.example>"),
        *("a@b.example\u200b", "a\u202eb@c.example", "a@\ufeffb.example", "a@b.example,c@d.example", "a@xn--.example"),
        *(
            "@" * 10_000,
            "a" * 50_000 + "!",
            "(" * 10_000 + "@b.example",
            "a" * 50_000 + "@b.example",
        ),
    ):
        started = time.process_time()
        response = await server.nobody().post("/api/users", json=account("fresh", email=address))
        assert await field_errors(response) == {("/email", "invalid_email")}, address[:80]
        assert time.process_time() - started < 5.0  # of a whole process, its garbage collection too
    assert await stored(server) == before


async def test_what_is_no_username_is_refused(server: Server):  # H15, H17
    before = await stored(server)
    for name in (
        *("", " ", "a b", " a", "a ", "a/b", "a\u202eb", "a\ufeffb", "a\u200bb", "a\r\nb", "a\n", "a\x1b[31m", "a\tb"),
        *("аdа", "pаypal", "a\u00adb", "🦊", "a\U000e0001b", "\ue000", "\U0010ffff", "x" * 65),
        *("a" * 50_000 + "!", "(" * 10_000, "@" * 10_000, "\u0301" * 5_000, "ﷺ" * 64),
    ):
        started = time.process_time()
        response = await server.nobody().post("/api/users", json=account("fresh", username=name))
        assert await field_errors(response) == {("/username", "invalid_username")}, name[:80]
        assert time.process_time() - started < 5.0  # of a whole process, its garbage collection too
    assert await stored(server) == before


async def test_a_name_an_address_and_a_password_are_required(server: Server):
    required = {(f"/{name}", "required") for name in ("username", "email", "password")}
    assert await field_errors(await server.nobody().post("/api/users", json={})) == required
    nothing = dict.fromkeys(("username", "email", "password"))
    wrong = {(f"/{name}", "wrong_type") for name in nothing}
    assert await field_errors(await server.nobody().post("/api/users", json=nothing)) == wrong


async def test_each_text_has_a_longest_form(server: Server):  # H16, alike on both databases
    for number, (field, value, status) in enumerate(
        (
            ("username", "x" * 64, 201),
            ("username", "x" * 65, 422),
            ("username", "İ" * 64, 201),
            ("username", "㍿" * 64, 422),  # its key is four times as long
            ("email", f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com", 201),
            ("email", f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 58}.com", 422),
            ("email", f"{'ﷺ' * 20}@example.com", 422),  # its key is eighteen times as long
            ("display_name", "x" * 100, 201),
            ("display_name", "x" * 101, 422),
            ("display_name", "ﷺ" * 100, 201),
            ("display_name", "🦊" * 100, 201),
            ("attributes", {"a": "x" * (8192 - 9)}, 201),
            ("attributes", {"a": "x" * (8192 - 8)}, 422),
            ("password", "x" * 1024, 201),
            ("password", "x" * 1025, 422),
        )
    ):
        response = await server.nobody().post("/api/users", json=account(f"longest{number}", **{field: value}))
        assert response.status_code == status, (field, value, await response.get_json())
    await assert_whole(server)


async def test_a_name_is_taken_however_it_is_spelt(server: Server, ada):  # B05
    for taken in (
        account("zoë", email="zoe@example.org"),
        account("straße", email="jo@xn--bcher-kva.example"),
        account("eve@example.net", email="eve@example.org"),
    ):
        assert (await server.nobody().post("/api/users", json=taken)).status_code == 201
    before = await stored(server)
    for field, value in (
        ("username", "ada"),
        ("username", "ADA"),
        ("username", "Ａｄａ"),
        ("username", "zoe\u0308"),
        ("username", "STRASSE"),
        ("username", "ada@example.com"),  # somebody's address
        ("username", "ADA@Example.COM"),
        ("email", "ada@example.com"),
        ("email", "Ada@EXAMPLE.com"),
        ("email", "ａｄａ@example.com"),
        ("email", "ada@ｅｘａｍｐｌｅ.com"),
        ("email", "jo@bücher.example"),
        ("email", "JO@BÜCHER.example"),
        ("email", "jo@xn--bcher-kva.example"),
        ("email", "eve@example.net"),  # somebody's username
    ):
        response = await server.nobody().post("/api/users", json=account("fresh", **{field: value}))
        assert await refusal(response) == (409, f"{field}_taken"), value
    both = await server.nobody().post("/api/users", json=account("ada", email="eve@example.net"))
    assert await refusal(both) == (409, "username_taken")
    assert await stored(server) == before


async def test_an_international_domain_is_one_address_in_both_spellings(server: Server):  # H14
    first = await server.nobody().post("/api/users", json=account("jo", email="jo@bücher.example"))
    assert (await user_of(first, 201))["email"] == "jo@bücher.example"
    again = await server.nobody().post("/api/users", json=account("jo2", email="jo@xn--bcher-kva.example"))
    assert await refusal(again) == (409, "email_taken")


async def test_a_username_may_be_the_accounts_own_address(server: Server):
    address = "Eve@example.net"
    made = await server.nobody().post("/api/users", json=account(address, email=address))
    assert made.status_code == 201
    for name in ("username", "email"):
        response = await server.nobody().post("/api/auth/login", json={name: address, "password": PASSWORD})
        assert response.status_code == 200
    await assert_whole(server)


@pytest.mark.parametrize(
    ("flags", "caller", "expected"),
    [
        (OPEN, "nobody", 201),
        (OPEN, "self", 201),
        (OPEN, "manager", 201),
        (OPEN, "admin", 201),
        (CLOSED, "nobody", (401, "missing_credentials")),
        (CLOSED, "self", (403, "permission_missing")),
        (CLOSED, "manager", 201),
        (CLOSED, "admin", 201),
    ],
    ids=lambda value: value.get("registration.mode") if isinstance(value, dict) else None,
)
async def test_who_may_register_an_account(as_, server: Server, caller, expected):
    response = await as_(caller).post("/api/users", json=SEED)
    assert (response.status_code if expected == 201 else await refusal(response)) == expected
    assert len(await server.rows("SELECT 1 FROM users WHERE username_key = 'newuser'")) == (expected == 201)


async def test_a_bad_token_is_refused_even_where_none_is_needed(server: Server, ada):
    ada.access_token += "x"
    assert await refusal(await ada.post("/api/users", json=SEED)) == (401, "invalid_token")


@pytest.mark.parametrize("flags", [CLOSED], ids=["closed"])
async def test_a_closed_registration_tells_nobody_what_is_wrong_with_a_body(server: Server, ada):  # G09
    for caller, status in ((server.nobody(), 401), (ada, 403)):
        for options in ({"json": {"username": 1}}, {"data": b"{"}, {"data": b"x", "headers": {"Content-Type": "a/b"}}):
            assert (await caller.post("/api/users", **options)).status_code == status


async def test_who_may_give_a_new_account_a_status_and_roles(as_, server: Server):  # G04
    not_permitted, exceeds, invalid = (
        (403, "field_not_permitted"),
        (403, "exceeds_own_rights"),
        (422, "validation_failed"),
    )
    for number, (caller, more, expected) in enumerate(
        (
            ("nobody", {"status": "active"}, not_permitted),
            ("nobody", {"status": "disabled"}, not_permitted),
            ("nobody", {"roles": ["user"]}, not_permitted),
            ("nobody", {"roles": []}, not_permitted),
            ("nobody", {"roles": ["admin"]}, not_permitted),
            ("nobody", {"roles": None, "status": None}, (["user"], "active")),
            ("self", {"status": "active"}, not_permitted),
            ("self", {"roles": ["user"]}, not_permitted),
            ("manager", {"status": "disabled"}, (["user"], "disabled")),
            ("manager", {"roles": ["user"]}, (["user"], "active")),
            ("manager", {"roles": ["manager", "user", "user"]}, (["manager", "user"], "active")),
            ("manager", {"roles": ["admin"]}, exceeds),
            ("manager", {"roles": ["user", "admin"]}, exceeds),
            ("manager", {"roles": ["nosuch"]}, invalid),
            ("admin", {"roles": ["admin"]}, (["admin"], "active")),
            ("admin", {"roles": ["user", "nosuch"]}, invalid),
        )
    ):
        before = await stored(server)
        response = await as_(caller).post("/api/users", json=account(f"fresh{number}", **more))
        if isinstance(expected[0], int):
            assert await refusal(response) == expected, (caller, more)
            assert await stored(server) == before
        else:
            user = await user_of(response, 201)
            assert (user["roles"], user["status"]) == expected, (caller, more)
    await assert_whole(server)


async def test_an_unknown_role_is_named_by_its_place(server: Server, admin):
    response = await admin.post("/api/users", json=account("fresh", roles=["user", "zzz", "aaa"]))
    assert await field_errors(response) == {("/roles/1", "unknown_role"), ("/roles/2", "unknown_role")}


async def test_an_account_made_disabled_cannot_sign_in(server: Server, manager):
    assert (await manager.post("/api/users", json=account("off", status="disabled"))).status_code == 201
    response = await server.nobody().post("/api/auth/login", json={"username": "off", "password": PASSWORD})
    assert await refusal(response) == (401, "invalid_credentials")


async def test_no_field_of_the_servers_own_can_be_registered(server: Server):  # G04
    before = await stored(server)
    for name, value in UNKNOWN_FIELDS.items():
        response = await server.nobody().post("/api/users", json=account("fresh", **{name: value}))
        assert await field_errors(response) == {(f"/{name}", "unknown_field")}
    for name, value in RESERVED_FIELDS.items():
        response = await server.nobody().post("/api/users", json=account("fresh", **{name: value}))
        assert await refusal(response) == (403, "field_not_permitted")
    assert await stored(server) == before


async def test_the_names_of_a_deleted_account_stay_reserved(server: Server, admin, ada):
    assert (await admin.delete(f"/api/users/{ada.id}")).status_code == 204
    by_name = await server.nobody().post("/api/users", json=account("ADA"))
    by_address = await server.nobody().post("/api/users", json=account("other", email=ada.email))
    assert await refusal(by_name) == (409, "username_taken")
    assert await refusal(by_address) == (409, "email_taken")
    assert (await admin.post(f"/api/users/{ada.id}/restore")).status_code == 200
    await ada.log_in()


@pytest.fixture
async def broken_users(server: Server) -> AsyncIterator[None]:
    """A database that refuses every new account, for as long as the test lasts."""
    if server.runtime.database.is_sqlite:
        await server.execute("CREATE TRIGGER broken BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'boom'); END")
        yield
        return
    raising = "$$ BEGIN RAISE EXCEPTION 'boom'; END $$"
    await server.execute(f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS {raising}")
    await server.execute("CREATE TRIGGER broken BEFORE INSERT ON users EXECUTE FUNCTION broken()")
    yield
    await server.execute("DROP FUNCTION broken() CASCADE")


async def test_a_fault_of_the_database_leaves_nothing_and_tells_no_secret(server: Server, broken_users):  # K02, M10
    before = await stored(server)
    with capture_logs() as logs:
        response = await server.nobody().post("/api/users", json=SEED)
    assert await refusal(response) == (500, "internal_error")
    assert await stored(server) == before
    (fault,) = [entry["exc_info"] for entry in logs if entry["event"] == "request_failed"]
    told = "".join(traceback.format_exception(fault))
    assert "boom" in told
    assert SEED["password"] not in told
    assert SEED["email"] not in told
    assert "um1$" not in told


# L01


async def at_once(server: Server, bodies: list[dict[str, Any]]) -> Counter[tuple[int, str | None]]:
    """Register all of them at the same instant; how often each answer was given."""
    barrier = asyncio.Barrier(len(bodies))

    async def register(body: dict[str, Any]) -> tuple[int, str | None]:
        await barrier.wait()
        response = await server.nobody().post("/api/users", json=body)
        return response.status_code, (await response.get_json()).get("code")

    return Counter(await asyncio.gather(*(register(body) for body in bodies)))


async def test_of_fifty_registrations_of_a_username_one_succeeds(server: Server):
    spellings = ["grace", "GRACE", "Grace", "ｇｒａｃｅ", "gRACE"]
    bodies = [account(spellings[n % 5], email=f"grace{n}@example.org") for n in range(50)]
    assert await at_once(server, bodies) == {(201, None): 1, (409, "username_taken"): 49}
    await assert_whole(server)
    assert len(await server.rows("SELECT 1 FROM users")) == 1


async def test_of_fifty_registrations_of_an_address_one_succeeds(server: Server):
    spellings = ["grace@bücher.example", "GRACE@xn--bcher-kva.example", "Grace@BÜCHER.example", "ｇrace@bücher.example"]
    bodies = [account(f"grace{n}", email=spellings[n % 4]) for n in range(50)]
    assert await at_once(server, bodies) == {(201, None): 1, (409, "email_taken"): 49}
    await assert_whole(server)
    assert len(await server.rows("SELECT 1 FROM users")) == 1


async def test_crossing_registrations_neither_deadlock_nor_half_succeed(server: Server):
    for number in range(20):
        one, two = f"a{number}@example.org", f"b{number}@example.org"
        crossing = [account(one, email=two), account(two, email=one)] * 3
        answers = await at_once(server, crossing)
        assert answers.pop((201, None)) == 1
        assert answers.keys() <= {(409, "username_taken"), (409, "email_taken")}
    await assert_whole(server)
    assert len(await server.rows("SELECT 1 FROM users")) == 20
