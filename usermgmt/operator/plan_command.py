"""`usermgmt db plan`: what a migration locks and how long it may take, before it is run."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import click
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.operator import schema_state
from usermgmt.operator.configuration import operator_settings
from usermgmt.operator.console import Console, Refusal
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.migration_plan import Held, Operation, Plan, planned
from usermgmt.operator.migration_sql import HEAD
from usermgmt.operator.snapshots import one_transaction
from usermgmt.operator.statement_locks import Lock, Work
from usermgmt.settings import DatabaseSettings

SHOWN = 110
WORDS = {
    Work.NONE: "touches no row",
    Work.COLUMN_DROPPED: "touches no row",
    Work.SCAN: "reads every row",
    Work.INDEX: "reads every row, writes an index",
    Work.INDEX_CONCURRENTLY: "reads every row twice, writes an index; waits for open transactions",
    Work.WRITE: "may change every row",
    Work.REWRITE: "writes the table anew",
}


@command()
@click.option("--from", "start", metavar="REVISION", help="Begin here, and not where the database is; `base` is empty.")
@click.option("--to", "end", default=HEAD, metavar="REVISION", help="End here; an earlier one plans a downgrade.")
@pass_console
def plan(console: Console, start: str | None, end: str) -> None:
    """Tell what `db upgrade` is going to do: for each statement its lock, its work, the rows there are now, and a time.

    Times come from a rate that was measured once, per million rows: an order of size. Nothing is changed.
    """
    settings = operator_settings(console).database
    state = asyncio.run(schema_state.state(settings))
    if start is None and state.current is not None and not schema_state.is_known(state.current):
        raise Refusal(f"The database is at {state.current}, which only another release knows.", code="unknown_revision")
    rows = asyncio.run(_estimated_rows(settings))
    first = start if start is not None else state.current
    plans = planned(first, end, rows, is_sqlite=settings.is_sqlite)
    document = {
        "from": first,
        "to": end,
        "database": "SQLite" if settings.is_sqlite else "PostgreSQL",
        "seconds": round(sum(each.seconds for each in plans), 3),
        "unknown": sum(each.unknown for each in plans),
        "migrations": [_document(each) for each in plans],
    }
    console.show(document, "\n".join(_lines(plans, is_sqlite=settings.is_sqlite)) or f"Nothing is pending at {first}.")


async def _estimated_rows(settings: DatabaseSettings) -> dict[str, int]:
    """About how many rows each table has, without counting them."""
    if settings.is_sqlite and not settings.sqlite_file.exists():
        return {}
    async with one_transaction(settings) as connection:
        names = await connection.run_sync(lambda raw: inspect(raw).get_table_names())
        estimate = _sqlite_rows if settings.is_sqlite else _postgresql_rows
        return {name: await estimate(connection, name) for name in names}


async def _postgresql_rows(connection: AsyncConnection, table: str) -> int:
    """What the planner expects, which follows the size of the table. It takes an empty one for one of ten pages."""
    size = (await connection.execute(text("SELECT pg_relation_size(to_regclass(:name))"), {"name": table})).scalar_one()
    kind = (
        await connection.execute(text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:name)"), {"name": table})
    ).scalar_one()
    if size == 0 and kind in (b"r", "r"):
        return 0
    found = (await connection.execute(text(f'EXPLAIN (FORMAT JSON) SELECT 1 FROM "{table}"'))).scalar_one()  # noqa: S608 - a name from the catalogue
    document = json.loads(found) if isinstance(found, str) else found
    return int(document[0]["Plan"]["Plan Rows"])


async def _sqlite_rows(connection: AsyncConnection, table: str) -> int:
    """The greatest row number, which is found at once."""
    return int((await connection.execute(text(f'SELECT coalesce(max(rowid), 0) FROM "{table}"'))).scalar_one())  # noqa: S608 - a name from the catalogue


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "revision": plan.migration.revision,
        "summary": plan.migration.summary,
        "seconds": round(plan.seconds, 3),
        "operations": [_operation_document(each) for each in plan.operations],
        "held": [
            {"table": each.table, "lock": str(each.lock), "seconds": round(each.seconds, 3)} for each in plan.held
        ],
    }


def _operation_document(operation: Operation) -> dict[str, Any]:
    effect = operation.effect
    return {
        "sql": operation.sql,
        "known": effect is not None,
        "in_transaction": operation.transaction is not None,
        "table": effect.table if effect is not None else None,
        "new_table": effect.makes_table if effect is not None else None,
        "locks": {table: str(lock) for table, lock in effect.locks.items()} if effect is not None else None,
        "work": str(effect.work) if effect is not None else None,
        "rows": operation.rows,
        "seconds": round(operation.seconds, 3) if operation.seconds is not None else None,
    }


def _lines(plans: list[Plan], *, is_sqlite: bool) -> Iterator[str]:
    for plan in plans:
        yield f"{plan.migration.revision}  {plan.migration.summary}"
        for operation in plan.operations:
            yield from _operation_lines(operation, is_sqlite=is_sqlite)
        yield from _held_lines(plan, is_sqlite=is_sqlite)
        yield ""
    if plans:
        yield f"All together about {_time(sum(plan.seconds for plan in plans))}."
    if unknown := sum(plan.unknown for plan in plans):
        yield f"{unknown} statements are UNKNOWN: read them; they may stop everything for any time."


def _operation_lines(operation: Operation, *, is_sqlite: bool) -> Iterator[str]:
    yield f"  {operation.sql if len(operation.sql) <= SHOWN else operation.sql[:SHOWN] + '…'}"
    effect = operation.effect
    if effect is None:
        yield "    UNKNOWN"
        return
    locks = (
        "the file's write lock"
        if is_sqlite
        else ", ".join(f"{lock} on {table}" for table, lock in effect.locks.items())
    )
    work = "makes a table" if effect.makes_table else WORDS[effect.work]
    if is_sqlite and effect.work is Work.COLUMN_DROPPED:
        work = WORDS[Work.REWRITE]
    count = (
        f"; {effect.table}: about {operation.rows:,} rows, {_time(operation.seconds or 0)}" if operation.rows else ""
    )
    yield f"    {locks or 'no lock'}; {work}{count}"


def _held_lines(plan: Plan, *, is_sqlite: bool) -> Iterator[str]:
    """What others feel."""
    if is_sqlite:
        yield f"  → writers wait for about {_time(plan.seconds)}; readers go on"
        return
    if not plan.held and not plan.unknown:
        yield "  → others go on"
    for held in plan.held:
        yield f"  → {_told(held)}"


def _told(held: Held) -> str:
    until = (
        "" if held.lock is not Lock.ACCESS_EXCLUSIVE else "; it is taken only when no older transaction uses the table"
    )
    return f"{held.table}: {held.lock.stops} for about {_time(held.seconds)} ({held.lock}{until})"


def _time(seconds: float) -> str:
    if seconds < 0.1:
        return "an instant"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
