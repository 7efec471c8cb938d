"""`usermgmt doctor`: what is wrong or risky with an installation, and how to mend it."""

import asyncio
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from usermgmt import __version__
from usermgmt.operator import (
    doctor_account_checks,
    doctor_database_checks,
    doctor_machine_checks,
    doctor_network_checks,
    doctor_postgresql_checks,
    doctor_retention_checks,
    doctor_settings_checks,
)
from usermgmt.operator.console import Console, Exit, counted
from usermgmt.operator.doctor_findings import Check, Line, Severity
from usermgmt.operator.doctor_installation import found
from usermgmt.operator.grammar import command, pass_console

CHECKS: tuple[Check, ...] = (
    *doctor_settings_checks.check,
    *doctor_network_checks.check,
    *doctor_machine_checks.check,
    *doctor_database_checks.check,
    *doctor_postgresql_checks.check,
    *doctor_account_checks.check,
    *doctor_retention_checks.check,
)
MARKS = {
    Severity.OK: ("✓", "green"),
    Severity.NOTE: ("·", "cyan"),
    Severity.WARNING: ("!", "yellow"),
    Severity.ERROR: ("✗", "red"),
    Severity.NOT_CHECKED: ("?", "bright_black"),
}
WIDEST_LINE = 110
INDENT = 4
WORD = 11


@command()
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option("--problems", "is_short", is_flag=True, help="Tell only what is not in order.")
@click.option("--thorough", "is_thorough", is_flag=True, help="Look at every account, however many there are.")
@click.option(
    "--instances",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many servers of these settings run; for limits that they share.",
)
@pass_console
def doctor(console: Console, *, strict: bool, is_short: bool, is_thorough: bool, instances: int) -> int:
    """Find what is wrong or risky, and tell how to mend it.

    Looks at the settings, the files with secrets, this machine, the database and what is in it. Changes nothing. What
    cannot be looked at is told, and the rest is looked at anyway. Call it where the server runs, with its settings and
    as its user. The exit code is 0 when there is no error (with --strict: no warning either), else 1.
    """
    lines = asyncio.run(_examined(console.config, instances=instances, is_thorough=is_thorough))
    counts = Counter(line.finding.severity for line in lines)
    is_failed = bool(counts[Severity.ERROR] or (strict and counts[Severity.WARNING]))
    document = {
        "version": __version__,
        "healthy": not is_failed,
        "counts": {str(severity): counts[severity] for severity in Severity},
        "checks": [line.document for line in lines],
    }
    shown = [line for line in lines if not (is_short and line.finding.severity is Severity.OK)]
    console.show(document, "\n".join([*_told(shown), _sum(counts)]))
    return Exit.FAILURE if is_failed else Exit.OK


async def _examined(config: Path | None, *, instances: int, is_thorough: bool) -> list[Line]:
    """Make every check that is about this installation."""
    async with found(config, instances=instances, is_thorough=is_thorough) as installation:
        wanted = [check for check in CHECKS if installation.applies(check.needs)]
        return [line for check in wanted for line in await check.lines(installation)]


def _told(lines: Sequence[Line]) -> Iterator[str]:
    """The report for people, group by group."""
    for group in dict.fromkeys(line.group for line in lines):
        yield group
        for line in lines:
            if line.group == group:
                yield from _entry(line)
        yield ""


def _entry(line: Line) -> Iterator[str]:
    """One finding and how to mend it; on a terminal with a mark, and broken where the terminal ends."""
    finding = line.finding
    told = f"{finding.found} [{line.check}]"
    if not sys.stdout.isatty():
        yield f"  {finding.severity.replace('_', ' '):<{WORD}}  {told}"
        yield from [f"{'':{WORD}}    mend: {finding.mend}"] if finding.mend else []
        return
    mark, colour = MARKS[finding.severity]
    first, *more = _rows(told)
    yield f"  {click.style(mark, fg=colour)} {first}"
    yield from (f"    {row}" for row in [*more, *(_rows(f"→ {finding.mend}") if finding.mend else [])])


def _rows(text: str) -> list[str]:
    width = max(30, min(WIDEST_LINE, shutil.get_terminal_size().columns) - INDENT)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _sum(counts: Counter[Severity]) -> str:
    """How many of each there are."""
    told = [counted(counts[severity], severity) for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)]
    told.append(f"{counts[Severity.OK]} in order")
    if counts[Severity.NOT_CHECKED]:
        told.append(f"{counts[Severity.NOT_CHECKED]} not checked")
    return ", ".join(told)
