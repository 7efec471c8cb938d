"""`usermgmt db copy`: every row is there and the same, on either kind of database, and nothing is where it failed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import settings_for
from tests.operator.conftest import CommandLine, environment
from tests.operator.whole_databases import ATTRIBUTES, change, furnish, kind_of, new_database, rows_of
from tests.people import PASSWORD, Person, Server
from usermgmt.schema import metadata

OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}


@pytest.fixture
def target_url(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[str]:
    """A database of the other kind without a schema."""
    with new_database(request, tmp_path, OTHER[kind_of(database_url)]) as url:
        yield url


def test_everything_moves_to_the_other_kind_and_back(
    line: CommandLine, database_url: str, target_url: str, request: pytest.FixtureRequest, tmp_path: Path
):
    ada = asyncio.run(furnish(database_url))
    line.done("users", "erase", "gone", "--yes")
    before = asyncio.run(rows_of(database_url))
    assert all(before.values())
    assert set(before) == set(metadata.tables)

    told = line.document("db", "copy", "--to", target_url, "--migrate")
    assert told["tables"] == {name: len(rows) for name, rows in before.items()}
    assert told["intact"] is True
    there = asyncio.run(rows_of(target_url))
    for name, rows in before.items():
        assert there[name] == rows, name
    with new_database(request, tmp_path, kind_of(database_url)) as back:
        CommandLine(environment(target_url)).done("db", "copy", "--to", back, "--migrate")
        again = asyncio.run(rows_of(back))
        for name, rows in before.items():
            assert again[name] == rows, name
    assert asyncio.run(rows_of(database_url)) == before

    asyncio.run(serve_there(target_url, ada))


async def serve_there(database_url: str, ada: Person) -> None:
    """Start on the copy: tokens, passwords and documents are good."""
    server = Server(settings_for(database_url))
    async with server.running():
        moved = Person(server, username="ada", password=PASSWORD, id=ada.id)
        moved.access_token, moved.refresh_token = ada.access_token, ada.refresh_token
        mine = await moved.get("/api/users/me")
        assert (mine.status_code, (await mine.get_json())["attributes"]) == (200, ATTRIBUTES)
        refreshed = await moved.post("/api/auth/refresh", json={"refresh_token": moved.refresh_token})
        assert refreshed.status_code == 200
        await moved.log_in()
        wrong = {"username": "ada", "password": "not the password"}
        assert (await server.nobody().post("/api/auth/login", json=wrong)).status_code == 401


def test_a_database_that_holds_anything_is_left_alone(line: CommandLine, database_url: str, target_url: str):
    there = CommandLine(environment(target_url))
    assert "--migrate" in line.refused(1, "db", "copy", "--to", target_url)
    there.done("db", "upgrade")
    there.create("mia")
    line.create("ada")
    assert "not empty: it has rows in" in line.refused(1, "db", "copy", "--to", target_url, "--migrate")
    assert [user["username"] for user in there.documents("users", "list")] == ["mia"]
    assert "itself" in line.refused(1, "db", "copy", "--to", database_url)
    assert "must start with" in line.refused(2, "db", "copy", "--to", "mysql://example.com/usermgmt")


def test_the_source_must_have_the_schema_of_this_release(line: CommandLine, target_url: str):
    line.done("db", "downgrade", "0006", "--yes")
    assert "0006" in line.refused(78, "db", "copy", "--to", target_url, "--migrate")


def test_a_target_of_another_revision_is_refused_until_it_is_migrated(line: CommandLine, target_url: str):
    there = CommandLine(environment(target_url))
    there.done("db", "upgrade", "--to", "0006")
    assert "at revision 0006" in line.refused(1, "db", "copy", "--to", target_url)
    line.create("ada")
    line.done("db", "copy", "--to", target_url, "--migrate")
    assert there.document("users", "show", "ada")["username"] == "ada"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_row_that_the_target_does_not_take_leaves_it_empty(line: CommandLine, database_url: str, target_url: str):
    asyncio.run(furnish(database_url))
    asyncio.run(
        change(database_url, f"UPDATE audit_events SET actor_name = '{'x' * 300}' WHERE event = 'group.created'")
    )
    there = CommandLine(environment(target_url))
    there.done("db", "upgrade")
    empty = asyncio.run(rows_of(target_url))
    refusal = line.refused(1, "db", "copy", "--to", target_url)
    assert "audit_events could not be copied; nothing was kept" in refusal
    assert asyncio.run(rows_of(target_url)) == empty
    asyncio.run(change(database_url, "UPDATE audit_events SET actor_name = 'root' WHERE event = 'group.created'"))
    line.done("db", "copy", "--to", target_url)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_record_that_was_touched_is_copied_and_told(line: CommandLine, database_url: str, target_url: str):
    asyncio.run(furnish(database_url))
    asyncio.run(change(database_url, "UPDATE audit_events SET outcome = 'failure' WHERE event = 'group.created'"))
    result = line.run("db", "copy", "--to", target_url, "--migrate")
    assert (result.exit_code, "NOT proven" in result.stdout) == (1, True)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_file_of_a_copy_is_for_its_owner_alone(line: CommandLine, target_url: str):
    line.done("db", "copy", "--to", target_url, "--migrate")
    assert Path(target_url.partition("///")[2]).stat().st_mode & 0o777 == 0o600


def test_a_source_that_is_not_there_is_told_and_not_made(tmp_path: Path, target_url: str):
    line = CommandLine(environment(f"sqlite:///{tmp_path}/nowhere.db"))
    assert "no database" in line.refused(1, "db", "copy", "--to", target_url)
    assert not (tmp_path / "nowhere.db").exists()
