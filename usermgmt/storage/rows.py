"""Rows of the reads that happen most, as the database gives them: no objects, and on PostgreSQL nothing of what
SQLAlchemy does around each execution, which is two thirds of the cost of a short statement. The statement is compiled
once; the driver runs its text. Whoever listens to SQLAlchemy's events hears of these statements like of all others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import asyncpg
from sqlalchemy import Dialect, Select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler

from usermgmt.storage.statement_spans import fail_statement
from usermgmt.storage.types import UtcDateTime

STATEMENTS = 1_024


class ConnectionCut(OSError):
    """The connection ended under a statement that only read: it may be read again on another one."""


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement as the driver takes it: its text, the name or the constant of each of its arguments in order, and the
    places of the times in its rows.
    """

    text: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]
    times: tuple[int, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """What the driver binds."""
        return [values[name] if name in values else self.constants[name] for name in self.names]


class StatementCache:
    """The statements of one database as its driver takes them, each compiled once; they end with the database."""

    def __init__(self) -> None:
        self._written = lru_cache(STATEMENTS)(_written)
        self._compiled = lru_cache(STATEMENTS)(self._compile)

    def find(self, statement: Select[Any], dialect: Dialect, values: Mapping[str, Any]) -> CompiledStatement | None:
        """The statement with the values that are part of its text; None where a list makes another text each time."""
        names, _ = self._written(statement, dialect)
        return self._compiled(statement, dialect, *((name, values[name]) for name in names if name in values))

    def _compile(
        self, statement: Select[Any], dialect: Dialect, *literals: tuple[str, Any]
    ) -> CompiledStatement | None:
        if not self._written(statement, dialect)[1]:
            return None
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        given = dict.fromkeys(parameter.key for parameter in compiled.binds.values() if parameter.required)
        state = compiled.construct_expanded_state({**given, **dict(literals)})
        names = tuple(state.positiontup or ())
        constants = {name: state.parameters[name] for name in names if name not in given}
        columns = enumerate(statement.selected_columns)
        times = tuple(place for place, column in columns if isinstance(column.type, UtcDateTime))
        return CompiledStatement(state.statement, names, constants, times)


class Rows:
    """A connection that gives rows."""

    def __init__(
        self, connection: AsyncConnection, driver: "asyncpg.Connection | None", statements: StatementCache
    ) -> None:
        """`driver` is the same connection without SQLAlchemy, where statements may be run past it."""
        self.connection = connection
        self._driver = driver
        self._statements = statements

    @property
    def dialect(self) -> str:
        """The name of the database: sqlite or postgresql."""
        return self.connection.dialect.name

    async def fetch(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a statement that is kept by its caller, so that it is compiled once.

        Raises what the driver raises, and `ConnectionCut`.
        """
        if self._driver is None:
            return await self._execute(statement, values)
        compiled = self._statements.find(statement, self.connection.dialect, values)
        if compiled is None:
            return await self._execute(statement, values)
        return await self._run(self._driver, statement, compiled, values)

    async def _execute(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Any]:
        found: Sequence[Any] = (await self.connection.execute(statement, values)).all()
        return found

    async def _run(
        self,
        driver: "asyncpg.Connection",
        statement: Select[Any],
        compiled: CompiledStatement,
        values: Mapping[str, Any],
    ) -> Sequence[Any]:
        arguments = compiled.arguments(values)
        sync = self.connection.sync_connection
        assert sync is not None
        sync.dispatch.before_execute(sync, statement, [values], {}, {})
        told = (sync, None, compiled.text, tuple(arguments), None, False)
        sync.dispatch.before_cursor_execute(*told)
        try:
            found = await driver.fetch(compiled.text, *arguments)
        except BaseException as error:
            fail_statement(error)  # SQLAlchemy, which tells of its own faults only, does not hear of it
            if driver.is_closed():
                await self.connection.invalidate()
                raise ConnectionCut from error
            if not isinstance(error, asyncpg.PostgresError):  # it may still be at work on what nobody waits for
                await self.connection.invalidate()
            raise
        sync.dispatch.after_cursor_execute(*told)
        return _zoned(found, compiled.times)


def _zoned(rows: Sequence[Any], times: Sequence[int]) -> Sequence[Any]:
    """Rows whose times all have a zone: the driver gives the infinite ones, first and last of the calendar, without."""
    if not any(_is_naive(row[place]) for row in rows for place in times):
        return rows
    return [
        tuple(
            each.replace(tzinfo=UTC) if place in times and _is_naive(each) else each for place, each in enumerate(row)
        )
        for row in rows
    ]


def _is_naive(time: datetime | None) -> bool:
    return time is not None and time.tzinfo is None


def _written(statement: Select[Any], dialect: Dialect) -> tuple[tuple[str, ...], bool]:
    """The names of the values that are part of the text, and whether everything else is bound one by one."""
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    literals = tuple(sorted(parameter.key for parameter in compiled.literal_execute_params))
    return literals, compiled.post_compile_params <= compiled.literal_execute_params
