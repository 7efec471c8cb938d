"""`usermgmt roles`: seeing roles, giving them and taking them away, with the operator on the record."""

from typing import Any
from uuid import UUID

import click

from usermgmt.operator.accounts import find_account, refuse_unstorable
from usermgmt.operator.console import Console
from usermgmt.operator.grammar import command
from usermgmt.operator.group_commands import find_group
from usermgmt.operator.workplace import on_runtime
from usermgmt.roles import queries, service
from usermgmt.roles.queries import RoleRecord
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.users import grants as role_grants

COLUMNS = ("name", "built_in", "permissions", "description")


@command("list")
@on_runtime
async def list_roles(console: Console, runtime: Runtime) -> None:
    """List every role and what it permits."""
    console.table(COLUMNS).add([_document(role) for role in await service.list_roles(runtime)])


@command()
@click.argument("role")
@on_runtime
async def show(console: Console, runtime: Runtime, role: str) -> None:
    """Show what ROLE permits and how many accounts hold it."""
    refuse_unstorable({"role": role})
    record = await service.get_role(runtime, role)
    async with runtime.database.read() as session:
        holders = await queries.count_holders(session, role)
    console.show_fields({**_document(record), "holders": holders})


@command()
@click.argument("user")
@click.argument("role")
@click.option("--group", help="Over the members of this group only.")
@on_runtime
async def grant(console: Console, runtime: Runtime, user: str, role: str, group: str | None) -> None:
    """Give ROLE to USER, over everything or over one group."""
    view = await find_account(runtime, user)
    refuse_unstorable({"role": role})
    await role_grants.grant_role(runtime, OPERATOR, view.user.id, role, group=await _group_id(runtime, group))
    await _tell(console, runtime, user)


@command()
@click.argument("user")
@click.argument("role")
@click.option("--group", help="Over the members of this group only.")
@on_runtime
async def revoke(console: Console, runtime: Runtime, user: str, role: str, group: str | None) -> None:
    """Take ROLE from USER. The last active administrator keeps theirs."""
    view = await find_account(runtime, user)
    refuse_unstorable({"role": role})
    await role_grants.revoke_role(runtime, OPERATOR, view.user.id, role, group=await _group_id(runtime, group))
    await _tell(console, runtime, user)


async def _group_id(runtime: Runtime, group: str | None) -> UUID | None:
    return None if group is None else (await find_group(runtime, group)).group.id


async def _tell(console: Console, runtime: Runtime, user: str) -> None:
    view = await find_account(runtime, user)
    grants = await role_grants.list_grants(runtime, OPERATOR, view.user.id)
    held = [{"role": grant.role, "group": str(grant.group) if grant.group is not None else None} for grant in grants]
    document = {"id": str(view.user.id), "username": view.user.username, "roles": list(view.roles), "grants": held}
    words = [grant.role if grant.group is None else f"{grant.role} over the group {grant.group}" for grant in grants]
    console.show(document, f"{view.user.username} now holds: {', '.join(words) or 'no role'}.")


def _document(role: RoleRecord) -> dict[str, Any]:
    return {
        "name": role.name,
        "built_in": role.built_in,
        "permissions": sorted(map(str, role.permissions)),
        "description": role.description,
    }
