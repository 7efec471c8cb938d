"""`usermgmt admin`: making administrators, and letting one back in who lost the password."""

import click

from usermgmt.operator.accounts import check_password, checked_account, find_account
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command
from usermgmt.operator.passwords import password_option, presented_password
from usermgmt.operator.user_commands import as_document, make_account
from usermgmt.operator.workplace import on_runtime
from usermgmt.permissions import ADMIN
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.users import changes
from usermgmt.users.changes import Changes, Demand
from usermgmt.users.models import Status


@command()
@click.argument("username")
@click.argument("email")
@click.option("--display-name", metavar="NAME", help="The name to show.")
@password_option
@on_runtime
async def create(
    console: Console, runtime: Runtime, username: str, email: str, display_name: str | None, password_stdin: bool
) -> None:
    """Make an account with the admin role. Its password is asked for, or read from standard input."""
    new = checked_account(
        runtime,
        username=username,
        email=email,
        password=presented_password(from_stdin=password_stdin),
        display_name=display_name,
        roles=[ADMIN],
    )
    await make_account(console, runtime, new)


@command("reset-password")
@click.argument("user")
@click.option("--grant-admin", is_flag=True, help="Give the account the admin role too.")
@password_option
@on_runtime
async def reset_password(
    console: Console, runtime: Runtime, user: str, grant_admin: bool, password_stdin: bool
) -> None:
    """Set the password of USER and enable the account: the way back in. All its sessions end.

    With --grant-admin it is an administrator afterwards, whatever it was before.
    """
    view = await find_account(runtime, user)
    password = presented_password(from_stdin=password_stdin)
    names = (view.user.username, view.user.email, view.user.display_name)
    check_password(runtime, password, names=names)
    wanted = Changes(password=password, status=Status.ACTIVE)
    if grant_admin:
        wanted["roles"] = sorted({*view.roles, ADMIN})
    updated = await changes.update_user(runtime, OPERATOR, view.user.id, Demand(wanted))
    console.show(
        as_document(updated),
        f"{updated.user.username} can sign in with the new password ({', '.join(updated.roles)}).",
    )
