"""The routes of groups and their members. Who is in a group: `GET /api/users?group=<id>`."""

from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.errors import UserNotFound
from usermgmt.groups import service
from usermgmt.groups.schemas import CreateGroup, GroupOut, GroupsOut, UpdateGroup
from usermgmt.groups.service import GroupNameTaken, GroupNotFound
from usermgmt.http.access import answers, emits, limited, refuses, require
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, runtime
from usermgmt.permissions import Permission, RuleSet
from usermgmt.roles.service import ExceedsOwnRights

blueprint = Blueprint("groups", __name__, url_prefix="/api/groups")


@blueprint.get("")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, GroupsOut)
async def list_groups() -> Response:
    """List the groups."""
    return answer(GroupsOut([GroupOut.of(view) for view in await service.list_groups(runtime())]))


@blueprint.post("")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.GROUP_CREATED)
@answers(201, GroupOut)
@refuses(GroupNameTaken)
async def create_group(body: CreateGroup) -> Response:
    """Make a group."""
    view = await service.create_group(runtime(), caller(), name=body.name, description=body.description)
    location = f"{runtime().settings.server.public_url}/api/groups/{view.group.id}"
    return answer(GroupOut.of(view), 201, headers={"Location": location})


@blueprint.get("/<id:group_id>")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, GroupOut)
@refuses(GroupNotFound)
async def get_group(group_id: UUID) -> Response:
    """Return one group."""
    return answer(GroupOut.of(await service.get_group(runtime(), group_id)))


@blueprint.put("/<id:group_id>")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.GROUP_UPDATED)
@answers(200, GroupOut)
@refuses(GroupNotFound, GroupNameTaken)
async def update_group(group_id: UUID, body: UpdateGroup) -> Response:
    """Change a group's name, its description, or both."""
    view = await service.update_group(runtime(), caller(), group_id, name=body.name, description=body.description)
    return answer(GroupOut.of(view))


@blueprint.delete("/<id:group_id>")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.GROUP_DELETED)
@answers(204)
@refuses(GroupNotFound, ExceedsOwnRights)
async def delete_group(group_id: UUID) -> Response:
    """Remove a group and every role that is held over it; its members stay."""
    await service.delete_group(runtime(), caller(), group_id)
    return no_content()


@blueprint.put("/<id:group_id>/members/<user_ref:user_id>")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.GROUP_MEMBER_ADDED)
@answers(204)
@refuses(GroupNotFound, UserNotFound, ExceedsOwnRights)
async def add_member(group_id: UUID, user_id: UUID) -> Response:
    """Put a user into a group."""
    await service.add_member(runtime(), caller(), group_id, user_id)
    return no_content()


@blueprint.delete("/<id:group_id>/members/<user_ref:user_id>")
@require(Permission.GROUPS_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.GROUP_MEMBER_REMOVED)
@answers(204)
@refuses(GroupNotFound, UserNotFound)
async def remove_member(group_id: UUID, user_id: UUID) -> Response:
    """Take a user out of a group."""
    await service.remove_member(runtime(), caller(), group_id, user_id)
    return no_content()
