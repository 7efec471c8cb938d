"""What `usermgmt doctor` finds about the database: whether it answers, its schema, its tables, columns and indexes."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, ForeignKeyConstraint, Index, Table, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import AddConstraint, CreateIndex, DDLElement

from usermgmt.operator import schema_state
from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation, Needs
from usermgmt.schema import metadata
from usermgmt.settings.values import masked_url

RESTORE = "Restore it from a backup, or take the statement from the migration that made it."

_DECLARED = {str(index.name): index for table in metadata.tables.values() for index in table.indexes}

check = Checklist()


@check("database.answers")
async def database_answers(installation: Installation) -> AsyncIterator[Finding]:
    """The database can be asked."""
    url = masked_url(installation.settings.database.url)
    if not installation.away:
        yield ok(f"{url} answers.")
    elif "startup parameter" in installation.away:
        yield error(f"{url}: {installation.away}.", "A pooler is in between: set database.pooler = transaction.")
    else:
        yield error(f"{url}: {installation.away}.", "Start it, or correct database.url, its password and its network.")


@check("schema.revision", Needs.DATABASE)
async def schema_is_current(installation: Installation) -> AsyncIterator[Finding]:
    """The schema is that of this release."""
    state, settings = installation.schema, installation.settings.database
    assert state is not None
    if state.is_current:
        yield ok(f"The schema is that of this release ({state.head}).")
    elif state.is_newer_and_fit:
        yield note(
            f"A newer release migrated to {state.current}; this one ({state.head}) works on it for the time being.",
            "Bring every instance to the newer release.",
        )
    elif state.current is None:
        told = f"The database has no schema yet; this release needs {state.head}."
        yield note(told, "The next start brings it.") if settings.migrate else error(told, "usermgmt db upgrade")
    elif not schema_state.is_known(state.current):
        yield error(
            f"The schema is at {state.current}, which only a newer release knows; this one has {state.head}.",
            "Run that release.",
        )
    else:
        told = f"The schema is at {state.current}, this release needs {state.head}."
        yield note(told, "The next start brings it.") if settings.migrate else error(told, "usermgmt db upgrade")


@check("schema.tables", Needs.SCHEMA)
async def tables_are_as_declared(installation: Installation) -> AsyncIterator[Finding]:
    """Tables, columns and indexes are those that the code declares."""
    async with installation.reading() as reading:
        found = await reading.run_sync(_differences)
        told = list(_told(found, reading.dialect))
    for finding in told:
        yield finding
    if not told:
        yield ok(f"{len(metadata.tables)} tables have the columns and indexes that this release declares.")


@check("schema.indexes", Needs.POSTGRESQL)
async def indexes_are_valid(installation: Installation) -> AsyncIterator[Finding]:
    """No index was left unfinished."""
    async with installation.reading() as reading:
        rows: list[Any] = list(await reading.exec_driver_sql(_INVALID))
    for name, table in rows:
        yield warning(
            f"The index {name} of {table} is invalid: it costs every write and serves no read.",
            f"REINDEX INDEX CONCURRENTLY {name}",
        )
    if not rows:
        yield ok("Every index is valid.")


_INVALID = """
    SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE NOT (i.indisvalid AND i.indisready) AND c.relnamespace = current_schema()::regnamespace ORDER BY 1
"""


def _differences(connection: Connection) -> list[Any]:
    """What alembic would change, one by one. Tables that are not ours are left out."""

    def is_ours(_: Any, _name: str | None, kind: str, is_reflected: bool, declared: Any) -> bool:  # alembic's signature
        return not (kind == "table" and is_reflected and declared is None)

    options = {"compare_type": True, "include_object": is_ours}
    found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return [each for one in found for each in (one if isinstance(one, list) else [one])]


def _told(differences: Sequence[Any], dialect: Dialect) -> Iterator[Finding]:
    missing = {one[1].name for one in differences if one[0] == "add_table"}
    for one in differences:
        match one:
            case ("add_table", Table() as table):
                yield error(f"The table {table.name} is missing.", RESTORE)
            case ("add_column", _, table, Column() as column):
                spec = dialect.ddl_compiler(dialect, None).get_column_specification(column)  # type: ignore[arg-type]  # it needs none
                yield error(
                    f"The column {column.name} of {table} is missing.", f"ALTER TABLE {table} ADD COLUMN {spec}"
                )
            case ("add_index", Index(table=Table() as table) as index) if table.name not in missing:
                yield warning(
                    f"The index {index.name} of {table.name} is missing: what it serves reads the whole table.",
                    _statement(CreateIndex(_DECLARED[str(index.name)]), dialect, concurrently=True),
                )
            case ("add_constraint" | "add_fk", (UniqueConstraint() | ForeignKeyConstraint()) as rule) if (
                rule.table.name not in missing
            ):
                yield error(
                    f"The constraint {rule.name} of {rule.table.name} is missing.",
                    _statement(AddConstraint(rule), dialect),
                )
            case ("remove_index", Index(table=Table() as table) as index):
                yield note(
                    f"The index {index.name} of {table.name} is none of this release: it costs every write.",
                    f"DROP INDEX {index.name}, unless somebody needs it",
                )
            case ("remove_column", _, table, Column() as column):
                yield note(f"The column {column.name} of {table} is none of this release.", "Ask who added it.")
            case (str(kind), _, str(table), str(column), *_) if kind.startswith("modify_"):
                what = kind.removeprefix("modify_")
                yield warning(f"The {what} of {table}.{column} is not what this release declares.", RESTORE)


def _statement(element: DDLElement, dialect: Dialect, *, concurrently: bool = False) -> str:
    """A statement on one line; on PostgreSQL an index is made while writes go on."""
    text = " ".join(str(element.compile(dialect=dialect)).split())
    if concurrently and dialect.name == "postgresql":
        return text.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)
    return text
