"""Passwords at the command line: asked for, read from standard input or made here; never an argument."""

import math
import secrets
import sys
from collections.abc import Callable
from typing import Any

import click

from usermgmt.operator.console import Exit, Refusal

LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that is easily taken for another
GROUP = 5
LEAST_LENGTH = 4 * GROUP


def password_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --password-stdin."""
    return click.option(
        "--password-stdin", is_flag=True, help="Read the password from standard input in place of asking for it."
    )(function)


def presented_password(*, from_stdin: bool, is_new: bool = True) -> str:
    """A password: typed, twice where it is to be set, or all of standard input without its last line break."""
    if from_stdin:
        return _first_of_stdin()
    if not sys.stdin.isatty():
        raise Refusal(
            "There is no terminal to ask for a password at; use --password-stdin.",
            code="no_terminal",
            exit_code=Exit.USAGE,
        )
    typed: str = click.prompt(
        "Password", hide_input=True, confirmation_prompt="Once more" if is_new else False, err=True
    )
    return typed


def generated_password(*, min_length: int) -> str:
    """A fresh password of 100 bits or more that can be read out, typed and pasted anywhere."""
    groups = math.ceil(max(min_length, LEAST_LENGTH) / GROUP)
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP)) for _ in range(groups))


def _first_of_stdin() -> str:
    try:
        presented = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        presented = ""
    if not presented or not presented.isprintable():
        raise Refusal(
            "Standard input must be the password: one line of UTF-8.", code="no_password", exit_code=Exit.USAGE
        )
    return presented
