"""`usermgmt db backup` and `usermgmt db restore`."""

import asyncio
import time
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import ProgrammingError

from usermgmt.audit import verification
from usermgmt.operator import postgresql_backup, schema_state, sqlite_backup
from usermgmt.operator.backup_files import (
    Contents,
    Kind,
    kind_of_database,
    kind_of_file,
    new_file,
    readable_size,
    termination_as_interrupt,
)
from usermgmt.operator.configuration import operator_settings, require_secret
from usermgmt.operator.console import Console, Exit, Refusal
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.snapshots import refuse_pooler, require_file
from usermgmt.operator.workplace import opened
from usermgmt.settings import DatabaseSettings, Settings
from usermgmt.settings.values import masked_url

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
pg_bin = click.option("--pg-bin", type=FOLDER, metavar="DIR", help="The folder of pg_dump and pg_restore.")


@command()
@click.argument("file", type=FILE)
@pg_bin
@click.option("--verify", "is_verified", is_flag=True, help="Read the whole file back (SQLite: that is always done).")
@pass_console
def backup(console: Console, file: Path, pg_bin: Path | None, is_verified: bool) -> None:
    """Write the whole database to FILE, as it is at this moment; the server goes on meanwhile.

    PostgreSQL: in the custom format of pg_dump. SQLite: one database file. FILE holds password hashes and sessions, and
    can be used only with the root secret (secret.keys), which is not in it.
    """
    settings = operator_settings(console).database
    refuse_pooler(settings)
    require_file(settings)
    started = time.perf_counter()
    with termination_as_interrupt(), new_file(console, file) as draft:
        if settings.is_sqlite:
            with console.progress("Pages", lambda: 1) as progress:
                contents = sqlite_backup.back_up(settings.sqlite_file, draft, progress.reach)
        else:
            contents = asyncio.run(_dump(settings, draft, pg_bin, is_verified=is_verified))
    seconds = time.perf_counter() - started
    size = file.stat().st_size
    document = {
        "file": str(file),
        "database": str(kind_of_database(settings)),
        "bytes": size,
        "seconds": round(seconds, 3),
        "revision": contents.revision,
        "users": contents.users,
        "verified": is_verified or settings.is_sqlite,
    }
    console.show(
        document,
        f"Wrote {file}: {readable_size(size)} in {seconds:.1f} s, users: {contents.users},"
        f" revision: {contents.revision}{', read back' if document['verified'] else ''}.",
    )


@command()
@click.argument("file", type=FILE)
@pg_bin
@click.option("--replace", "is_replacing", is_flag=True, help="Put it in the place of what the database holds.")
@click.option("--verify", "is_verified", is_flag=True, help="Verify the record against its seals afterwards.")
@pass_console
def restore(console: Console, file: Path, pg_bin: Path | None, is_replacing: bool, is_verified: bool) -> int:
    """Put the backup FILE into the database, which is empty or is replaced as a whole. Nothing changes if it fails.

    SQLite: stop the server first. PostgreSQL: servers that run answer 503 meanwhile; restart them afterwards.
    """
    settings = operator_settings(console)
    database = settings.database
    refuse_pooler(database)
    if is_verified:
        require_secret(settings)
    _require_same_kind(file, database)
    started = time.perf_counter()
    with termination_as_interrupt():
        _require_leave(console, database, is_replacing=is_replacing)
        contents = _restored(console, database, file, pg_bin)
    seconds = time.perf_counter() - started
    is_current = contents.revision == schema_state.head()
    document = _document(contents) | {
        "file": str(file),
        "seconds": round(seconds, 3),
        "is_current": is_current,
        "intact": asyncio.run(_is_intact(settings)) if is_verified and is_current else None,
    }
    console.show(document, _told(file, contents, seconds))
    if not is_current:
        console.note(f"This release needs revision {schema_state.head()}: run `usermgmt db upgrade`.")
    if is_verified:
        console.note(_VERDICTS[document["intact"]])
    return Exit.FAILURE if document["intact"] is False else Exit.OK


_VERDICTS = {
    True: "The record is as it was written.",
    False: "The record is NOT proven to be as it was written: see `usermgmt audit verify`.",
    None: "The record can be verified after `usermgmt db upgrade`, with `usermgmt audit verify`.",
}


async def _dump(settings: DatabaseSettings, draft: Path, folder: Path | None, *, is_verified: bool) -> Contents:
    try:
        contents = await postgresql_backup.back_up(settings, draft, folder)
    except ProgrammingError:
        raise _no_schema(settings) from None
    if is_verified:
        await postgresql_backup.verify_archive(draft, folder)
    return contents


def _restored(console: Console, database: DatabaseSettings, file: Path, folder: Path | None) -> Contents:
    if not database.is_sqlite:
        return asyncio.run(postgresql_backup.restore(database, file, folder))
    with console.progress("Pages", lambda: 1) as progress:
        return sqlite_backup.restore(file, database.sqlite_file, progress.reach)


def _require_same_kind(file: Path, database: DatabaseSettings) -> None:
    kind, wanted = kind_of_file(file), kind_of_database(database)
    if kind is not wanted:
        raise Refusal(
            f"{file} is a backup of {kind}, and the database is {wanted}: restore it to {kind},"
            " then move it with `usermgmt db copy`.",
            code="other_database",
        )
    if kind is Kind.SQLITE and database.sqlite_file.exists() and file.samefile(database.sqlite_file):
        raise Refusal(f"{file} is the database itself.", code="same_file")


def _require_leave(console: Console, database: DatabaseSettings, *, is_replacing: bool) -> None:
    """Refuse to replace anything that nobody wants replaced."""
    if database.is_sqlite:
        is_empty = sqlite_backup.is_empty(database.sqlite_file)
    else:
        is_empty = not asyncio.run(postgresql_backup.tables_of(database))
    if is_empty:
        return
    if not is_replacing:
        raise Refusal(
            f"{masked_url(database.url)} is not empty; --replace puts the backup in the place of all that it holds.",
            code="not_empty",
        )
    if not database.is_sqlite and (count := asyncio.run(postgresql_backup.count_servers(database))):
        console.note(f"Servers hold {count} connections to it; restart them afterwards.")
    console.confirm(f"Replace everything in {masked_url(database.url)}?")


async def _is_intact(settings: Settings) -> bool:
    async with opened(settings) as runtime:
        report = await verification.verify(runtime)
    return report.is_intact and report.is_end_proven


def _document(contents: Contents) -> dict[str, Any]:
    newest = contents.newest_event
    return {
        "revision": contents.revision,
        "users": contents.users,
        "sessions": contents.sessions,
        "events": contents.events,
        "newest_event": newest.isoformat() if newest is not None else None,
    }


def _told(file: Path, contents: Contents, seconds: float) -> str:
    newest = contents.newest_event
    return (
        f"Restored {file} in {seconds:.1f} s, users: {contents.users}, sessions: {contents.sessions},"
        f" events on record: {contents.events}{f' until {newest:%Y-%m-%d %H:%M:%S} UTC' if newest is not None else ''}"
        f", revision: {contents.revision}."
    )


def _no_schema(settings: DatabaseSettings) -> Refusal:
    return Refusal(f"{masked_url(settings.url)} is not a database of this server: it has no schema.", code="not_ours")
