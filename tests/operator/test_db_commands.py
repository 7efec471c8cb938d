"""`usermgmt db`."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.operator.conftest import PROGRAM, CommandLine, Start, environment
from usermgmt.operator import schema_state


@pytest.fixture
def pooler_url() -> Iterator[str]:
    """The address of what answers as pgbouncer does to a client that sets something for its session."""
    told = b"SFATAL\0C08P01\0Munsupported startup parameter: statement_timeout\0\0"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if len(connection.recv(4096)) == 8:  # it asks for TLS
                        connection.sendall(b"N")
                        connection.recv(4096)
                    connection.sendall(b"E" + (len(told) + 4).to_bytes(4) + told)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        yield f"postgresql+asyncpg://ada:secret@127.0.0.1:{server.getsockname()[1]}/users"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_pooler_that_is_taken_for_the_database_is_told(pooler_url: str, start: Start) -> None:
    environ = environment(pooler_url)
    for words in (["db", "backup", "kept"], ["db", "current"], ["users", "list"]):
        refusal = CommandLine(environ).refused(78, *words)
        assert 'leads to a pooler; set database.pooler = "transaction", or name PostgreSQL itself' in refusal
    process = start("serve", "--port", "0", environ=environ)
    assert process.end() == 78
    assert "leads to a pooler" in process.errors()


def test_an_empty_database_is_told_and_not_made(empty_line: CommandLine, tmp_path: Path) -> None:
    assert empty_line.document("db", "current") == {"current": None, "head": schema_state.head(), "is_current": False}
    assert "empty" in empty_line.refused(1, "db", "check")
    assert list(tmp_path.iterdir()) == []


def test_upgrade_brings_the_schema_and_the_built_in_roles(empty_line: CommandLine) -> None:
    assert empty_line.document("db", "upgrade")["current"] == schema_state.head()
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
