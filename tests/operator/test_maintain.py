"""`usermgmt maintain`, and what a deployment does by itself."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import SECRET, settings_for
from tests.operator.conftest import CommandLine
from tests.people import Server
from usermgmt.operator import maintain_command

NAMES = [
    "signing_keys",
    "sessions",
    "idempotency_keys",
    "throttles",
    "erasures",
    "audit_seals",
    "audit_retention",
]


def executed(database_url: str, statement: str, **values: object) -> None:
    """Change the database of a server that ran once."""

    async def change() -> None:
        server = Server(settings_for(database_url))
        async with server.running():
            await server.execute(statement, **values)

    asyncio.run(change())


@pytest.mark.usefixtures("database_url")
def test_every_chore_is_done_once_and_told(line: CommandLine) -> None:
    line.create("ada")
    rows = line.documents("maintain")
    assert [row["chore"] for row in rows] == NAMES
    assert {row["state"] for row in rows} == {"done"}
    assert all(row["seconds"] >= 0 and row["rows"] is not None for row in rows)
    recently = datetime.now(UTC) - timedelta(minutes=5)
    assert all(datetime.fromisoformat(row["last_success"]) > recently for row in rows)
    shown = line.done("maintain")
    assert shown.splitlines()[0].split() == ["CHORE", "STATE", "ROWS", "SECONDS", "LAST", "SUCCESS"]
    assert [row.split()[0] for row in shown.splitlines()[1:]] == NAMES


def test_what_is_over_is_gone_afterwards(line: CommandLine, database_url: str) -> None:
    executed(
        database_url,
        "INSERT INTO throttles (key, bucket, failures, pending, attempted_at, window_started_at)"
        " VALUES ('x', 'account', 1, 0, :at, :at)",
        at=datetime(2026, 1, 1, tzinfo=UTC) if "postgresql" in database_url else "2026-01-01 00:00:00.000000",
    )
    assert [row["rows"] for row in line.documents("maintain", "--only", "throttles")] == [1]
    assert [row["rows"] for row in line.documents("maintain", "--only", "throttles")] == [0]


@pytest.mark.usefixtures("database_url")
def test_some_can_be_chosen_and_others_do_not_exist(line: CommandLine) -> None:
    chosen = line.documents("maintain", "--only", "sessions", "--only", "erasures")
    assert [row["chore"] for row in chosen] == ["sessions", "erasures"]
    assert "'dusting' is not one of" in line.refused(2, "maintain", "--only", "dusting")


def test_one_that_fails_is_told_and_the_others_are_done(line: CommandLine, database_url: str) -> None:
    executed(database_url, "DELETE FROM audit_head")
    line.create("ada")
    line.done("maintain", "--only", "audit_seals")
    executed(database_url, "UPDATE audit_head SET digest = :digest", digest="f" * 64)
    failed = line.run("maintain", "--json")
    states = {row["chore"]: row["state"] for row in map(json.loads, failed.stdout.splitlines())}
    assert failed.exit_code == 1
    assert {name for name, state in states.items() if state == "failed"} == {"audit_seals", "audit_retention"}
    assert set(states) == set(NAMES)
    assert "ChainBroken" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_what_a_server_does_at_this_moment_is_left_to_it(
    line: CommandLine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain_command, "TRIES", 2)
    line.done("maintain", "--only", "sessions")
    soon = datetime.now(UTC) + timedelta(minutes=1)
    at = soon if "postgresql" in database_url else f"{soon:%Y-%m-%d %H:%M:%S.%f}"
    executed(database_url, "UPDATE chores SET holder = 'another', held_until = :at WHERE name = 'sessions'", at=at)
    (row,) = line.documents("maintain", "--only", "sessions")
    assert (row["state"], row["rows"]) == ("elsewhere", None)
    assert row["last_success"] is not None


def test_without_a_database_it_says_so(line: CommandLine) -> None:
    line.environ["USERMGMT_DATABASE__URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    line.refused(69, "maintain")


# Secrets

NEW = "another-root-secret-3f9a1c77e0b54d2c"


def test_a_secret_that_took_the_place_of_one_that_leaked_is_told(line: CommandLine, database_url: str) -> None:
    line.create("ada")
    line.environ["USERMGMT_SECRET_KEYS"] = NEW
    (only,) = line.documents("secrets", "list")
    assert (only["state"], only["signing_keys"], only["sessions"], only["passwords"]) == ("making", 0, 0, 0)

    async def start() -> None:
        server = Server(settings_for(database_url, **{"secret.keys": NEW}))
        async with server.running():
            await server.person("bob")

    asyncio.run(start())
    counts = ("making", 1, 1, 1)
    (only,) = line.documents("secrets", "list")
    assert (only["state"], only["signing_keys"], only["sessions"], only["passwords"]) == counts
    line.environ["USERMGMT_SECRET_KEYS"] = f"{NEW},{SECRET}"
    first, second = line.documents("secrets", "list")
    assert [row["state"] for row in (first, second)] == ["waiting", "making"]
    line.environ["USERMGMT_SECRET_KEYS"] = f"{NEW},another-{NEW}"
    first, second = line.documents("secrets", "list")
    assert (first["state"], first["sessions"], second["state"], second["sessions"]) == ("making", 1, "verifying", 0)


def test_the_root_secrets_are_told_with_what_needs_them(line: CommandLine, database_url: str) -> None:
    async def start() -> None:
        server = Server(settings_for(database_url))
        async with server.running():
            for name in ("ada", "bob"):
                await server.person(name)

    asyncio.run(start())
    (only,) = line.documents("secrets", "list")
    assert (only["state"], only["signing_keys"], only["sessions"], only["passwords"]) == ("making", 1, 2, 2)
    old = line.environ["USERMGMT_SECRET_KEYS"]
    line.environ["USERMGMT_SECRET_KEYS"] = f"{NEW},{old}"
    first, second = line.documents("secrets", "list")
    assert (first["state"], first["passwords"], second["state"], second["passwords"]) == ("waiting", 0, "making", 2)
    assert second["secret"] == only["secret"]
    line.create("eve")
    assert [row["passwords"] for row in line.documents("secrets", "list")] == [0, 3]
    line.environ["USERMGMT_SECRET__ROLLOUT"] = "0"
    line.create("carl")
    assert [row["rows"] for row in line.documents("maintain", "--only", "signing_keys")] == [1]
    first, second = line.documents("secrets", "list")
    assert (first["state"], first["signing_keys"], first["sessions"], first["passwords"]) == ("making", 1, 0, 1)
    assert (second["state"], second["signing_keys"], second["sessions"], second["passwords"]) == ("verifying", 0, 2, 3)
    shown = line.done("secrets", "list")
    assert NEW not in shown
    assert old not in shown
