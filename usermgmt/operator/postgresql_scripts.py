r"""Running what pg_restore writes, inside a transaction of ours.

It goes through the driver and not through psql, which runs commands of its own that a file may hold (`\!` is a shell):
for the server a line that begins with a backslash is nothing but wrong.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from usermgmt.operator.console import Reason, Refusal
from usermgmt.operator.postgresql_programs import Running, run_program, started

CHUNK_BYTES = 256 * 1024
END = b"\n\\.\n"
KEPT = len(END) - 1
TRANSACTION_TIMEOUT_SINCE = 17
_NAME = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_COPY = re.compile(rf"COPY ({_NAME})\.({_NAME}) \(({_NAME}(?:, {_NAME})*)\) FROM stdin;")
_FOR_PSQL = re.compile(r"\\(?:un)?restrict \w+")  # in which newer releases of pg_restore wrap their script


async def run_archive(
    driver: "asyncpg.Connection", program: Path, file: Path, *options: str, opening: str, server_version: int
) -> None:
    """After `opening` make the tables of a file of pg_dump, fill them, and make what comes after that. Refused as a
    whole when any of it fails; the transaction is the caller's.
    """
    read = (*options, "--file=-", str(file))
    try:
        await _execute(driver, opening, server_version)
        await _execute(driver, await run_program(program, "--section=pre-data", *read), server_version)
        async with started(program, "--section=data", *read) as reading:
            await _fill(driver, reading, server_version)
            await reading.require_success()
        await _execute(driver, await run_program(program, "--section=post-data", *read), server_version)
    except asyncpg.PostgresError as error:
        raise Refusal(
            f"{file} could not be restored; nothing was changed.", reasons=[Reason(str(error))], code="restore_failed"
        ) from None


async def _fill(driver: "asyncpg.Connection", reading: Running, server_version: int) -> None:
    """Copy rows into tables, and run what stands between."""
    assert reading.process.stdout is not None
    script = _Script(reading.process.stdout)
    while (line := await script.next_line()) is not None:
        if (copy := _COPY.fullmatch(line)) is not None:
            schema, table = map(_unquoted, copy.group(1, 2))
            columns = [_unquoted(name) for name in re.findall(_NAME, copy[3])]
            await driver.copy_to_table(table, source=_rows(script, reading), columns=columns, schema_name=schema)
        elif line.startswith("COPY "):
            raise Refusal(f"This is no way to fill a table: {line[:100]}", code="restore_failed")
        else:
            await _execute(driver, line, server_version)


async def _rows(script: "_Script", reading: Running) -> AsyncIterator[bytes]:
    try:
        async for rows in script.rows():
            yield rows
    except EOFError:
        await reading.require_success()  # which says why
        raise Refusal(f"{reading.name} broke off; nothing was changed.", code="program_failed") from None


class _Script:
    """The script of a data section, as it comes: lines, and the rows after one that begins them."""

    def __init__(self, source: asyncio.StreamReader) -> None:
        self._source = source
        self._held = b""

    async def next_line(self) -> str | None:
        """The next line; None at the end."""
        while b"\n" not in self._held:
            if not await self._more():
                return None
        line, _, self._held = self._held.partition(b"\n")
        return line.decode(errors="replace")

    async def rows(self) -> AsyncIterator[bytes]:
        """All up to the line that ends the rows. Raises `EOFError` where there is none."""
        self._held = b"\n" + self._held  # there may be no row before that line
        begin = 1
        while (end := self._held.find(END)) < 0:
            if len(self._held) > KEPT:
                yield self._held[begin:-KEPT]
                self._held, begin = self._held[-KEPT:], 0
            if not await self._more():
                raise EOFError
        yield self._held[begin : end + 1]
        self._held = self._held[end + len(END) :]

    async def _more(self) -> bool:
        chunk = await self._source.read(CHUNK_BYTES)
        self._held += chunk
        return bool(chunk)


async def _execute(driver: "asyncpg.Connection", script: str, server_version: int) -> None:
    """Run a script without what is meant for psql, and without a setting that servers before 17 lack."""
    lines = [line for line in script.split("\n") if not _is_skipped(line, server_version)]
    if any(line.strip() and not line.startswith("--") for line in lines):  # the driver stumbles over no statement
        await driver.execute("\n".join(lines))


def _is_skipped(line: str, server_version: int) -> bool:
    is_newer = server_version < TRANSACTION_TIMEOUT_SINCE and line.startswith("SET transaction_timeout")
    return is_newer or _FOR_PSQL.fullmatch(line) is not None


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
