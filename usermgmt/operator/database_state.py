"""Whether the database answers, and whether its schema is that of this release."""

import asyncio

import structlog

from usermgmt.errors import DatabaseUnavailable
from usermgmt.operator import schema_state
from usermgmt.operator.configuration import unfit
from usermgmt.operator.console import Reason, Refusal, cause_of, pooler_refusal
from usermgmt.operator.schema_state import SchemaState
from usermgmt.settings import DatabaseSettings
from usermgmt.settings.values import masked_url

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0

log = structlog.get_logger("usermgmt.start")


async def await_database(settings: DatabaseSettings) -> SchemaState:
    """The state of the schema as soon as the database answers; each wait is one line in the log.

    Refused after `database.start_timeout`. A SQLite file is not waited for: it is there, or it is not.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + (0 if settings.is_sqlite else settings.start_timeout.total_seconds())
    pause = FIRST_PAUSE
    while True:
        try:
            return await schema_state.state(settings)
        except DatabaseUnavailable as error:
            if (refusal := pooler_refusal(error)) is not None:
                raise refusal from None
            left = deadline - clock()
            if left <= 0:
                raise _away(settings, error) from None
            wait = min(pause, left)
            log.warning("database_not_reachable", reason=cause_of(error), retry_in_seconds=round(wait, 2))
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)


async def require_schema(settings: DatabaseSettings) -> None:
    """Refuse to work on a database whose schema is not that of this release. Raises `DatabaseUnavailable`."""
    reason = schema_reason(await schema_state.state(settings))
    if reason is not None:
        raise unfit([reason])


def schema_reason(state: SchemaState) -> Reason | None:
    """Why a server of this release cannot work on such a schema, or None."""
    if state.is_fit:
        return None
    if state.current is None:
        return Reason("has no schema yet; run `usermgmt db upgrade`, or start with --migrate", "database")
    if not schema_state.is_known(state.current):
        return Reason(f"is at {state.current}, which only another release knows; run that release", "database")
    return Reason(
        f"is at {state.current}, this release needs {state.head}; run `usermgmt db upgrade`, or start with --migrate",
        "database",
    )


def _away(settings: DatabaseSettings, error: DatabaseUnavailable) -> Refusal:
    waited = "" if settings.is_sqlite else f" within {settings.start_timeout}"
    return Refusal(
        f"The database {masked_url(settings.url)} did not answer{waited}: {cause_of(error)}",
        code="database_unavailable",
    )
