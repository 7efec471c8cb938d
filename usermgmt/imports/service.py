"""Importing accounts: in batches, each whole or not at all, and every row with what became of it.

An import can be repeated: an account that is there already under the same names is left as it is, so that a run that
was cut ends where an uncut one would have. The record has one event for each batch.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from usermgmt.errors import ApiError, Malformed
from usermgmt.imports.batches import RowOutcome, RowReport, carry_out
from usermgmt.imports.reading import Line
from usermgmt.imports.rows import Row, read_row
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Renew

BATCH = 4_000  # rows
HASHED = 200  # rows for which one counts whose password is hashed here
MOST_REFUSED = 100_000  # what a bad row costs is small, and a file of two bytes a row has millions
AT_ONCE = 2  # batches, while the next one is read


class TooManyRefused(Malformed):
    """An import was ended, since too many of its rows are refused."""

    code = "too_many_refused"
    detail = "Too many rows are refused. The accounts that were made stay; mend the file and send it again."


@dataclass(slots=True)
class Totals:
    """How many rows had which outcome."""

    created: int = 0
    exists: int = 0
    refused: int = 0

    def add(self, reports: Sequence[RowReport]) -> None:
        """Count more rows."""
        for report in reports:
            setattr(self, report.outcome, getattr(self, report.outcome) + 1)


async def import_users(
    runtime: Runtime,
    caller: Caller,
    lines: Iterator[Line],
    *,
    renew: Renew | None = None,
    is_dry_run: bool = False,
) -> AsyncGenerator[list[RowReport], None]:
    """Make the accounts that the lines describe, and report batch by batch.

    The caller must hold `users:write` over everything; `renew` asks before each batch whether that is so still. Raises
    what it and reading the lines raise, `TooManyRefused` once more than `MOST_REFUSED` rows are unless the operator
    imports, and `DatabaseUnavailable`; the batches that were reported stay.
    """
    most = 1 if runtime.database.is_sqlite else AT_ONCE
    under_way: deque[asyncio.Task[list[RowReport]]] = deque()
    refused = 0
    try:
        while batch := await _next_batch(runtime, lines):
            caller = await renew() if renew is not None else caller
            under_way.append(asyncio.create_task(carry_out(runtime, caller, batch, is_dry_run=is_dry_run)))
            if len(under_way) > most:
                reports = await under_way.popleft()
                yield reports
                refused += sum(report.outcome is RowOutcome.REFUSED for report in reports)
                if refused > MOST_REFUSED and not caller.is_operator:
                    break
        is_cut = bool(batch)
        while under_way:
            yield await under_way.popleft()
    finally:
        await asyncio.gather(*under_way, return_exceptions=True)
    if is_cut:
        raise TooManyRefused


async def _next_batch(runtime: Runtime, lines: Iterator[Line]) -> list[tuple[int, Row | ApiError]]:
    """The next rows, checked. One import of the process at a time has its turn: each thread that checks rows slows
    down whatever else the process answers.
    """
    async with runtime.import_turn:
        return await asyncio.to_thread(_read_batch, runtime, lines)


def _read_batch(runtime: Runtime, lines: Iterator[Line]) -> list[tuple[int, Row | ApiError]]:
    """The next rows, checked; beside the event loop, since a thousand of them take a while. Fewer where passwords are
    to be hashed: of what takes minutes a part is kept when it is cut, and its client hears of it.
    """
    found: list[tuple[int, Row | ApiError]] = []
    now, left = runtime.clock.now(), BATCH
    while left > 0 and (line := next(lines, None)) is not None:
        checked: Row | ApiError | None = line.problem
        if checked is None:
            try:
                checked = read_row(line.fields, runtime.password_policy, now=now)
            except ApiError as problem:
                checked = problem
        if isinstance(checked, ApiError):
            checked.__traceback__ = checked.__context__ = checked.__cause__ = None  # which keep all that was read
        found.append((line.number, checked))
        left -= HASHED if isinstance(checked, Row) and checked.password is not None else 1
    return found
