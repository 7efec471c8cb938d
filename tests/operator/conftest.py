"""The command line as a person uses it: in this process what answers at once, as a process of its own what serves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from tests.conftest import DATABASES, SECRET
from tests.operator.forks import Forked, Nursery, nursery
from tests.servers import PostgreSQL
from usermgmt.operator.cli import cli

PASSWORD = "correct horse battery staple"
PROGRAM = str(Path(sys.executable).with_name("usermgmt"))
PATIENCE = 60.0
"""Seconds after which a test gives up waiting; nothing that works takes so long."""


@dataclass
class CommandLine:
    """`usermgmt` with the settings of one server, called in this process."""

    environ: dict[str, str]

    def run(self, *words: str, given: str | bytes | None = None, environ: Mapping[str, str] | None = None) -> Result:
        """Run a command; a failure that is not a refusal fails the test."""
        variables: dict[str, str | None] = {name: None for name in os.environ if name.startswith("USERMGMT_")}
        result = CliRunner(env={**variables, **self.environ, **(environ or {})}).invoke(cli, words, input=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def done(self, *words: str, given: str | bytes | None = None) -> str:
        """Run a command that succeeds; what it printed."""
        result = self.run(*words, given=given)
        assert result.exit_code == 0, (words, result.stdout, result.stderr)
        return result.stdout

    def documents(self, *words: str, given: str | bytes | None = None) -> list[Any]:
        """Run a command that succeeds with --json; the documents it printed."""
        return [json.loads(line) for line in self.done(*words, "--json", given=given).splitlines()]

    def document(self, *words: str, given: str | bytes | None = None) -> Any:
        """Run a command that succeeds with --json; the one document it printed."""
        (document,) = self.documents(*words, given=given)
        return document

    def refused(self, code: int, *words: str, given: str | bytes | None = None) -> str:
        """Run a command that ends with this code and an explanation without a traceback; the explanation."""
        result = self.run(*words, given=given)
        assert result.exit_code == code, (words, result.stdout, result.stderr)
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr

    def create(self, name: str, *options: str) -> Any:
        """Make an account."""
        return self.document(
            "users", "create", name, f"{name}@example.com", *options, "--password-stdin", given=PASSWORD
        )


@dataclass
class Process:
    """A `usermgmt` of its own, whose output is read line by line."""

    popen: subprocess.Popen[str] | Forked
    lines: Queue[str | None] = field(default_factory=Queue)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait_for(self, text: str) -> str:
        """The next line of its output with this text."""
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE)
            except Empty:
                line = None
            assert line is not None, f"no {text!r} in {self.seen}; {self.errors()}"
            self.seen.append(line)
            if text in line:
                return line

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal, if any, and wait for the end; the exit code."""
        if number is not None:
            self.popen.send_signal(number)
        code = self.popen.wait(timeout=PATIENCE)
        while (line := self.lines.get(timeout=PATIENCE)) is not None:
            self.seen.append(line)
        return code

    @property
    def output(self) -> str:
        """What it printed so far, as far as it was read."""
        return "\n".join(self.seen)

    def errors(self) -> str:
        """What it wrote to standard error; one that still runs is ended."""
        if self.popen.poll() is None:
            self.popen.kill()
        assert self.popen.stderr is not None
        return self.popen.stderr.read()


def children(process: Process) -> set[int]:
    """The workers of a server."""
    pid = process.popen.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # processes and their children tell nobody


@pytest.fixture(autouse=True)
def _place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, and logs as they were before."""
    monkeypatch.chdir(tmp_path)
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without a schema; the test runs once on each kind."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/empty/new.db"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"e{os.urandom(6).hex()}"
    yield server.create(name)
    server.drop(name)


def environment(database_url: str, **more: str) -> dict[str, str]:
    """The variables of a server in production; further ones as section__key."""
    return {
        "USERMGMT_DATABASE__URL": database_url,
        "USERMGMT_DATABASE__ALLOW_SQLITE": "true",
        "USERMGMT_SECRET_KEYS": SECRET,
        "USERMGMT_PASSWORDS__BCRYPT_COST": "4",
        **{f"USERMGMT_{key.upper()}": value for key, value in more.items()},
    }


@pytest.fixture
def line(database_url: str) -> CommandLine:
    """The command line on a migrated, empty database."""
    return CommandLine(environment(database_url))


@pytest.fixture
def empty_line(empty_database_url: str) -> CommandLine:
    """The command line on a database without a schema."""
    return CommandLine(environment(empty_database_url))


Start = Callable[..., Process]


@pytest.fixture(scope="session")
def plain() -> dict[str, str]:
    """The variables of this machine, with none of ours but a quick hash."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("USERMGMT_")}
    plain["USERMGMT_PASSWORDS__BCRYPT_COST"] = "4"
    plain.pop("PYTHONDONTWRITEBYTECODE", None)  # a start takes half the time when the modules are compiled
    return plain


@pytest.fixture(scope="session")
def forks(plain: dict[str, str]) -> Iterator[Nursery]:
    """Starts `usermgmt` without importing it anew."""
    with nursery(plain) as forks:
        yield forks


@pytest.fixture
def start(tmp_path: Path, plain: dict[str, str], forks: Nursery) -> Iterator[Start]:
    """Start `usermgmt` as a process: words, and the variables it has beside those of this machine. What is
    another program or tells Python something is a process from its first instruction.
    """
    with ExitStack() as stack:

        def begin(
            *words: str,
            program: Sequence[str] = (),
            cwd: Path = tmp_path,
            environ: Mapping[str, str] | None = None,
            stdin: int = subprocess.DEVNULL,
        ) -> Process:
            variables = {**plain, **(environ or {})}
            popen: subprocess.Popen[str] | Forked
            if program or any(name.startswith("PYTHON") for name in environ or ()):
                popen = subprocess.Popen(
                    [*(program or [PROGRAM]), *words],
                    env=variables,
                    cwd=cwd,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    stdin=stdin,
                    text=True,
                )
            else:
                popen = forks.start([PROGRAM, *words], environ=variables, cwd=cwd, stdin=stdin)
            stack.callback(_put_away, popen)
            return Process(popen)

        yield begin


def _put_away(popen: subprocess.Popen[str] | Forked) -> None:
    popen.kill()
    popen.wait()
    if isinstance(popen, Forked):
        popen.close()
        return
    for stream in (popen.stdout, popen.stderr):
        if stream is not None and not stream.closed:
            stream.close()


@pytest.fixture(scope="session")
def curl() -> str | None:
    """The program `curl`, where there is one."""
    return shutil.which("curl")
