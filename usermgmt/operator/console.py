"""How the command line speaks: text for people, JSON for programs, and every refusal in plain lines.

What was asked for goes to standard output. Questions, progress and refusals go to standard error.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import click


class Exit(IntEnum):
    """What the process says when it ends; the numbers above 2 are those of BSD's sysexits.h."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNAVAILABLE = 69
    CONFIGURATION = 78
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Reason:
    """One of several things that are wrong: where, and what."""

    message: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class Refusal(Exception):
    """A command that ends here for a reason its user can act on: one sentence, and a line for each detail."""

    def __init__(
        self,
        message: str,
        *,
        reasons: Iterable[Reason] = (),
        code: str = "failed",
        exit_code: Exit = Exit.FAILURE,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reasons = list(reasons)
        self.code = code
        self.exit_code = exit_code

    @property
    def lines(self) -> list[str]:
        """What is told to people."""
        return [self.message, *(f"  {reason}" for reason in self.reasons)]

    @property
    def document(self) -> dict[str, Any]:
        """What is told to programs."""
        reasons = [{"where": reason.where, "message": reason.message} for reason in self.reasons]
        return {"error": {"code": self.code, "message": self.message, "reasons": reasons}}


@dataclass(slots=True)
class Console:
    """What the global options ask for, and the way out for everything that a command has to say."""

    config: Path | None = None
    is_json: bool = False
    is_agreed: bool = False

    def show(self, document: Any, text: str) -> None:
        """Tell one thing: the document with --json, else the text (nothing when it is empty)."""
        if self.is_json:
            click.echo(to_json(document))
        elif text:
            click.echo(text)

    def table(self, columns: Sequence[str]) -> "Table":
        """A list to tell: one JSON document a line with --json, else these columns, aligned, under their names."""
        return Table(columns, is_json=self.is_json)

    def show_fields(self, document: Mapping[str, Any]) -> None:
        """Tell one thing field by field."""
        rows = [(f"{name.replace('_', ' ')}:", _cell(value)) for name, value in document.items()]
        self.show(document, "\n".join(aligned(rows)))

    def note(self, text: str) -> None:
        """Say something that is not the answer; programs are not told."""
        if not self.is_json:
            click.echo(text, err=True)

    @contextmanager
    def progress(self, label: str, length: Callable[[], int]) -> Iterator["Progress"]:
        """A bar of how far the block has come, where a person looks; only there is `length` asked; 0: not known."""
        expected = length() if sys.stderr.isatty() and not self.is_json else 0
        if not expected:
            yield Progress()
            return
        with click.progressbar(length=expected, label=label, file=sys.stderr) as bar:
            yield Progress(bar)

    def confirm(self, question: str) -> None:
        """Ask before something that cannot be undone, unless --yes was given. A no ends the command."""
        if self.is_agreed:
            return
        if not sys.stdin.isatty():
            raise Refusal(f"{question} Pass --yes to say so.", code="not_confirmed", exit_code=Exit.USAGE)
        if not click.confirm(question, err=True):
            raise Refusal("Nothing was changed.", code="not_confirmed")


class Progress:
    """A bar that grows on a terminal; one that nobody sees elsewhere."""

    def __init__(self, bar: Any = None) -> None:  # click's bar has a type parameter that is of no use here
        self._bar = bar

    def advance(self, steps: int) -> None:
        """So much more is done."""
        if self._bar is not None:
            self._bar.update(steps)

    def reach(self, done: int, total: int) -> None:
        """So much is done, of so much."""
        if self._bar is not None:
            self._bar.length = total
            self._bar.update(done - self._bar.pos)


class Table:
    """Rows that are printed as they come; the first ones fix the widths."""

    def __init__(self, columns: Sequence[str], *, is_json: bool) -> None:
        self._columns = columns
        self._is_json = is_json
        self._widths: list[int] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print more rows."""
        if self._is_json:
            for row in rows:
                click.echo(to_json(row))
            return
        cells = [[_cell(row.get(column)) for column in self._columns] for row in rows]
        if not self._widths:
            cells.insert(0, [column.replace("_", " ").upper() for column in self._columns])
            self._widths = _widths(cells)
        for line in aligned(cells, self._widths):
            click.echo(line)


def to_json(document: Any) -> str:
    """One line of JSON. Characters that could steer a terminal are escaped."""
    return json.dumps(document, ensure_ascii=False, default=str).translate(_UNPRINTABLE)


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> list[str]:
    """Lines whose columns begin at the same place."""
    widths = widths or _widths(rows)
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(number: int, name: str) -> str:
    """So many of something, in words: `1 account`, `2 accounts`."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def to_seconds(at: datetime) -> str:
    """A time as commands tell it: RFC 3339, UTC, seconds."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def tell_refusal(refusal: Refusal, *, is_json: bool) -> None:
    """Write a refusal to standard error."""
    if is_json:
        click.echo(to_json(refusal.document), err=True)
        return
    first, *others = refusal.lines
    for line in (f"Error: {first}", *others):
        click.echo(printable(line), err=True)


def printable(text: str) -> str:
    """A line that cannot steer a terminal, whatever somebody chose as a name."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cause_of(error: Exception) -> str:
    """What the driver of the database said, in one line; our own word where there was none."""
    cause = error.__cause__
    return str(getattr(cause, "orig", None) or cause or error).partition("\n")[0] or type(cause).__name__


def pooler_refusal(error: Exception) -> Refusal | None:
    """The refusal of a pooler that is taken for PostgreSQL itself; None where another cause keeps the database away."""
    if not cause_of(error).startswith("unsupported startup parameter"):
        return None
    advice = 'leads to a pooler; set database.pooler = "transaction", or name PostgreSQL itself'
    return Refusal(
        "The configuration has a problem:",
        reasons=[Reason(f"{advice} ({cause_of(error)})", "database.url")],
        code="configuration",
        exit_code=Exit.CONFIGURATION,
    )


def own_name() -> str:
    """How this program can be called again: by its bare name if that finds it, else by a path without `..`."""
    called = Path(sys.argv[0])
    if called.name != "usermgmt":
        return "usermgmt"
    found = shutil.which("usermgmt")
    if found is not None and Path(found).resolve() == called.resolve():
        return "usermgmt"
    path = os.path.relpath(called)
    return str(called.absolute()) if path.startswith(os.pardir) else path


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return printable(",".join(map(str, value))) or "-"
    return printable(str(value))


_UNPRINTABLE = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
