"""`usermgmt users`, `usermgmt admin` and `usermgmt roles`: through the use cases, with the operator on the record."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import select

from tests.conftest import settings_for
from tests.operator.conftest import PASSWORD, CommandLine
from tests.people import Person, Server
from usermgmt.audit.models import AuditEvent
from usermgmt.runtime import build_runtime

ANOTHER = "quite another horse and staple"


def events(database_url: str) -> list[AuditEvent]:
    """What is on record, oldest first."""

    async def read() -> list[AuditEvent]:
        runtime = build_runtime(settings_for(database_url))
        try:
            async with runtime.database.read() as session:
                return list((await session.scalars(select(AuditEvent).order_by(AuditEvent.at, AuditEvent.id))).all())
        finally:
            await runtime.close()

    return asyncio.run(read())


def sign_in(database_url: str, name: str, password: str = PASSWORD) -> int:
    """The status of a sign-in."""

    async def call() -> int:
        async with Server(settings_for(database_url)).running() as server:
            body = {"username": name, "password": password}
            return (await Person(server).post("/api/auth/login", json=body)).status_code

    return asyncio.run(call())


@pytest.fixture
def ada(line: CommandLine) -> Any:
    """An account."""
    return line.create("ada", "--display-name", "Ada L.")


def test_an_account_is_made_and_can_sign_in(line: CommandLine, database_url: str, ada: Any) -> None:
    assert (ada["username"], ada["display_name"], ada["roles"]) == ("ada", "Ada L.", ["user"])
    assert sign_in(database_url, "ada") == 200
    assert sign_in(database_url, "ada", ANOTHER) == 401


def test_an_account_is_made_with_roles(line: CommandLine) -> None:
    assert line.create("mia", "--role", "user", "--role", "manager")["roles"] == ["manager", "user"]


def test_what_is_done_is_on_the_operators_record(line: CommandLine, database_url: str, ada: Any) -> None:
    line.done("users", "disable", "ada")
    line.done("users", "enable", "ada")
    line.done("roles", "grant", "ada", "manager")
    line.done("roles", "revoke", "ada", "manager")
    line.done("admin", "reset-password", "ada", "--password-stdin", given=ANOTHER)
    recorded = [event for event in events(database_url) if event.target_id == ada["id"]]
    assert [event.event for event in recorded] == [
        "user.created",
        "user.disabled",
        "user.enabled",
        "role.granted",
        "role.revoked",
        "user.password_changed",
    ]
    assert {event.actor_name for event in recorded} == {"operator"}


def test_every_field_that_is_wrong_is_told_on_a_line_of_its_own(line: CommandLine) -> None:
    words = ["users", "create", "a/b", "no-address", "--display-name", "x" * 101, "--password-stdin"]
    explanation = line.refused(1, *words, given="short")
    for field in ("username", "email", "display_name", "password"):
        assert explanation.count(f"\n  {field}: ") == 1
    document = json.loads(line.refused(1, *words, "--json", given="short"))
    assert document["error"]["code"] == "validation_failed"
    assert [reason["where"] for reason in document["error"]["reasons"]] == [
        "username",
        "email",
        "display_name",
        "password",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["users", "create", "ada", "other@example.com"], "username_taken"),
        (["users", "create", "other", "ada@example.com"], "email_taken"),
        (["users", "create", "other", "other@example.com", "--role", "nope"], "validation_failed"),
        (["users", "show", "nobody"], "user_not_found"),
        (["users", "show", "nobody@example.com"], "user_not_found"),
        (["users", "show", "018f0000-0000-7000-8000-000000000000"], "user_not_found"),
        (["users", "disable", "nobody"], "user_not_found"),
        (["roles", "show", "nope"], "role_not_found"),
        (["roles", "grant", "ada", "nope"], "role_not_found"),
        (["roles", "grant", "nobody", "user"], "user_not_found"),
        (["roles", "revoke", "ada", "nope"], "role_not_found"),
        (["admin", "reset-password", "nobody"], "user_not_found"),
        (["users", "list", "--created-after", "yesterday"], "validation_failed"),
        (["users", "show", "\udcff"], "validation_failed"),
        (["users", "list", "--q", "\udcff"], "validation_failed"),
        (["roles", "grant", "ada", "\udcff"], "validation_failed"),
        (["users", "create", "other", "other@example.com", "--display-name", "\udcff"], "validation_failed"),
    ],
)
def test_what_is_refused_says_why(line: CommandLine, ada: Any, words: list[str], code: str) -> None:
    needs_password = words[1] in ("create", "reset-password")
    line.refused(1, *words, *["--password-stdin"] * needs_password, given=PASSWORD)
    document = json.loads(line.refused(1, *words, *["--password-stdin"] * needs_password, "--json", given=PASSWORD))
    assert document["error"]["code"] == code


def test_an_account_is_named_in_three_ways(line: CommandLine, ada: Any) -> None:
    for name in ("ada", "ADA", "ada@example.com", "Ada@EXAMPLE.com", ada["id"], ada["id"].upper()):
        assert line.document("users", "show", name)["id"] == ada["id"]
    assert "ada@example.com" in line.done("users", "show", "ada")


def test_disabling_and_enabling(line: CommandLine, database_url: str, ada: Any) -> None:
    assert line.document("users", "disable", "ada")["status"] == "disabled"
    assert sign_in(database_url, "ada") == 401
    assert "already" in line.done("users", "disable", "ada")
    assert line.document("users", "enable", ada["id"])["status"] == "active"
    assert sign_in(database_url, "ada") == 200


def test_the_list_takes_the_filters_of_the_api(line: CommandLine, ada: Any) -> None:
    line.create("adam", "--role", "manager")
    line.create("bob")
    line.done("users", "disable", "bob")

    def names(*options: str) -> list[str]:
        return [user["username"] for user in line.documents("users", "list", *options)]

    assert names() == ["ada", "adam", "bob"]
    assert names("--q", "ad") == ["ada", "adam"]
    assert names("--status", "disabled") == ["bob"]
    assert names("--role", "manager") == ["adam"]
    assert names("--sort", "-username") == ["bob", "adam", "ada"]
    assert names("--limit", "2") == ["ada", "adam"]
    assert names("--email", "BOB@example.com") == ["bob"]
    assert names("--username", "nobody at all") == []
    assert names("--created-before", "2020-01-01T00:00:00Z") == []
    assert names("--q", "ad", "--role", "user") == ["ada"]


def test_the_list_goes_on_over_pages(line: CommandLine) -> None:
    line.done("seed", "--users", "230")
    rows = line.documents("users", "list", "--all")
    assert len({row["id"] for row in rows}) == 230
    assert len(line.documents("users", "list")) == 50
    assert len(line.documents("users", "list", "--limit", "101")) == 101
    table = line.run("users", "list", "--limit", "150")
    assert len(table.stdout.splitlines()) == 151
    assert "--all" in table.stderr
    assert "--all" not in line.run("users", "list", "--limit", "230").stderr


def test_the_table_is_aligned_and_cannot_steer_the_terminal(line: CommandLine, ada: Any) -> None:
    header, row = line.done("users", "list").splitlines()
    assert header.index("EMAIL") == row.index("ada@example.com")
    line.create("eve", "--display-name", "\u202eevil\u2066")
    assert "\u202e" not in line.done("users", "show", "eve")


def test_roles_are_given_and_taken(line: CommandLine, ada: Any) -> None:
    assert line.document("roles", "grant", "ada", "manager")["roles"] == ["manager", "user"]
    assert line.document("roles", "grant", "ada", "manager")["roles"] == ["manager", "user"]
    assert line.document("roles", "show", "manager")["holders"] == 1
    assert line.document("roles", "revoke", "ada", "manager")["roles"] == ["user"]
    assert "users:read" in line.done("roles", "show", "manager")


def test_an_administrator_is_made(line: CommandLine, database_url: str) -> None:
    made = line.document("admin", "create", "root", "root@example.com", "--password-stdin", given=PASSWORD + "\n")
    assert made["roles"] == ["admin"]
    assert sign_in(database_url, "root") == 200


@pytest.mark.parametrize("words", [["users", "disable", "root"], ["roles", "revoke", "root", "admin"]])
def test_the_last_administrator_stays(line: CommandLine, words: list[str]) -> None:
    line.done("admin", "create", "root", "root@example.com", "--password-stdin", given=PASSWORD)
    assert json.loads(line.refused(1, *words, "--json"))["error"]["code"] == "last_admin"


def test_the_way_back_in(line: CommandLine, database_url: str, ada: Any) -> None:
    line.done("users", "disable", "ada")
    words = ["admin", "reset-password", "ada", "--password-stdin"]
    assert "password" in line.refused(1, *words, given="ada@example.com")
    after = line.document(*words, given=ANOTHER)
    assert (after["status"], after["roles"]) == ("active", ["user"])
    assert sign_in(database_url, "ada", ANOTHER) == 200
    assert sign_in(database_url, "ada", PASSWORD) == 401
    assert line.document(*words, "--grant-admin", given=PASSWORD)["roles"] == ["admin", "user"]


def test_a_new_password_ends_the_sessions(line: CommandLine, database_url: str, ada: Any) -> None:
    async def call() -> list[int]:
        async with Server(settings_for(database_url)).running() as server:
            person = Person(server, username="ada", password=PASSWORD)
            await person.log_in()
            before = (await person.get("/api/users/me")).status_code
            words = ["admin", "reset-password", "ada", "--password-stdin"]
            await asyncio.to_thread(line.done, *words, given=ANOTHER)
            return [before, (await person.get("/api/users/me")).status_code]

    assert asyncio.run(call()) == [200, 401]
