"""Backing up a PostgreSQL database with pg_dump, and putting a backup in its place in one transaction.

The script that pg_restore writes is run inside a transaction that we open and that we commit only when pg_restore has
ended well: so what is replaced is dropped in it too, and a failure anywhere leaves everything as it was.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.operator.backup_files import CONTENTS, Contents, require_known_revision
from usermgmt.operator.console import Refusal
from usermgmt.operator.postgresql_programs import Programs, connection_variables, run_program, started
from usermgmt.operator.postgresql_scripts import CHUNK_BYTES, run_archive
from usermgmt.operator.snapshots import one_transaction, snapshot
from usermgmt.schema import metadata
from usermgmt.settings import DatabaseSettings

VERSION_TABLE = "alembic_version"
LOCK_WAIT = "10s"
TABLE = re.compile(r"^\d+; \d+ \d+ TABLE (\S+) (\S+) ", re.MULTILINE)
VERSION_ROW = re.compile(r"^COPY .*\balembic_version\b.*\n(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of pg_dump: the schema that its tables are in, their names, and the revision they are at."""

    schema: str
    tables: frozenset[str]
    revision: str


async def back_up(settings: DatabaseSettings, draft: Path, folder: Path | None) -> Contents:
    """Write a database as it is now into `draft`. What is told of it was read at the same moment."""
    async with snapshot(settings) as connection:
        program = Programs(folder, await _server_version(connection)).find("pg_dump")
        contents = await contents_of(connection)
        moment, schema = (
            await connection.execute(text("SELECT pg_catalog.pg_export_snapshot(), current_schema()"))
        ).one()
        await run_program(
            program,
            "--format=custom",
            "--no-password",
            f"--snapshot={moment}",
            f"--schema={schema}",
            f"--file={draft}",
            environ=connection_variables(settings),
        )
    return contents


async def read_archive(file: Path, programs: Programs) -> Archive:
    """What a file holds, without a database. Refused when it is not one of ours or of a newer release."""
    program = programs.find("pg_restore")
    listed = TABLE.findall(await run_program(program, "--list", str(file)))
    tables = frozenset(name for _, name in listed)
    if not {VERSION_TABLE, "users", "login_names"} <= tables:
        raise Refusal(f"{file} holds no database of this server.", code="not_ours")
    written = await run_program(program, "--data-only", f"--table={VERSION_TABLE}", "--file=-", str(file))
    found = VERSION_ROW.search(written)
    if found is None:
        raise Refusal(f"{file} does not tell its revision.", code="not_ours")
    require_known_revision(file, found.group(1))
    return Archive(listed[0][0], tables, found.group(1))


async def verify_archive(file: Path, folder: Path | None) -> None:
    """Read a file to its end, as restoring does. Refused when a part of it cannot be read."""
    program = Programs(folder).find("pg_restore")
    async with started(program, "--file=-", str(file)) as reading:
        assert reading.process.stdout is not None
        while await reading.process.stdout.read(CHUNK_BYTES):
            pass
        await reading.require_success()


async def tables_of(settings: DatabaseSettings) -> frozenset[str]:
    """The tables that a database has where ours would be."""
    statement = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    async with one_transaction(settings) as connection:
        return frozenset((await connection.execute(text(statement))).scalars())


async def restore(settings: DatabaseSettings, file: Path, folder: Path | None) -> Contents:
    """Put the contents of `file` in the place of every table of ours, in one transaction.

    Refused when the database has tables that neither this release nor the backup knows.
    """
    async with one_transaction(settings) as connection:
        version = await _server_version(connection)
        schema = (await connection.execute(text("SELECT current_schema()"))).scalar_one()
    programs = Programs(folder, version)
    archive = await read_archive(file, programs)
    present = await tables_of(settings)
    if foreign := sorted(present - {*archive.tables, *metadata.tables, VERSION_TABLE}):
        raise Refusal(
            "The database has tables that neither this release nor the backup knows:"
            f" {', '.join(foreign)}. Restore with the release that made them, or drop or move them.",
            code="foreign_tables",
        )
    if schema != archive.schema:
        raise Refusal(
            f"The backup is of the schema {archive.schema}, the database has {schema} first in its search_path.",
            code="other_schema",
        )
    program = programs.find("pg_restore")
    options = ("--no-owner", "--no-privileges", f"--schema={schema}")
    async with one_transaction(settings) as connection:
        await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, asyncpg.Connection)
        gone = ", ".join(f"{_quoted(schema)}.{_quoted(name)}" for name in sorted(present))
        opening = f"DROP TABLE {gone}" if gone else ""
        await run_archive(driver, program, file, *options, opening=opening, server_version=version)
        await connection.commit()
    async with one_transaction(settings) as connection:
        await connection.execute(text("ANALYZE"))  # a planner that knows nothing reads whole tables
        await connection.commit()
        return await contents_of(connection)


async def count_servers(settings: DatabaseSettings) -> int:
    """How many connections of servers the database has."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'usermgmt'"
    )
    async with one_transaction(settings) as connection:
        return int((await connection.execute(text(statement))).scalar_one())


async def contents_of(connection: AsyncConnection) -> Contents:
    """What a database holds."""
    revision, users, sessions, events, newest = (await connection.execute(text(CONTENTS))).one()
    return Contents(revision, users, sessions, events, newest.astimezone(UTC) if newest is not None else None)


async def _server_version(connection: AsyncConnection) -> int:
    """The major version of the server."""
    number = (await connection.execute(text("SELECT current_setting('server_version_num')::int"))).scalar_one()
    return int(number) // 10_000


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
