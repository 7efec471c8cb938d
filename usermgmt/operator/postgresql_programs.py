"""PostgreSQL's own programs: finding them, running them, and never a password on their command line."""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.engine import make_url

from usermgmt.operator.console import Reason, Refusal
from usermgmt.settings import DatabaseSettings

VARIABLES = {"ssl": "PGSSLMODE", "sslmode": "PGSSLMODE", "passfile": "PGPASSFILE", "host": "PGHOST", "port": "PGPORT"}
VERSION_SECONDS = 30
MOST_LINES = 5
HOW_TO_GET = "On Debian: apt install postgresql-client-{major} (also at apt.postgresql.org). --pg-bin names a folder."


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are (None: on the PATH), and the server's major version, which they may not be older than."""

    folder: Path | None = None
    at_least: int = 0

    def find(self, name: str) -> Path:
        """The program of this name. Refused when it is missing, or too old."""
        found = shutil.which(name, path=str(self.folder) if self.folder is not None else None)
        hint = [Reason(HOW_TO_GET.format(major=self.at_least or "NN"))]
        if found is None:
            where = f"in {self.folder}" if self.folder is not None else "on the PATH"
            raise Refusal(f"There is no {name} {where}.", reasons=hint, code="no_program")
        version = _version(Path(found))
        if version < self.at_least:
            raise Refusal(
                f"{found} is of PostgreSQL {version}, the server is {self.at_least}: an older program may not be used.",
                reasons=hint,
                code="program_too_old",
            )
        return Path(found)


def connection_variables(settings: DatabaseSettings) -> dict[str, str]:
    """The environment of a program that is to connect: the password stands in it and not on the command line."""
    url = make_url(settings.url)
    given = {
        "PGHOST": url.host,
        "PGPORT": str(url.port) if url.port else None,
        "PGUSER": url.username,
        "PGPASSWORD": str(url.password) if url.password is not None else None,
        "PGDATABASE": url.database,
        "PGCONNECT_TIMEOUT": str(max(2, round(settings.connect_timeout.total_seconds()))),
        **{VARIABLES[key]: str(value) for key, value in url.query.items() if key in VARIABLES},
    }
    return {**os.environ, **{name: value for name, value in given.items() if value is not None}}


async def run_program(program: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; what it printed. Refused with its own words when it fails."""
    async with started(program, *arguments, environ=environ) as running:
        output, _ = await running.process.communicate()
        await running.require_success()
    return output.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Running:
    """A program that runs, and the file with what it says on standard error."""

    name: str
    process: asyncio.subprocess.Process
    errors: BinaryIO

    async def feed(self, text: bytes) -> None:
        """Give it more to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        await self.process.stdin.drain()

    def end_input(self) -> None:
        """Tell it that there is no more to read."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def require_success(self) -> None:
        """Wait for the end. Refused with the program's own words unless it succeeded."""
        if await self.process.wait() == 0:
            return
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        raise Refusal(
            f"{self.name} failed; nothing was changed.",
            reasons=[Reason(line) for line in lines[:MOST_LINES]],
            code="program_failed",
        )


@asynccontextmanager
async def started(
    program: Path, *arguments: str, environ: Mapping[str, str] | None = None, reads: bool = False
) -> AsyncIterator[Running]:
    """Start a program whose output is read, and which `reads` what we feed it. It ends with the block at the latest."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env=environ,
            stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield Running(program.name, process, errors)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _version(program: Path) -> int:
    """The major version that a program says it has."""
    try:
        told = subprocess.run(  # noqa: S603 - a program that the operator named
            [program, "--version"], check=True, capture_output=True, text=True, timeout=VERSION_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Refusal(f"{program} does not run: {error}.", code="no_program") from None
    match = re.search(r"\(PostgreSQL\) (\d+)", told.stdout)
    if match is None:
        raise Refusal(f"{program} does not tell its version.", code="no_program")
    return int(match.group(1))
