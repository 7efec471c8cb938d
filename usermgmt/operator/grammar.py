"""How a command line is read: options that every command takes, groups whose commands load when they are called."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from click.shell_completion import CompletionItem

from usermgmt.operator.console import Console

P = ParamSpec("P")
R = TypeVar("R")

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is called: where it is, and its line in the list of commands."""

    path: str
    summary: str


class OperatorCommand(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # whatever click.command passes
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        self.params.extend(_global_options())


class OperatorGroup(click.Group):
    """A group that takes the global options too; listing and completing its commands imports none of them."""

    command_class = OperatorCommand

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.params.extend(_global_options())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """Every command, in the order of declaration."""
        return [*self.lazy, *(name for name in self.commands if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; its module is imported now."""
        lazy = self.lazy.get(cmd_name)
        if lazy is None:
            return super().get_command(ctx, cmd_name)
        return _imported(lazy.path)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by their summaries."""
        declared = {name: command.get_short_help_str(80) for name, command in self.commands.items()}
        summaries = {**{name: lazy.summary for name, lazy in self.lazy.items()}, **declared}
        with formatter.section("Commands"):
            formatter.write_dl([(name, summaries[name]) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a word that begins like this can become."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = [] if incomplete[:1].isalnum() else click.Command.shell_complete(self, ctx, incomplete)
        summaries = {name: lazy.summary for name, lazy in self.lazy.items()}
        return [
            *(CompletionItem(name, help=summaries.get(name)) for name in names),
            *options,
        ]


def _imported(path: str) -> click.Command:
    """Import a command. What is imported stays, so looking for garbage meanwhile, a fifth of the time, finds none."""
    module, _, attribute = path.partition(":")
    gc.disable()
    try:
        found = getattr(import_module(module), attribute)
    finally:
        gc.freeze()
        gc.enable()
    assert isinstance(found, click.Command)
    return found


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], OperatorCommand]:
    """Declare a command that takes the global options too."""
    return click.command(name, cls=OperatorCommand, **attributes)


def pass_console(function: Callable[Concatenate[Console, P], R]) -> Callable[P, R]:
    """Hand the console to a command as its first argument."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(console_of(click.get_current_context()), *args, **kwargs)

    return update_wrapper(call, function)


def console_of(context: click.Context) -> Console:
    """The console of this call: one for all groups and commands on the line."""
    return context.find_root().ensure_object(Console)


def _global_options() -> list[click.Option]:
    return [
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            expose_value=False,
            callback=_remember,
            help="The settings file, in place of ./settings.toml.",
        ),
        click.Option(
            ["--json", "is_json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Answer in JSON, one document a line; errors too.",
        ),
        click.Option(
            ["--yes", "is_agreed"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Answer every question with yes.",
        ),
    ]


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a global option wherever on the line it stands; the last --config counts."""
    if value:
        setattr(console_of(context), str(parameter.name), value)
