"""`usermgmt db copy`: from a laptop's SQLite to PostgreSQL, and back."""

import asyncio
import os
import time

import click

from usermgmt.audit import verification
from usermgmt.audit.verification import Report
from usermgmt.operator import copying, migrations, schema_state
from usermgmt.operator.backup_files import PRIVATE, termination_as_interrupt
from usermgmt.operator.configuration import operator_settings, require_secret
from usermgmt.operator.console import Console, Exit, Refusal
from usermgmt.operator.database_state import require_schema
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.snapshots import refuse_pooler, require_file
from usermgmt.operator.workplace import opened
from usermgmt.settings import DatabaseSettings, Settings
from usermgmt.settings.values import DatabaseUrl, ReplicaUrl, masked_url


@command()
@click.option(
    "--to", "url", required=True, metavar="URL", help="Where to: sqlite:///path or postgresql://user@host/name."
)
@click.option("--migrate", "is_migrating", is_flag=True, help="First make the schema there.")
@pass_console
def copy(console: Console, url: str, is_migrating: bool) -> int:
    """Copy everything to another, empty database: accounts with ids and hashes, sessions, keys, the record with its
    seals. Tokens, sessions and passwords go on working there under the same root secret (secret.keys).

    What is copied is the database at one moment. What is written to it afterwards is not: stop its servers first. Leave
    the password out of URL: it is taken from PGPASSWORD or PGPASSFILE.
    """
    settings = operator_settings(console)
    require_secret(settings)
    source, target = settings.database, _target(settings.database, url)
    refuse_pooler(source)
    require_file(source)
    console.note(f"Copying what {masked_url(source.url)} holds now; what is written to it from now on is not copied.")
    started = time.perf_counter()
    with termination_as_interrupt():
        asyncio.run(_prepare(source, target, is_migrating=is_migrating))
        with console.progress("Rows", lambda: 2 * asyncio.run(copying.count_rows(source))) as progress:  # and read back
            copied = asyncio.run(copying.copy(source, target, progress.advance))
        report = asyncio.run(_verify(settings, target))
    seconds = time.perf_counter() - started
    rows = sum(table.rows for table in copied.values())
    is_intact = report.is_intact and report.is_end_proven
    console.show(
        {
            "target": masked_url(target.url),
            "tables": {name: table.rows for name, table in copied.items()},
            "rows": rows,
            "seconds": round(seconds, 3),
            "intact": is_intact,
        },
        f"Copied {len(copied)} tables with {rows} rows in {seconds:.1f} s; each was read back and is the same.\n"
        + (_PROVEN.format(report.events) if is_intact else _UNPROVEN)
        + "\nServers of the copy need the root secret of this one (secret.keys).",
    )
    return Exit.OK if is_intact else Exit.FAILURE


_PROVEN = "The record with its {} sealed events is as it was written."
_UNPROVEN = "The record is NOT proven to be as it was written, here as there: see `usermgmt audit verify`."


def _target(source: DatabaseSettings, url: str) -> DatabaseSettings:
    try:
        read = DatabaseUrl.read(url)
    except ValueError as error:
        raise click.UsageError(f"--to {error}") from None
    if read == source.url:
        raise Refusal("The target is the database itself.", code="same_database")
    return source.model_copy(update={"url": read, "read_url": ReplicaUrl(""), "pooler": "none"})


async def _prepare(source: DatabaseSettings, target: DatabaseSettings, *, is_migrating: bool) -> None:
    """Have the schema of this release at both ends."""
    await require_schema(source)
    state = await schema_state.state(target)
    if state.is_current:
        return
    if not is_migrating:
        raise Refusal(
            f"The target is {'empty' if state.current is None else f'at revision {state.current}'}, and must be at"
            f" {state.head}: --migrate brings it there.",
            code="schema_not_current",
        )
    if target.is_sqlite:
        _make_private(target)
    with migrations.faults_told():
        await migrations.upgrade(target)


def _make_private(target: DatabaseSettings) -> None:
    """Make the file for its owner alone: it is going to hold password hashes."""
    path = target.sqlite_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE)
        os.fchmod(descriptor, PRIVATE)
        os.close(descriptor)
    except OSError as error:
        raise Refusal(f"Cannot write {path}: {error.strerror}.", code="unwritable_file") from None


async def _verify(settings: Settings, target: DatabaseSettings) -> Report:
    async with opened(settings.model_copy(update={"database": target})) as runtime:
        return await verification.verify(runtime)
