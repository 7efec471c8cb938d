"""Asking the database for one value, and doing without it when it takes too long."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select, true
from sqlalchemy.exc import DBAPIError

from usermgmt.errors import DatabaseUnavailable
from usermgmt.storage.database import Database

CANCELLED = "57014"
INTERRUPTED = "SQLITE_INTERRUPT"
STEPS = 10_000  # of SQLite's machine, between two looks at the clock


async def find_within(
    database: Database, statement: Select[Any], values: Mapping[str, Any], *, patience: timedelta
) -> Any | None:  # the type of the statement's one column
    """The one value of a statement, or None when it would take longer. Other faults are `DatabaseUnavailable`."""
    ask = _ask_sqlite if database.is_sqlite else _ask_postgresql
    try:
        return await ask(database, statement, values, patience)
    except (DBAPIError, DatabaseUnavailable) as error:
        if _was_too_long(error):
            return None
        raise


async def _ask_postgresql(
    database: Database, statement: Select[Any], values: Mapping[str, Any], patience: timedelta
) -> Any:  # as above
    milliseconds = max(1, int(patience.total_seconds() * 1000))
    async with database.read() as session:
        # readers need no transaction otherwise; the timeout ends with this one, behind a pooler too
        await session.connection(execution_options={"isolation_level": "READ COMMITTED"})
        await session.execute(select(func.set_config("statement_timeout", str(milliseconds), true())))
        return (await session.execute(statement, values)).scalar_one()


async def _ask_sqlite(
    database: Database, statement: Select[Any], values: Mapping[str, Any], patience: timedelta
) -> Any:  # as above
    deadline = time.monotonic() + patience.total_seconds()
    is_asking = True
    async with database.read() as session:
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.set_progress_handler(lambda: is_asking and time.monotonic() > deadline, STEPS)
        try:
            return (await session.execute(statement, values)).scalar_one()
        finally:
            is_asking = False  # whatever happens next, the pooled connection is not cut off again
            await raw.driver_connection.set_progress_handler(None, 0)


def _was_too_long(error: DBAPIError | DatabaseUnavailable) -> bool:
    fault = error if isinstance(error, DBAPIError) else error.__cause__
    original = fault.orig if isinstance(fault, DBAPIError) else None
    words = (getattr(original, "sqlstate", None), getattr(original, "sqlite_errorname", None))
    return CANCELLED in words or INTERRUPTED in words
