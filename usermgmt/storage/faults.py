"""What the faults of drivers and pools mean: try again, or a mistake of ours."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from usermgmt.errors import DatabaseUnavailable, OutcomeUnknown
from usermgmt.storage.rows import ConnectionCut
from usermgmt.telemetry import metrics

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) that mean "not now", never "wrong":
# 08 connection, 28 and 3D no way in (a password or a database that is just being changed), 53 resources,
# 57 operator intervention and statement timeout, 55P03 lock timeout, 25006 read-only (a standby during failover),
# XX000 and 58 a fault of the server below (a distributed one says so when a node is away).
UNAVAILABLE_STATES = ("08", "28", "3D", "53", "57", "58", "55P03", "25006", "XX000")
UNAVAILABLE_SQLITE_ERRORS = tuple(
    f"SQLITE_{name}"
    for name in ("BUSY", "LOCKED", "FULL", "IOERR", "CANTOPEN", "READONLY", "PERM", "AUTH", "NOTADB", "CORRUPT")
)
# 40001 serialisation, 40P01 deadlock; 23503 foreign key: what a use case had looked up went away before it was referred
# to (a role deleted while it is given), 23505 unique: what it had found free was taken; it finds and says so when it
# looks again.
REPEATABLE_STATES = ("40001", "40P01", "23503", "23505")
# 08 is the driver's own word for a broken connection, 57P02 a crash at whatever moment; another state of a commit says
# that it was not made.
UNTOLD_STATES = ("08", "57P02")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RepeatableConflict(Exception):
    """A transaction lost to another one (`REPEATABLE_STATES`): they stood in each other's way, or what it had looked up
    or found free was no longer so when it wrote.
    """


def repeated_on_conflict(
    use_case: Callable[Concatenate[R, P], Awaitable[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Run a use case a second time when its transaction lost to another one (`REPEATABLE_STATES`).

    Only for use cases whose last transaction holds all their writes. Losing twice is `DatabaseUnavailable`.
    """

    @functools.wraps(use_case)
    async def twice(runtime: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await use_case(runtime, *args, **kwargs)
        except RepeatableConflict:
            pass
        try:
            return await use_case(runtime, *args, **kwargs)
        except RepeatableConflict as conflict:
            raise DatabaseUnavailable from conflict

    return twice


@contextmanager
def commits_doubted() -> Iterator[None]:
    """Around nothing but a commit: when the connection breaks before its answer came, it is `OutcomeUnknown`."""
    try:
        yield
    except DBAPIError as error:
        is_commit = error.statement is None
        if not is_commit or not error.connection_invalidated or not _state_of(error).startswith(UNTOLD_STATES):
            raise
        metrics.database_faults.inc()
        raise OutcomeUnknown from error
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        metrics.database_faults.inc()
        raise OutcomeUnknown from error


@contextmanager
def faults_translated() -> Iterator[None]:
    """Turn the faults of driver and pool into `DatabaseUnavailable` or `RepeatableConflict`."""
    try:
        yield
    except PoolTimeout as error:
        metrics.database_faults.inc()
        raise DatabaseUnavailable("The database is busy. Try again shortly.") from error
    except DBAPIError as error:
        _raise_translated(error)
        raise
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        metrics.database_faults.inc()
        raise DatabaseUnavailable from error
    except asyncpg.PostgresError as error:  # of a statement that the driver ran by itself
        _raise_translated_state(error, str(error.sqlstate or ""))
        raise


def was_cut(error: DatabaseUnavailable) -> bool:
    """Whether the connection ended under a statement, so that another connection may serve."""
    cause = error.__cause__
    return isinstance(cause, ConnectionCut) or (isinstance(cause, DBAPIError) and cause.connection_invalidated)


def _raise_translated(error: DBAPIError) -> None:
    """Raise our own word for a database fault that passes; return for one that is ours (a bug)."""
    _raise_translated_state(error, _state_of(error))
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    is_away = error.connection_invalidated or isinstance(error.orig, (OSError, TimeoutError))
    if is_away or name.startswith(UNAVAILABLE_SQLITE_ERRORS):
        metrics.database_faults.inc()
        raise DatabaseUnavailable from error


def _raise_translated_state(error: Exception, state: str) -> None:
    """The same for what PostgreSQL said."""
    if state in REPEATABLE_STATES:
        raise RepeatableConflict from error
    if state.startswith(UNAVAILABLE_STATES):
        metrics.database_faults.inc()
        raise DatabaseUnavailable from error


def _state_of(error: DBAPIError) -> str:
    """The SQLSTATE that PostgreSQL gave, or its driver."""
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")
