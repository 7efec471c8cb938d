"""`usermgmt config`."""

from pathlib import Path

import click

from usermgmt.operator.configuration import operator_settings, production_settings, reason_of, tell_farewells, unfit
from usermgmt.operator.console import Console, Refusal
from usermgmt.operator.grammar import command, pass_console
from usermgmt.settings import Settings
from usermgmt.settings.problems import common_problems
from usermgmt.settings.report import describe, render_default_toml


@command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("settings.toml"))
@pass_console
def init(console: Console, path: Path) -> None:
    """Write a settings file to PATH (./settings.toml) that documents every key and sets none.

    A file that is there is only replaced with --yes.
    """
    if path.exists():
        console.confirm(f"Replace {path}?")
    try:
        path.write_text(render_default_toml(), encoding="utf-8")
    except OSError as error:
        raise Refusal(f"Cannot write {path}: {error.strerror}.") from None
    console.show({"path": str(path)}, f"Wrote {path}.")


@command()
@click.option("--production", is_flag=True, help="Apply the rules of production too.")
@pass_console
def check(console: Console, production: bool) -> None:
    """List everything that is wrong with the settings; exit code 78 if anything is. Asks nothing of the database.

    What the next release no longer understands is a warning.
    """
    settings: Settings | None
    if production:
        settings, reasons = production_settings(config=console.config)
        if settings is not None:
            tell_farewells(console, settings)
    else:
        settings = operator_settings(console)
        reasons = [reason_of(problem) for problem in common_problems(settings)]
    if reasons or settings is None:
        raise unfit(reasons)
    warnings = [{"where": each.key, "message": f"{each.message} ({each.origin})"} for each in settings.farewells]
    console.show({"problems": [], "warnings": warnings}, "Nothing is wrong with the settings.")


@command()
@click.option("--origin", is_flag=True, help="Tell where each value came from.")
@pass_console
def show(console: Console, origin: bool) -> None:
    """Print every setting in effect. Secrets are hidden."""
    rows = [
        {"key": row.key, "value": row.value_shown, **({"origin": row.origin} if origin else {})}
        for row in describe(operator_settings(console))
    ]
    console.table(("key", "value", "origin") if origin else ("key", "value")).add(rows)
