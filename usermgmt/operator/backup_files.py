"""The file of a backup: which database it is of, and how it comes to its name only when it is whole."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from usermgmt.operator import schema_state
from usermgmt.operator.console import Console, Refusal
from usermgmt.settings import DatabaseSettings

PRIVATE = 0o600
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Kind(StrEnum):
    """Which database a file is a backup of; the value is how the name is written."""

    SQLITE = "SQLite"
    POSTGRESQL = "PostgreSQL"


BEGINNINGS = {b"SQLite format 3\0": Kind.SQLITE, b"PGDMP": Kind.POSTGRESQL}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds: enough to tell whether it is the one that was meant."""

    revision: str
    users: int
    sessions: int
    events: int
    newest_event: datetime | None


CONTENTS = (
    "SELECT (SELECT version_num FROM alembic_version), (SELECT count(*) FROM users), (SELECT count(*) FROM sessions),"
    " (SELECT count(*) FROM audit_events), (SELECT max(at) FROM audit_events)"
)
"""Reads `Contents`, from every schema there ever was."""


def kind_of_database(settings: DatabaseSettings) -> Kind:
    """Which kind the settings name."""
    return Kind.SQLITE if settings.is_sqlite else Kind.POSTGRESQL


def kind_of_file(file: Path) -> Kind:
    """What a file is a backup of. Refused when it cannot be read, or is none."""
    try:
        with file.open("rb") as source:
            first = source.read(16)
    except OSError as error:
        raise Refusal(f"Cannot read {file}: {error.strerror}.", code="unreadable_file") from None
    for beginning, kind in BEGINNINGS.items():
        if first.startswith(beginning):
            return kind
    raise Refusal(f"{file} is not a backup that `usermgmt db backup` made.", code="not_a_backup")


def require_known_revision(file: Path, revision: str) -> None:
    """Refuse a backup of a release that is newer than this one."""
    if not schema_state.is_known(revision):
        raise Refusal(
            f"{file} is at revision {revision}, which only another release knows; restore it with that release.",
            code="unknown_revision",
        )


@contextmanager
def new_file(console: Console, file: Path) -> Iterator[Path]:
    """A draft beside `file` that becomes it when the block ends well, and is gone when it does not.

    Asks before it replaces a file; one that appears meanwhile is not replaced.
    """
    is_replacing = file.exists()
    if is_replacing:
        console.confirm(f"{file} exists. Replace it?")
    draft = file.with_name(f".{file.name}.part-{os.getpid()}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        try:
            yield draft
            _synchronise(draft)
            _publish(draft, file, is_replacing=is_replacing)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise Refusal(f"Cannot write {file}: {error.strerror}.", code="unwritable_file") from None


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that what was begun is put away."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def readable_size(count: int) -> str:
    """A number of bytes as a person reads it."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{count} {UNITS[0]}"


def _publish(draft: Path, file: Path, *, is_replacing: bool) -> None:
    if is_replacing:
        draft.replace(file)
    else:
        try:
            os.link(draft, file)
        except FileExistsError:
            raise Refusal(f"{file} appeared meanwhile and was left alone.", code="file_exists") from None
    _synchronise(file.parent)


def _synchronise(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
