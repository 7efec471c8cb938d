"""`usermgmt db`: the schema of the database."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import click

from usermgmt.operator import migrations, schema_state
from usermgmt.operator.configuration import operator_settings
from usermgmt.operator.console import Console, Refusal
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.schema_state import SchemaState
from usermgmt.settings import DatabaseSettings


@command()
@click.option("--to", "target", default="head", metavar="REVISION", help="Stop at this revision.")
@pass_console
def upgrade(console: Console, target: str) -> None:
    """Apply the migrations that are pending. Any number of processes may do so at once."""
    settings = operator_settings(console).database
    before = _done(lambda: migrations.upgrade(settings, target=target))
    _tell_move(console, before, _state(settings))


@command()
@click.argument("target", metavar="REVISION")
@pass_console
def downgrade(console: Console, target: str) -> None:
    """Undo migrations down to REVISION: a revision, -1 for one step (write `-- -1`), or `base` for all.

    What they added is lost, data included; so it asks first.
    """
    settings = operator_settings(console).database
    console.confirm(f"Undo the migrations above {target}, with the data that they made room for?")
    before = _done(lambda: migrations.downgrade(settings, target=target))
    _tell_move(console, before, _state(settings))


@command()
@pass_console
def current(console: Console) -> None:
    """Print the revision of the database, and the one that this release needs."""
    state = _state(operator_settings(console).database)
    console.show(_document(state), f"{state.current or 'empty'} (this release needs {state.head})")


@command()
@pass_console
def check(console: Console) -> None:
    """Tell by the exit code whether the schema is current: 0 if it is, 1 if not."""
    state = _state(operator_settings(console).database)
    if not state.is_current:
        raise Refusal(
            f"The database is {'empty' if state.current is None else f'at {state.current}'},"
            f" this release needs {state.head}.",
            code="schema_not_current",
        )
    console.show(_document(state), f"The schema is current: {state.head}.")


def _state(settings: DatabaseSettings) -> SchemaState:
    return _done(lambda: schema_state.state(settings))


def _done(work: Callable[[], Coroutine[Any, Any, SchemaState]]) -> SchemaState:
    with migrations.faults_told():
        return asyncio.run(work())


def _tell_move(console: Console, before: SchemaState, after: SchemaState) -> None:
    moved = before.current != after.current
    text = (
        f"{before.current or 'empty'} → {after.current or 'empty'}" if moved else f"Nothing to do at {after.current}."
    )
    console.show({"before": before.current, **_document(after)}, text)


def _document(state: SchemaState) -> dict[str, object]:
    return {"current": state.current, "head": state.head, "is_current": state.is_current}
