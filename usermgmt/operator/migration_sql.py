"""The SQL of migrations as alembic writes it when it has no database to run it on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Dialect
from sqlalchemy.engine import make_url

from usermgmt.operator import migrations
from usermgmt.operator.console import Refusal

BASE, HEAD = "base", "head"
NOT_WRITTEN = "-- the rest of this migration cannot be told without running it"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, and the transaction it is in: those with the same number end together. None: on its own."""

    sql: str
    transaction: int | None


@dataclass(frozen=True, slots=True)
class Migration:
    """What one migration does, up or down."""

    revision: str
    summary: str
    statements: Sequence[Statement]


def migrations_between(start: str | None, end: str, *, is_sqlite: bool) -> list[Migration]:
    """What leads from one revision (None or `base`: an empty database) to another, in order; down to an earlier one.

    Refused when there is no such revision.
    """
    scripts = _scripts()
    first, last = _place(scripts, start), _place(scripts, end)
    dialect = make_url("sqlite+aiosqlite://" if is_sqlite else "postgresql+asyncpg://").get_dialect()()
    if first <= last:
        return [_rendered(script, dialect, is_up=True) for script in scripts[first:last]]
    return [_rendered(script, dialect, is_up=False) for script in reversed(scripts[last:first])]


def _scripts() -> list[Script]:
    """Every migration, oldest first."""
    return list(reversed(list(ScriptDirectory.from_config(migrations.alembic_config()).walk_revisions())))


def _place(scripts: Sequence[Script], name: str | None) -> int:
    """How many migrations a revision has behind it."""
    if name in (None, BASE):
        return 0
    if name == HEAD:
        return len(scripts)
    for place, script in enumerate(scripts, 1):
        if script.revision == name:
            return place
    raise Refusal(f"This release has no migration {name}.", code="no_such_migration")


@dataclass(slots=True)
class _Output:
    """Where alembic writes: each write is one statement, or the beginning or end of a transaction."""

    statements: list[Statement] = field(default_factory=list)
    _count: int = 1
    _is_open: bool = True

    def write(self, text: str) -> None:
        sql = " ".join(text.split()).removesuffix(";")
        match sql:
            case "BEGIN":
                self._count, self._is_open = self._count + 1, True
            case "COMMIT":
                self._is_open = False
            case _:
                self.statements.append(Statement(sql, self._count if self._is_open else None))

    def flush(self) -> None:
        """Nothing waits."""


def _rendered(script: Script, dialect: Dialect, *, is_up: bool) -> Migration:
    output = _Output()
    options = {"as_sql": True, "output_buffer": output, "transactional_ddl": True, "literal_binds": True}
    context = MigrationContext.configure(dialect=dialect, opts=options)
    with Operations.context(context):
        try:
            (script.module.upgrade if is_up else script.module.downgrade)()
        except (AttributeError, TypeError, CommandError, NotImplementedError):  # it looks into the database first
            output.write(NOT_WRITTEN)
    return Migration(script.revision, script.doc.partition("\n")[0], output.statements)
