"""`usermgmt seed`: many accounts for load tests."""

import re
import time

import click

from usermgmt.errors import FieldError, ValidationFailed
from usermgmt.operator.accounts import check_password
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command
from usermgmt.operator.passwords import generated_password, password_option, presented_password
from usermgmt.operator.seeding import Seed, seed_users
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime

PREFIX = re.compile(r"[a-z]([a-z0-9._-]{0,30}[a-z._-])?")  # its own canonical key, and no digit before the number


@command()
@click.option("--users", "count", type=click.IntRange(min=1), required=True, help="How many accounts to make.")
@click.option("--prefix", default="user", show_default=True, help="What their usernames begin with.")
@click.option("--ask-password", is_flag=True, help="Ask for their password in place of making one.")
@password_option
@on_runtime
async def seed(
    console: Console, runtime: Runtime, count: int, prefix: str, ask_password: bool, password_stdin: bool
) -> None:
    """Make accounts user1, user2 and so on, with addresses user1@example.com, for load tests.

    They hold the role that new accounts hold, and all have one password: read, asked for, or made and printed once.
    Where such accounts exist the numbering continues; names that are taken are left out. Each batch of 5000 is made
    whole or not at all, with one event on the record.
    """
    if PREFIX.fullmatch(prefix) is None:
        detail = "Up to 32 of a-z, 0-9, dot, dash and underscore, from a letter to anything but a digit."
        raise ValidationFailed([FieldError(code="invalid_prefix", detail=detail, parameter="prefix")])
    is_given = ask_password or password_stdin
    shortest = runtime.settings.passwords.min_length
    password = presented_password(from_stdin=password_stdin) if is_given else generated_password(min_length=shortest)
    check_password(runtime, password, names=())
    stored_hash = await runtime.hasher.hash(password)
    if not is_given:
        console.note(f"Password of all: {password}")
    started = time.perf_counter()
    with console.progress("Accounts", lambda: count) as progress:
        made = await seed_users(
            runtime, Seed(prefix, count, stored_hash, runtime.settings.registration.default_role), progress.advance
        )
    seconds = time.perf_counter() - started
    document = {
        "made": made.count,
        "first": made.first,
        "last": made.last,
        "password": None if is_given else password,
        "seconds": round(seconds, 3),
        "users_per_second": round(made.count / seconds),
    }
    console.show(
        document,
        f"Made {made.count} accounts, {made.first} to {made.last}, {document['users_per_second']} a second.",
    )
