"""`usermgmt groups`: groups of accounts, over which roles can be held. Groups are named by name or id."""

from typing import Any
from uuid import UUID

import click
import msgspec

from usermgmt.groups import service
from usermgmt.groups.schemas import CreateGroup, GroupOut
from usermgmt.groups.service import GroupNotFound, GroupView
from usermgmt.http.body import validated
from usermgmt.operator.accounts import find_account, refuse_unstorable
from usermgmt.operator.console import Console, counted
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR

COLUMNS = ("name", "members", "description", "id")


async def find_group(runtime: Runtime, name: str) -> GroupView:
    """The group that somebody named by its name or its id, or `GroupNotFound`."""
    refuse_unstorable({"group": name})
    for view in await service.list_groups(runtime):
        if name in (view.group.name, str(view.group.id)):
            return view
    raise GroupNotFound(f"There is no group {name!r}.")


@command("list")
@on_runtime
async def list_groups(console: Console, runtime: Runtime) -> None:
    """List the groups."""
    console.table(COLUMNS).add([_document(view) for view in await service.list_groups(runtime)])


@command()
@click.argument("name")
@click.option("--description", default="", help="What it is for.")
@on_runtime
async def create(console: Console, runtime: Runtime, name: str, description: str) -> None:
    """Make a group."""
    refuse_unstorable({"name": name, "description": description})
    body = validated(CreateGroup, {"name": name, "description": description}, context=None)
    made = await service.create_group(runtime, OPERATOR, name=body.name, description=body.description)
    console.show_fields(_document(made))


@command()
@click.argument("group")
@on_runtime
async def delete(console: Console, runtime: Runtime, group: str) -> None:
    """Remove GROUP and every role that is held over it; its members stay."""
    view = await find_group(runtime, group)
    console.confirm(f"Remove the group {view.group.name} with {view.members} members?")
    await service.delete_group(runtime, OPERATOR, view.group.id)
    console.show({"id": str(view.group.id), "deleted": True}, f"Removed the group {view.group.name}.")


@command()
@click.argument("group")
@click.argument("user")
@on_runtime
async def add(console: Console, runtime: Runtime, group: str, user: str) -> None:
    """Put USER into GROUP."""
    group_id, user_id = await _found(runtime, group, user)
    await service.add_member(runtime, OPERATOR, group_id, user_id)
    await _tell(console, runtime, group_id)


@command()
@click.argument("group")
@click.argument("user")
@on_runtime
async def remove(console: Console, runtime: Runtime, group: str, user: str) -> None:
    """Take USER out of GROUP."""
    group_id, user_id = await _found(runtime, group, user)
    await service.remove_member(runtime, OPERATOR, group_id, user_id)
    await _tell(console, runtime, group_id)


async def _found(runtime: Runtime, group: str, user: str) -> tuple[UUID, UUID]:
    return (await find_group(runtime, group)).group.id, (await find_account(runtime, user)).user.id


async def _tell(console: Console, runtime: Runtime, group_id: UUID) -> None:
    view = await service.get_group(runtime, group_id)
    console.show(_document(view), f"{view.group.name} has {counted(view.members, 'member')} now.")


def _document(view: GroupView) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(GroupOut.of(view))
    return document
