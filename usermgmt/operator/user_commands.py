"""`usermgmt users`: looking after accounts. Every change goes through the use cases, the operator on its record."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import click
import msgspec

from usermgmt.errors import UserNotFound
from usermgmt.http.body import validated
from usermgmt.operator.accounts import checked_account, find_account, refuse_unstorable
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command
from usermgmt.operator.passwords import password_option, presented_password
from usermgmt.operator.workplace import on_runtime
from usermgmt.personal_data import service as personal_data
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.throttle import service as throttle
from usermgmt.users import changes, service
from usermgmt.users.changes import Changes, Demand
from usermgmt.users.lists import Count, Order
from usermgmt.users.models import Status
from usermgmt.users.registration import NewUser, register_user
from usermgmt.users.schemas import ListUsers, UserOut
from usermgmt.users.service import UserView

COLUMNS = ("username", "email", "status", "roles", "created_at", "last_login_at", "id")
PAGE = 100


@command("list")
@click.option("--q", help="The beginning of the username, the e-mail address or the display name.")
@click.option("--username", help="Exactly this username.")
@click.option("--email", help="Exactly this e-mail address.")
@click.option("--status", type=click.Choice(list(map(str, Status))), help="Only accounts in this state.")
@click.option("--role", help="Only accounts that hold this role.")
@click.option("--created-after", metavar="TIME", help="Only accounts made after 2026-11-23T12:00:00Z or so.")
@click.option("--created-before", metavar="TIME", help="Only accounts made before.")
@click.option(
    "--sort", type=click.Choice(list(map(str, Order))), default=str(Order.CREATED), show_default=True, help="The order."
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@click.option("--all", "is_all", is_flag=True, help="All of them, whatever --limit says.")
@on_runtime
async def list_users(console: Console, runtime: Runtime, /, limit: int, is_all: bool, **filters: str | None) -> None:
    """List accounts that fit every condition given; those that are deleted never."""
    query = _query({name: value for name, value in filters.items() if value is not None})
    table = console.table(COLUMNS)
    async for views, is_last in _pages(runtime, query, None if is_all else limit):
        table.add([as_document(view) for view in views])
        if not is_last and not is_all:
            console.note(f"There are more than {limit}; take a higher --limit, or --all.")


@command()
@click.argument("user")
@on_runtime
async def show(console: Console, runtime: Runtime, user: str) -> None:
    """Show the account USER (username, e-mail address or id)."""
    console.show_fields(as_document(await find_account(runtime, user)))


@command()
@click.argument("username")
@click.argument("email")
@click.option("--display-name", metavar="NAME", help="The name to show.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role to hold in place of the default one.")
@password_option
@on_runtime
async def create(
    console: Console,
    runtime: Runtime,
    username: str,
    email: str,
    display_name: str | None,
    roles: tuple[str, ...],
    password_stdin: bool,
) -> None:
    """Make an account. Its password is asked for, or read from standard input."""
    new = checked_account(
        runtime,
        username=username,
        email=email,
        password=presented_password(from_stdin=password_stdin),
        display_name=display_name,
        roles=roles or None,
    )
    await make_account(console, runtime, new)


@command()
@click.argument("user")
@on_runtime
async def disable(console: Console, runtime: Runtime, user: str) -> None:
    """Keep the account USER from signing in; its sessions end. The last active administrator stays."""
    await _set_status(console, runtime, user, Status.DISABLED)


@command()
@click.argument("user")
@on_runtime
async def enable(console: Console, runtime: Runtime, user: str) -> None:
    """Let the account USER sign in again."""
    await _set_status(console, runtime, user, Status.ACTIVE)


async def make_account(console: Console, runtime: Runtime, new: NewUser) -> None:
    """Register an account as the operator, and tell of it."""
    made = await register_user(runtime, OPERATOR, new)
    assert isinstance(made, UserView)  # without an idempotency key nothing is answered from memory
    console.show(as_document(made), f"Made {made.user.username} ({', '.join(made.roles)}), id {made.user.id}.")


def as_document(view: UserView) -> dict[str, Any]:
    """An account as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(UserOut.of(view))
    return document


@command()
@click.argument("user")
@on_runtime
async def unlock(console: Console, runtime: Runtime, user: str) -> None:
    """Forget the failed sign-ins of USER, so that they can try again from anywhere."""
    view = await find_account(runtime, user)
    await throttle.forget_account(runtime, [view.user.username_key, view.user.email_key])
    console.show({"id": str(view.user.id)}, f"The failed sign-ins of {view.user.username} are forgotten.")


@command()
@click.argument("user")
@on_runtime
async def erase(console: Console, runtime: Runtime, user: str) -> None:
    """Erase USER for good, with everything but the record of what happened. It cannot be undone.

    An account that was deleted before is named by its id.
    """
    user_id = await _id_of(runtime, user)
    console.confirm(f"Erase {user} for good?")
    await personal_data.erase_user(runtime, OPERATOR, user_id)
    console.show({"id": str(user_id), "erased": True}, f"Erased {user}.")


async def _id_of(runtime: Runtime, user: str) -> UUID:
    """The id of an account that may have been deleted."""
    try:
        return (await find_account(runtime, user)).user.id
    except UserNotFound:
        try:
            return UUID(user)
        except ValueError:
            pass
        raise


def _query(filters: dict[str, str]) -> ListUsers:
    """The conditions, checked as those of a request are."""
    refuse_unstorable(filters)
    return validated(ListUsers, filters, context=None, is_query=True)


async def _pages(runtime: Runtime, query: ListUsers, wanted: int | None) -> AsyncIterator[tuple[list[UserView], bool]]:
    """Pages of accounts until there are as many as wanted, each with whether it is the last there is."""
    position, left = None, wanted
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        found = await service.list_users(
            runtime, OPERATOR, query.filters(), order=query.sort, position=position, limit=size, count=Count.NONE
        )
        position = found.page.next
        left = None if left is None else left - size
        yield list(found.page.items), position is None or bool(left)
        if position is None:
            return


async def _set_status(console: Console, runtime: Runtime, name: str, status: Status) -> None:
    view = await find_account(runtime, name)
    if view.user.status == status:
        console.show(as_document(view), f"{view.user.username} is {status} already.")
        return
    updated = await changes.update_user(runtime, OPERATOR, view.user.id, Demand(Changes(status=status)))
    console.show(as_document(updated), f"{updated.user.username} is {status}.")
