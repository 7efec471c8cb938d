"""`usermgmt seed`: many accounts that are like those that registering makes."""

import asyncio
import json
import os
import subprocess
from typing import Any

import pytest

from tests.conftest import settings_for
from tests.operator.conftest import PASSWORD, PROGRAM, CommandLine
from tests.operator.test_command_line import typed
from tests.operator.test_user_commands import events, sign_in
from usermgmt.errors import DatabaseUnavailable
from usermgmt.operator import seeding
from usermgmt.runtime import build_runtime


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "BATCH", 10)


def names(line: CommandLine) -> list[str]:
    return [user["username"] for user in line.documents("users", "list", "--all", "--sort", "created_at")]


def test_the_accounts_are_there_and_can_sign_in(line: CommandLine, database_url: str) -> None:
    made = line.document("seed", "--users", "3")
    assert (made["made"], made["first"], made["last"]) == (3, "user1", "user3")
    assert names(line) == ["user1", "user2", "user3"]
    assert sign_in(database_url, "user2", made["password"]) == 200
    assert sign_in(database_url, "USER3@example.com", made["password"]) == 200


def test_the_password_can_be_given(line: CommandLine, database_url: str) -> None:
    made = line.document("seed", "--users", "1", "--prefix", "load-", "--password-stdin", given=PASSWORD)
    assert (made["first"], made["password"]) == ("load-1", None)
    assert sign_in(database_url, "load-1", PASSWORD) == 200


def test_a_generated_password_is_told_once(line: CommandLine, database_url: str) -> None:
    result = line.run("seed", "--users", "1")
    password = result.stderr.rpartition(" ")[2].strip()
    assert password not in result.stdout
    assert sign_in(database_url, "user1", password) == 200


def test_a_seeded_account_is_like_a_registered_one(line: CommandLine, database_url: str) -> None:
    line.done("seed", "--users", "1", "--password-stdin", given=PASSWORD)
    line.create("user2")
    seeded, registered = rows(database_url)
    differing = {column for column in seeded if seeded[column] != registered[column]}
    assert differing <= {
        *("id", "username", "username_key", "email", "email_key", "password_hash"),
        *("created_at", "updated_at", "password_changed_at", "name", "user_id", "granted_at"),
    }
    assert {column: type(seeded[column]) for column in seeded} == {
        column: type(registered[column]) for column in registered
    }
    for command in (["users", "disable"], ["users", "enable"], ["roles", "grant"]):
        line.done(*command, "user1", *["manager"] * (command[1] == "grant"))
    assert line.document("users", "show", "user1@example.com")["roles"] == ["manager", "user"]


def rows(database_url: str) -> list[dict[str, Any]]:
    """Everything that the database itself has of user1 and of user2."""

    async def read() -> list[dict[str, Any]]:
        runtime = build_runtime(settings_for(database_url))
        try:
            async with runtime.database.begin() as session:
                connection = await session.connection()
                found = await connection.exec_driver_sql(
                    "SELECT u.*, n.name, n.kind, n.user_id, g.role, g.scope, g.granted_by, g.granted_at FROM users u"
                    " JOIN login_names n ON n.user_id = u.id AND n.kind = 'email'"
                    " JOIN role_grants g ON g.user_id = u.id ORDER BY u.username"
                )
                return [dict(row) for row in found.mappings()]
        finally:
            await runtime.close()

    return asyncio.run(read())


@pytest.mark.usefixtures("_small_batches")
def test_numbering_continues_and_leaves_out_what_is_taken(line: CommandLine) -> None:
    line.done("seed", "--users", "5")
    line.create("user7")
    line.create("someone")
    line.done("users", "create", "user12@example.com", "elsewhere@example.com", "--password-stdin", given=PASSWORD)
    made = line.document("seed", "--users", "25")
    assert (made["made"], made["first"], made["last"]) == (25, "user6", "user32")
    expected = {f"user{number}" for number in range(1, 33)} - {"user12"}
    assert {name for name in names(line) if name.startswith("user") and "@" not in name} == expected


@pytest.mark.usefixtures("_small_batches")
def test_a_batch_that_is_all_taken_is_left_out(line: CommandLine) -> None:
    for number in range(2, 12):
        line.create(f"user{number}")
    made = line.document("seed", "--users", "3")
    assert (made["made"], made["first"], made["last"]) == (3, "user1", "user13")


@pytest.mark.usefixtures("_small_batches")
def test_each_batch_is_on_record(line: CommandLine, database_url: str) -> None:
    line.done("seed", "--users", "25")
    recorded = [event for event in events(database_url) if event.event == "users.seeded"]
    assert [event.details["count"] for event in recorded] == [10, 10, 5]
    assert recorded[0].target_id == "user1..user10"
    assert {event.actor_name for event in recorded} == {"operator"}


@pytest.mark.usefixtures("_small_batches")
def test_a_batch_is_whole_or_not_at_all(line: CommandLine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def fail_in_the_second_batch(*arguments: Any) -> Any:
        batches.append(arguments)
        if len(batches) == 2:
            raise DatabaseUnavailable
        return users_of(*arguments)

    users_of = seeding._users
    monkeypatch.setattr(seeding, "_users", fail_in_the_second_batch)
    line.refused(69, "seed", "--users", "25")
    assert names(line) == [f"user{number}" for number in range(1, 11)]
    assert len([event for event in events(database_url) if event.event == "users.seeded"]) == 1
    assert line.document("seed", "--users", "1")["first"] == "user11"


@pytest.mark.parametrize("prefix", ["", "Upper", "1st", "with space", "ends-in-9", "ä", "a" * 40, "a/b", "x@y"])
def test_a_prefix_is_plain(line: CommandLine, prefix: str) -> None:
    explanation = line.refused(1, "seed", "--users", "1", "--prefix", prefix, "--json")
    assert json.loads(explanation)["error"]["reasons"][0]["where"] == "prefix"


def test_a_poor_password_is_refused(line: CommandLine) -> None:
    line.refused(1, "seed", "--users", "1", "--password-stdin", given="password")
    assert names(line) == []


def test_progress_is_shown_at_a_terminal_only(line: CommandLine) -> None:
    _, seen = typed([PROGRAM, "seed", "--users", "2"], line.environ, [])
    assert "100%" in seen
    piped = subprocess.run(
        [PROGRAM, "seed", "--users", "2"],
        env={**os.environ, **line.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "%" not in piped.stdout + piped.stderr
