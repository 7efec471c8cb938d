"""`usermgmt audit`: reading the record, and proving that nobody has touched it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from usermgmt.audit import seals, service, verification
from usermgmt.audit.events import Event, Outcome
from usermgmt.audit.models import AuditEvent
from usermgmt.audit.schemas import EventOut, ListEvents
from usermgmt.audit.seals import ChainBroken, Checkpoint
from usermgmt.audit.verification import Report
from usermgmt.http.body import validated
from usermgmt.operator.console import Console, Exit, Refusal, counted
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR

COLUMNS = ("at", "event", "outcome", "actor", "target", "address", "details")


@command("list")
@click.option("--actor", help="Only what this account (an id) did.")
@click.option("--target", help="Only what was done to this: the id of an account, the name of a role.")
@click.option("--event", type=click.Choice(list(map(str, Event))), metavar="EVENT", help="Only this event.")
@click.option("--outcome", type=click.Choice(list(map(str, Outcome))), help="Only what ended so.")
@click.option("--address", help="Only from this address.")
@click.option("--since", metavar="TIME", help="Only from 2026-11-23T12:00:00Z or so on.")
@click.option("--until", metavar="TIME", help="Only before.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--all", "is_all", is_flag=True, help="All of them, whatever --limit says.")
@on_runtime
async def list_events(console: Console, runtime: Runtime, /, limit: int, is_all: bool, **filters: str | None) -> None:
    """List what is on record, newest first."""
    query = _query({name: value for name, value in filters.items() if value is not None})
    table, left = console.table(COLUMNS), limit
    async for events in service.stream_events(runtime, OPERATOR, query.filters()):
        table.add(_documents(events if is_all else events[:left], is_json=console.is_json))
        left -= len(events)
        if left <= 0 and not is_all:
            return


@command()
@click.option(
    "--checkpoint", metavar="TEXT", help="A checkpoint that was kept elsewhere: it must be part of the chain."
)
@on_runtime
async def verify(console: Console, runtime: Runtime, checkpoint: str | None) -> int:
    """Verify the record against its seals. The exit code is 1 when something was changed, removed, added or cut off."""
    kept = _checkpoint(checkpoint) if checkpoint is not None else None
    report = await verification.verify(runtime, checkpoint=kept)
    document = {
        "intact": report.is_intact,
        "proven": report.is_end_proven,
        "problems": report.problems,
        "events": report.events,
        "seals": report.seals,
        "unsealed": report.unsealed,
        "erased": report.erased,
        "unchecked_signatures": report.unchecked_signatures,
    }
    console.show(document, "\n".join(_lines(report)))
    return Exit.OK if report.is_intact and report.is_end_proven else Exit.FAILURE


@command()
@click.option("--adopt", "is_adopting", is_flag=True, help="First accept an end whose root secret is gone.")
@on_runtime
async def checkpoint(console: Console, runtime: Runtime, is_adopting: bool) -> None:
    """Seal what is due, and print the end of the chain. Keep it where whoever can write to the database cannot."""
    if is_adopting:
        console.confirm("Go on from an end of the chain that nobody can check any more?")
        await seals.adopt_chain(runtime, OPERATOR)
    with _broken_told():
        await seals.seal_pending(runtime)
    found = await seals.find_checkpoint(runtime)
    console.show({"checkpoint": str(found) if found else None}, str(found) if found else "Nothing is sealed yet.")


@command()
@on_runtime
async def prune(console: Console, runtime: Runtime) -> None:
    """Remove the sealed events whose retention (`audit.retention`) is over. What remains still verifies."""
    console.confirm(f"Remove events older than {runtime.settings.audit.retention} for good?")
    total = 0
    with _broken_told():
        while removed := await seals.prune(runtime, OPERATOR):
            total += removed
    console.show({"removed": total}, f"Removed {counted(total, 'event')}.")


def _lines(report: Report) -> Iterator[str]:
    """A report as a person reads it."""
    is_good = report.is_intact and report.is_end_proven
    yield f"{report.events} events under {report.seals} seals{' are as they were written.' if is_good else '.'}"
    for problem in report.problems:
        yield f"  NOT INTACT: {problem}"
    if not report.is_end_proven:
        yield "  NOT PROVEN: the root secret that signed the end of the chain is not configured. Put it back, or see"
        yield "  `usermgmt audit checkpoint --help` for --adopt."
    if report.erased:
        yield f"  {report.erased} of them without personal data, which were erased."
    if report.unsealed:
        yield f"  {report.unsealed} more are too new to have been sealed."
    if report.unchecked_signatures:
        yield f"  {report.unchecked_signatures} signatures are of a root secret that is no longer configured."


@contextmanager
def _broken_told() -> Iterator[None]:
    try:
        yield
    except ChainBroken as broken:
        raise Refusal(f"Nothing more was done: {broken}. See `usermgmt audit verify`.", code="chain_broken") from None


def _query(filters: dict[str, Any]) -> ListEvents:
    return validated(ListEvents, filters, context=None, is_query=True)


def _checkpoint(text: str) -> Checkpoint:
    seq, *rest = text.strip().split(":")
    if len(rest) != 3 or not seq.isascii() or not seq.isdigit():
        raise click.UsageError(
            "A checkpoint has the form number:digest:key:signature, as `audit checkpoint` prints it."
        )
    return Checkpoint(int(seq), *rest)


def _documents(events: Sequence[AuditEvent], *, is_json: bool) -> list[dict[str, Any]]:
    shown = [msgspec.to_builtins(EventOut.of(event)) for event in events]
    if is_json:
        return shown
    return [{**row, "actor": row["actor"]["name"], "target": row["target"]["id"]} for row in shown]
