"""The routes of roles and permissions."""

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.http.access import answers, authenticated, emits, limited, refuses, require
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, runtime
from usermgmt.permissions import DESCRIPTIONS, Permission, RuleSet
from usermgmt.roles import service
from usermgmt.roles.schemas import CreateRole, PermissionOut, PermissionsOut, RoleOut, RolesOut, UpdateRole
from usermgmt.roles.service import ExceedsOwnRights, RoleBuiltIn, RoleInUse, RoleNameTaken, RoleNotFound

blueprint = Blueprint("roles", __name__, url_prefix="/api")


@blueprint.get("/permissions")
@authenticated
@limited("read")
@answers(200, PermissionsOut)
async def list_permissions() -> Response:
    """List what roles can permit."""
    return answer(PermissionsOut([PermissionOut(name=name, description=text) for name, text in DESCRIPTIONS.items()]))


@blueprint.get("/roles")
@require(Permission.ROLES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, RolesOut)
async def list_roles() -> Response:
    """List the roles."""
    return answer(RolesOut([RoleOut.of(role) for role in await service.list_roles(runtime())]))


@blueprint.post("/roles")
@require(Permission.ROLES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.ROLE_CREATED)
@answers(201, RoleOut)
@refuses(RoleNameTaken, ExceedsOwnRights)
async def create_role(body: CreateRole) -> Response:
    """Define a role."""
    role = await service.create_role(
        runtime(), caller(), name=body.name, description=body.description, permissions=frozenset(body.permissions)
    )
    location = f"{runtime().settings.server.public_url}/api/roles/{role.name}"
    return answer(RoleOut.of(role), 201, headers={"Location": location})


@blueprint.get("/roles/<role_name:name>")
@require(Permission.ROLES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, RoleOut)
@refuses(RoleNotFound)
async def get_role(name: str) -> Response:
    """Return one role."""
    return answer(RoleOut.of(await service.get_role(runtime(), name)))


@blueprint.put("/roles/<role_name:name>")
@require(Permission.ROLES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.ROLE_UPDATED)
@answers(200, RoleOut)
@refuses(RoleNotFound, RoleBuiltIn, ExceedsOwnRights)
async def update_role(name: str, body: UpdateRole) -> Response:
    """Change what a role permits, its description, or both."""
    permissions = frozenset(body.permissions) if "permissions" in body.model_fields_set else None
    role = await service.update_role(runtime(), caller(), name, description=body.description, permissions=permissions)
    return answer(RoleOut.of(role))


@blueprint.delete("/roles/<role_name:name>")
@require(Permission.ROLES_MANAGE, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.ROLE_DELETED)
@answers(204)
@refuses(RoleNotFound, RoleBuiltIn, RoleInUse, ExceedsOwnRights)
async def delete_role(name: str) -> Response:
    """Remove a role that nobody holds."""
    await service.delete_role(runtime(), caller(), name)
    return no_content()
