"""Backing up a SQLite file while it is written to, and putting a backup in its place."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from usermgmt.operator.backup_files import CONTENTS, PRIVATE, Contents, require_known_revision
from usermgmt.operator.console import Refusal

PAGES_AT_ONCE = 1_000
WAIT_SECONDS = 10
DAMAGED = ("SQLITE_NOTADB", "SQLITE_CORRUPT")

Progress = Callable[[int, int], None]
"""Is told how many pages are copied, and of how many."""


def back_up(database: Path, draft: Path, progress: Progress) -> Contents:
    """Copy a database as it is now into `draft`, one whole file, and check it. Writers go on meanwhile.

    The open read transaction keeps the moment: without it SQLite would begin anew after every write.
    """
    with _faults_told(database), closing(_connected(database, "rw")) as source:
        source.execute("BEGIN")
        contents = contents_of(source, database)
        _copy(source, draft, progress)
    return contents


def restore(file: Path, database: Path, progress: Progress) -> Contents:
    """Put the contents of `file` in the place of `database`, at once and only when they are sound.

    Refused when somebody has the database open.
    """
    database = database.resolve()  # a link to it stays, and what it holds now is replaced where it lies
    with _faults_told(file), closing(_connected(file, "ro")) as source:
        source.execute("BEGIN")
        contents = contents_of(source, file)
        require_known_revision(file, contents.revision)
        _require_tables_alone(source, file)
        database.parent.mkdir(parents=True, exist_ok=True)
        draft = database.with_name(f".{database.name}.restore-{os.getpid()}")
        try:
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
            _copy(source, draft, progress)
            _take_place(draft, database)
        finally:
            draft.unlink(missing_ok=True)
    return contents


def require_sound(file: Path) -> None:
    """Read a whole file. Refused when a page of it is damaged, or a row refers to one that is not there."""
    with _faults_told(file), closing(_connected(file, "ro")) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise Refusal(f"{file} is damaged: {found[0][0]}.", code="damaged")
        orphan = connection.execute("PRAGMA foreign_key_check").fetchone()
        if orphan is not None:
            raise Refusal(f"{file} is damaged: a row of {orphan[0]} refers to nothing.", code="damaged")


def is_empty(database: Path) -> bool:
    """Whether nothing would be lost if the file were replaced: it is not there, or has no tables."""
    if not database.exists():
        return True
    try:
        with closing(_connected(database, "rw")) as connection:
            return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))
    except sqlite3.Error:
        return False


def contents_of(connection: sqlite3.Connection, file: Path) -> Contents:
    """What a database holds. Refused when it is not one of ours."""
    try:
        revision, users, sessions, events, newest = connection.execute(CONTENTS).fetchone()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise Refusal(f"{file} is not a database of this server: {error}.", code="not_ours") from None
        raise
    at = datetime.fromisoformat(newest).replace(tzinfo=UTC) if newest is not None else None
    return Contents(revision, users, sessions, events, at)


def _require_tables_alone(connection: sqlite3.Connection, file: Path) -> None:
    """Refuse what acts by itself: this server has no triggers and no views, and theirs is whatever somebody wrote."""
    strange = connection.execute(
        "SELECT type || ' ' || name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY name"
    ).fetchall()
    if strange:
        raise Refusal(
            f"{file} holds what no table of this server has: {', '.join(name for (name,) in strange)}."
            " If they are yours, drop them in a copy of it, and make them anew after restoring that.",
            code="foreign_objects",
        )


def _copy(source: sqlite3.Connection, draft: Path, progress: Progress) -> None:
    """Copy every page, and leave one file that needs none beside it."""
    with closing(_connected(draft, "rw")) as target:
        source.backup(
            target, pages=PAGES_AT_ONCE, progress=lambda _, remaining, total: progress(total - remaining, total)
        )
        target.execute("PRAGMA journal_mode=DELETE")
    require_sound(draft)
    with draft.open("rb") as written:
        os.fsync(written.fileno())


def _take_place(draft: Path, database: Path) -> None:
    """Give the draft the name of the database, which nobody may have open, and the rights of the file it replaces."""
    with _alone(database):
        if database.exists():
            before = database.stat()
            draft.chmod(before.st_mode & 0o777)
            os.chown(draft, before.st_uid, before.st_gid)
        for suffix in ("-wal", "-shm", "-journal"):  # they belong to what is replaced
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        draft.replace(database)


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Keep everybody out of a file. SQLite leaves the WAL only for who is alone with it, so this finds a server too
    that has the file open and does nothing.
    """
    if not database.exists():
        yield
        return
    with closing(_connected(database, "rw", wait=0)) as connection:
        try:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if not getattr(error, "sqlite_errorname", "").startswith(DAMAGED):
                raise Refusal(
                    f"{database} is open: stop the server and every command that uses it, then restore.", code="in_use"
                ) from None
        yield


def _connected(file: Path, mode: str, *, wait: float = WAIT_SECONDS) -> sqlite3.Connection:
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=wait, isolation_level=None)


@contextmanager
def _faults_told(file: Path) -> Iterator[None]:
    """Make one line of what SQLite refuses."""
    try:
        yield
    except sqlite3.Error as error:
        raise Refusal(f"{file}: {error}.", code="sqlite_failed") from None
    except OSError as error:
        raise Refusal(f"{error.filename or file}: {error.strerror}.", code="unwritable_file") from None
