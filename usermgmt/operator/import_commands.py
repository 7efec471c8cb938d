"""`usermgmt users import` and `usermgmt users export`: moving accounts in and out, with their hashes."""

import asyncio
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import click
import msgspec

from usermgmt.imports.batches import RowOutcome, RowReport
from usermgmt.imports.exporting import export_users, write_cells
from usermgmt.imports.reading import Format, read_lines
from usermgmt.imports.schemas import ImportedRow
from usermgmt.imports.service import Totals, import_users
from usermgmt.operator.backup_files import PRIVATE
from usermgmt.operator.console import Console, Exit, Refusal, counted, to_json
from usermgmt.operator.grammar import command
from usermgmt.operator.user_commands import as_document
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.users.schemas import UserOut

MOST_TOLD = 100
STANDARD = "-"
COLUMNS = [*UserOut.__struct_fields__]
FORMATS = click.Choice([str(each) for each in Format])


@command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--format", "form", type=FORMATS, help="How the file is written; else its name tells (.csv, .ndjson).")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@click.option("--report", type=click.Path(dir_okay=False), help="Write the outcome of every row to this file (NDJSON).")
@on_runtime
async def import_file(
    console: Console, runtime: Runtime, file: str, form: str | None, dry_run: bool, report: str | None
) -> int:
    """Make the accounts of FILE (- is standard input): one JSON object a line, or CSV with a header.

    A row needs username and email; it may have id, display_name, password or password_hash, status, roles, groups,
    attributes, email_verified, created_at. An account that is there already is left alone: a run that was cut can be
    repeated. Rows that are refused are told with their line; the others are made (exit code 1 when any was refused).
    """
    found = Format(form) if form else _format_of(file)
    totals = Totals()
    told = 0
    started = time.perf_counter()
    with (
        _opened(file) as source,
        _written(console, report) as out,
        console.progress("Accounts", lambda: _size_of(source)) as progress,
    ):
        lines = read_lines(source, found)
        try:
            async for reports in import_users(runtime, OPERATOR, lines, is_dry_run=dry_run):
                totals.add(reports)
                for each in reports:
                    if out is not None:
                        out.write(to_json(_document(each)) + "\n")
                    if each.outcome is RowOutcome.REFUSED and told < MOST_TOLD:
                        told += 1
                        shown = to_json(_document(each)) if console.is_json else _line(each)
                        click.echo(shown, err=not console.is_json)
                if size := _size_of(source):
                    progress.reach(source.tell(), size)
        except asyncio.CancelledError:
            console.note(
                f"Cut after at least {totals.created} accounts. Run it again: those that are there are left alone."
            )
            raise
    if totals.refused > told:
        console.note(f"{totals.refused - told} more rows were refused; --report FILE has them all.")
    seconds = time.perf_counter() - started
    document = {
        "created": totals.created,
        "exists": totals.exists,
        "refused": totals.refused,
        "dry_run": dry_run,
        "seconds": round(seconds, 3),
        "users_per_second": round((totals.created + totals.exists) / seconds),
    }
    made = "Would make" if dry_run else "Made"
    console.show(
        document,
        f"{made} {counted(totals.created, 'account')}, {totals.exists} there before,"
        f" {counted(totals.refused, 'row')} refused,"
        f" {document['users_per_second']} accounts a second.",
    )
    return Exit.FAILURE if totals.refused else Exit.OK


@command()
@click.option("--format", "form", type=FORMATS, default=str(Format.NDJSON), show_default=True, help="How to write it.")
@click.option("--with-hashes", is_flag=True, help="Add the password hashes: whoever has them can guess passwords.")
@click.option("--output", default=STANDARD, type=click.Path(dir_okay=False, allow_dash=True), help="The file to write.")
@on_runtime
async def export(console: Console, runtime: Runtime, form: str, with_hashes: bool, output: str) -> None:
    """Write every account that is not deleted, in the form that `users import` reads."""
    if with_hashes:
        console.note("The file holds password hashes: keep it like a password.")
    columns = [*COLUMNS, "password_hash"] if with_hashes else COLUMNS
    count = 0
    with nullcontext(sys.stdout) if output == STANDARD else _private(console, output) as out:
        write = _writer(out, Format(form), columns)
        async for accounts in export_users(runtime, OPERATOR, with_hashes=with_hashes):
            count += len(accounts)
            for view, stored_hash in accounts:
                document = as_document(view)
                write({**document, "password_hash": stored_hash} if with_hashes else document)
    if output != STANDARD:
        console.show({"exported": count, "file": output}, f"Wrote {count} accounts to {output}.")


def _writer(out: TextIO, form: Format, columns: list[str]) -> Callable[[dict[str, Any]], object]:
    if form is Format.NDJSON:
        encode = msgspec.json.Encoder().encode
        return lambda document: out.write(encode(document).decode() + "\n")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(columns)
    return lambda document: rows.writerow(write_cells(document, columns))


def _format_of(file: str) -> Format:
    return Format.CSV if file.lower().endswith(".csv") else Format.NDJSON


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - what follows may fail for reasons of its own
    except OSError as error:
        raise Refusal(f"Cannot read {file}: {error.strerror}.", code="unreadable_file") from None
    with source:
        yield source


@contextmanager
def _written(console: Console, file: str | None) -> Iterator[TextIO | None]:
    if file is None:
        yield None
        return
    with _private(console, file) as out:
        yield out


@contextmanager
def _private(console: Console, file: str) -> Iterator[TextIO]:
    """A new file that only its owner can read. Asks before it takes the place of another one, whoever made that."""
    path = Path(file)
    try:
        if path.is_symlink() or path.is_file():
            console.confirm(f"{file} exists. Replace it?")
            path.unlink()
        is_device = path.exists()
        descriptor = os.open(file, os.O_WRONLY | (0 if is_device else os.O_CREAT | os.O_EXCL), PRIVATE)
    except OSError as error:
        raise Refusal(f"Cannot write {file}: {error.strerror}.", code="unwritable_file") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
        yield out


def _size_of(source: BinaryIO) -> int:
    """How long a file is; 0 for what comes as it comes."""
    return 0 if source is sys.stdin.buffer else os.fstat(source.fileno()).st_size


def _document(report: RowReport) -> dict[str, Any]:
    """A row's outcome as the API tells it."""
    document: dict[str, Any] = msgspec.to_builtins(ImportedRow.of(report))
    return document


def _line(report: RowReport) -> str:
    errors: Sequence[str] = [f"{(each.pointer or '').removeprefix('/')}: {each.detail}" for each in report.errors]
    return f"line {report.line}: {'; '.join(errors) or report.detail}"
