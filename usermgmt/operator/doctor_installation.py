"""What `usermgmt doctor` examines: the settings as far as they can be used, and the database as far as it answers."""

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.operator import schema_state
from usermgmt.operator.checklist import NotChecked
from usermgmt.operator.configuration import was_development
from usermgmt.operator.console import cause_of
from usermgmt.operator.schema_state import SchemaState
from usermgmt.settings import Settings, load_settings
from usermgmt.settings.problems import common_problems, production_problems
from usermgmt.settings.sources import CONFIG_VARIABLE, DEFAULT_CONFIG, SettingsError, SettingsProblem
from usermgmt.storage.database import Database


class Needs(Enum):
    """What a check asks besides the settings."""

    NOTHING = "nothing"
    SQLITE_FILE = "a SQLite file"
    DATABASE = "the database"
    POSTGRESQL = "a PostgreSQL database"
    SCHEMA = "a schema that this release works on"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Installation:
    """One installation, as the settings of this moment and this place describe it.

    `away` says why the database cannot be asked; `database` is open when it answers and has tables.
    """

    settings: Settings
    problems: Sequence[SettingsProblem] = ()
    config: Path = DEFAULT_CONFIG
    is_development: bool = False
    instances: int = 1
    is_thorough: bool = False
    now: Callable[[], datetime] = _now
    away: str = ""
    schema: SchemaState | None = None
    database: Database | None = None
    log_bytes: int = 0
    """The length of a SQLite file's log before anybody here opened the file, which may shorten it."""
    wall_ahead: float = field(default_factory=lambda: time.time() - time.monotonic())
    """How far the clock of the wall was ahead of the monotonic one when the examination began."""

    def applies(self, needs: Needs) -> bool:
        """Whether a check is about a database of this kind."""
        is_sqlite = self.settings.database.is_sqlite
        return not ((needs is Needs.POSTGRESQL and is_sqlite) or (needs is Needs.SQLITE_FILE and not is_sqlite))

    def require(self, needs: Needs) -> None:
        """Refuse a check that cannot be made."""
        if needs is Needs.NOTHING or needs is Needs.SQLITE_FILE:
            return
        if self.away:
            raise NotChecked(self.away)
        if needs is Needs.SCHEMA and not (self.schema is not None and self.schema.is_fit):
            raise NotChecked("this release does not work on such a schema")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, within the time limits of the settings."""
        if self.database is None:
            raise NotChecked(self.away or "the database is empty")
        async with self.database.read() as session:
            yield await session.connection()


@asynccontextmanager
async def found(config: Path | None, *, instances: int = 1, is_thorough: bool = False) -> AsyncIterator[Installation]:
    """The installation that the settings describe, whatever is wrong with it; closed with what was opened."""
    settings, refused, is_development = _settings(config)
    installation = Installation(
        settings,
        [*refused, *_more_problems(settings, refused, is_development=is_development)],
        config or Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG),
        is_development,
        instances,
        is_thorough,
    )
    if settings.database.is_sqlite:
        installation.log_bytes = _size(f"{settings.database.sqlite_file}-wal")
    if _is_database_unknown(settings, refused):
        installation.away = "which database is meant cannot be told from the settings"
    else:
        await _meet_database(installation)
    try:
        yield installation
    finally:
        if installation.database is not None:
            await installation.database.close()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a plain look
    except OSError:
        return 0


def _settings(config: Path | None) -> tuple[Settings, Sequence[SettingsProblem], bool]:
    """The settings without what was refused of them, what was refused, and whether they are development mode's."""
    settings, refused = _loaded(config, is_development=False)
    is_development = was_development(settings)
    if is_development:
        settings, refused = _loaded(config, is_development=True)
    return settings, refused, is_development


def _loaded(config: Path | None, *, is_development: bool) -> tuple[Settings, Sequence[SettingsProblem]]:
    try:
        return load_settings(config=config, development=is_development), []
    except SettingsError as error:
        return error.rest if isinstance(error.rest, Settings) else Settings(), error.problems


def _more_problems(
    settings: Settings, refused: Sequence[SettingsProblem], *, is_development: bool
) -> list[SettingsProblem]:
    """What a server would refuse of settings that can be read."""
    known = {problem.key for problem in refused}
    found = common_problems(settings) if is_development else production_problems(settings)
    return [problem for problem in found if problem.key not in known]


def _is_database_unknown(settings: Settings, refused: Sequence[SettingsProblem]) -> bool:
    """Whether what was refused may have named the database: a file that cannot be read, a misspelt key."""
    is_default = settings.origins["database.url"] == "default"
    return any(
        problem.key in ("", "database", "database.url") or (is_default and problem.key.startswith("database."))
        for problem in refused
    )


async def _meet_database(installation: Installation) -> None:
    """Find out whether the database answers, and how far its schema is."""
    settings = installation.settings.database
    try:
        installation.schema = await schema_state.state(settings)
    except Exception as error:  # noqa: BLE001 - whatever a driver finds wrong with an address
        installation.away = f"the database does not answer ({cause_of(error)})"
    else:
        if installation.schema.current or not settings.is_sqlite:  # an empty file would be made by opening it
            installation.database = Database(settings)
