"""`usermgmt db`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.operator.conftest import PROGRAM, CommandLine, Start
from usermgmt.operator import migrations


def test_an_empty_database_is_told_and_not_made(empty_line: CommandLine, tmp_path: Path) -> None:
    assert empty_line.document("db", "current") == {"current": None, "head": migrations.head(), "is_current": False}
    assert "empty" in empty_line.refused(1, "db", "check")
    assert list(tmp_path.iterdir()) == []


def test_upgrade_brings_the_schema_and_the_built_in_roles(empty_line: CommandLine) -> None:
    assert empty_line.document("db", "upgrade")["current"] == migrations.head()
    empty_line.done("db", "check")
    assert [role["name"] for role in empty_line.documents("roles", "list")] == ["admin", "manager", "user"]
    assert "Nothing to do" in empty_line.done("db", "upgrade")


def test_downgrade_asks_first(line: CommandLine) -> None:
    assert "--yes" in line.refused(2, "db", "downgrade", "base")
    line.done("db", "check")
    line.done("db", "downgrade", "base", "--yes")
    line.refused(1, "db", "check")
    line.done("db", "upgrade")
    line.done("db", "check")


def test_an_unknown_revision_is_one_line(line: CommandLine) -> None:
    for words in (["db", "upgrade", "--to", "nope"], ["db", "downgrade", "nope", "--yes"]):
        assert "nope" in line.refused(1, *words)


def test_a_schema_of_another_release_is_told(line: CommandLine) -> None:
    line.done("db", "downgrade", "base", "--yes")
    assert "no schema" in line.refused(78, "users", "list")


def test_several_may_upgrade_at_once(empty_line: CommandLine, start: Start) -> None:
    processes = [start("db", "upgrade", environ=empty_line.environ) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        codes = list(pool.map(lambda process: process.end(), processes))
    assert codes == [0, 0, 0], [process.errors() for process in processes]
    empty_line.done("db", "check")


def test_the_program_is_installed() -> None:
    assert Path(PROGRAM).is_file()


def test_a_migration_that_fails_is_one_line(empty_line: CommandLine, start: Start) -> None:
    empty_line.done("db", "upgrade")
    empty_line.done("db", "downgrade", "base", "--yes")
    asyncio.run(_occupy(empty_line.environ["USERMGMT_DATABASE__URL"]))
    assert "already exists" in empty_line.refused(1, "db", "upgrade")
    process = start("serve", "--migrate", "--port", "0", environ=empty_line.environ)
    assert process.end() == 1
    assert "Traceback" not in process.errors() + process.output


async def _occupy(url: str) -> None:
    """Make a table that a migration wants to make."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id integer)"))
    await engine.dispose()
