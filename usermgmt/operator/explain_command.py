"""`usermgmt explain`: which grant permits something, or why nothing does."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import click

from usermgmt.groups import queries as groups
from usermgmt.operator.accounts import find_account
from usermgmt.operator.console import Console, Exit
from usermgmt.operator.grammar import command
from usermgmt.operator.workplace import on_runtime
from usermgmt.permissions import CONFINABLE, Permission
from usermgmt.roles import queries as roles
from usermgmt.roles.queries import Grant, RoleRecord
from usermgmt.runtime import Runtime
from usermgmt.users.models import Status
from usermgmt.users.service import UserView


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether it is permitted, and each reason."""

    is_permitted: bool
    reasons: Sequence[str]


@command()
@click.argument("user")
@click.argument("permission", type=click.Choice(list(map(str, Permission))), metavar="PERMISSION")
@click.argument("resource", required=False)
@on_runtime
async def explain(console: Console, runtime: Runtime, user: str, permission: str, resource: str | None) -> int:
    """Tell whether USER holds PERMISSION, by which grant, or why not.

    RESOURCE is an account that it would be used on; without one, everything is. The exit code is 1 for no.
    """
    view = await find_account(runtime, user)
    target = await find_account(runtime, resource) if resource is not None else None
    explanation = await _explain(runtime, view, Permission(permission), target)
    verb = "may" if explanation.is_permitted else "may not"
    over = f" on {target.user.username}" if target is not None else ""
    lines = [f"{view.user.username} {verb} use {permission}{over}.", *(f"  {reason}" for reason in explanation.reasons)]
    document = {"permitted": explanation.is_permitted, "reasons": list(explanation.reasons)}
    console.show(document, "\n".join(lines))
    return Exit.OK if explanation.is_permitted else Exit.FAILURE


async def _explain(runtime: Runtime, view: UserView, permission: Permission, target: UserView | None) -> Explanation:
    """Ask the same questions as the server, and keep the answers."""
    async with runtime.database.read() as session:
        grants = await roles.list_grants(session, view.user.id)
        records = await roles.find_roles(session, {grant.role for grant in grants})
        names = {group.id: group.name for group in await groups.list_groups(session)}
        exceeds = target is not None and not (await roles.find_rights(session, view.user.id)).covers(
            await roles.find_rights(session, target.user.id)
        )
    if view.user.status != Status.ACTIVE:
        return Explanation(is_permitted=False, reasons=["The account is disabled: it cannot sign in."])
    found = [_judged(grant, records[grant.role], permission, target, names) for grant in grants]
    if target is not None and target.user.id == view.user.id:
        found.append((True, "It is their own account: routes that let an owner in let them in."))
    is_permitted = any(is_so for is_so, _ in found)
    reasons = [reason for _, reason in sorted(found, key=lambda item: not item[0])]
    if exceeds and target is not None and target.user.id != view.user.id:
        reasons.append(f"But {target.user.username} holds rights that they lack: changes are refused, reading is not.")
    return Explanation(is_permitted, reasons or ["They hold no role."])


def _judged(
    grant: Grant, role: RoleRecord, permission: Permission, target: UserView | None, names: dict[UUID, str]
) -> tuple[bool, str]:
    """Whether a grant permits it, and the sentence that says so."""
    where = "everything" if grant.group is None else f"the group {names.get(grant.group, grant.group)}"
    held = f"The role {role.name} over {where}"
    if permission not in role.permissions:
        return False, f"{held} does not permit {permission}."
    if grant.group is None:
        return True, f"{held} permits {permission}."
    if permission not in CONFINABLE:
        return False, f"{held} would permit {permission}, but that is about no account and means nothing there."
    if target is None:
        return False, f"{held} permits {permission} for its members only."
    if grant.group not in target.groups:
        return False, f"{held} permits {permission}, but {target.user.username} is not in that group."
    return True, f"{held} permits {permission}, and {target.user.username} is in that group."
