"""`usermgmt maintain`: every chore of the deployment, once."""

import asyncio
from typing import Any

import click
import structlog

from usermgmt.chores import shared_chores
from usermgmt.errors import DatabaseUnavailable
from usermgmt.maintenance import service
from usermgmt.maintenance.service import SharedChore
from usermgmt.operator.console import Console, Exit, to_seconds
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.settings import Settings

COLUMNS = ("chore", "state", "rows", "seconds", "last_success")
NAMES = [chore.name for chore in shared_chores(Settings())]
TRIES, PAUSE_SECONDS = 25, 0.2  # a server that is at a chore may be done within them
"""How often it is asked for a chore that a server is doing at the moment."""

log = structlog.get_logger("usermgmt.chores")


@command()
@click.option("--only", "only", type=click.Choice(NAMES), multiple=True, help="Only this one; may be repeated.")
@on_runtime
async def maintain(console: Console, runtime: Runtime, only: tuple[str, ...]) -> int:
    """Do every chore once, now, until nothing is left to do, whether a server runs or not.

    Running servers do all of this by themselves, one process at a time. What one of them does at this moment is left to
    it and told as `elsewhere`. The exit code is 1 when a chore failed.
    """
    holder, table, has_failed = service.new_holder(), console.table(COLUMNS), False
    chores = [each for each in shared_chores(runtime.settings) if not only or each.name in only]
    rows = []
    for chore in chores:
        row = await _row(runtime, chore, holder)
        has_failed |= row["state"] == "failed"
        rows.append(row)
    table.add(rows)
    return Exit.FAILURE if has_failed else Exit.OK


async def _row(runtime: Runtime, chore: SharedChore, holder: str) -> dict[str, Any]:
    """Do a chore; what there is to tell of it."""
    state, run = "elsewhere", None
    try:
        for _ in range(TRIES):
            run = await service.run_chore(runtime, chore, holder)
            if run is not None:
                state = "done"
                break
            await asyncio.sleep(PAUSE_SECONDS)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - the others are done all the same, and the exit code tells
        log.error("chore_failed", chore=chore.name, reason=f"{type(error).__name__}: {error}")  # noqa: TRY400 - one line
        state = "failed"
    last = await service.find_last_success(runtime, chore)
    return {
        "chore": chore.name,
        "state": state,
        "rows": run.rows if run is not None else None,
        "seconds": round(run.seconds, 3) if run is not None else None,
        "last_success": to_seconds(last) if last is not None else None,
    }
