"""The routes of accounts."""

from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.errors import InvalidHeader, Overloaded, RecentSignInRequired, UserNotFound
from usermgmt.groups.service import GroupNotFound
from usermgmt.http.access import (
    accepts_header,
    answers,
    emits,
    limited,
    refuses,
    require,
)
from usermgmt.http.answers import answer, expected_version, no_content, versioned
from usermgmt.http.context import caller, principal, runtime
from usermgmt.http.paging import read_position
from usermgmt.http.streams import streamed, wants_stream
from usermgmt.idempotency.service import (
    IdempotencyKeyReused,
    RequestInProgress,
    StoredAnswer,
)
from usermgmt.permissions import Permission, RuleSet
from usermgmt.roles.service import ExceedsOwnRights, RoleNotFound
from usermgmt.settings import Settings
from usermgmt.storage.pages import InvalidCursor, list_digest
from usermgmt.throttle.service import TooManyAttempts
from usermgmt.users import changes, grants, registration, service
from usermgmt.users.changes import (
    Demand,
    UserChanged,
    UserNotDeleted,
)
from usermgmt.users.ownership import WrongCurrentPassword
from usermgmt.users.schemas import (
    CreateUser,
    DeleteUser,
    GrantScope,
    GrantsOut,
    ListUsers,
    PatchUser,
    UpdateUser,
    UserOut,
    UserPageOut,
)
from usermgmt.users.service import EmailTaken, FieldNotPermitted, LastAdmin, UsernameTaken
from usermgmt.users.translation import (
    BOUND_TO_CURSOR,
    NO_PATCH,
    batches,
    changes_of,
    documents,
    find_page,
    location,
    merged,
    new_user,
    once,
    page_answer,
    repeated,
    updated,
)

blueprint = Blueprint("users", __name__, url_prefix="/api/users")

_UPDATE_EVENTS = (
    Event.USER_UPDATED,
    Event.PASSWORD_CHANGED,
    Event.USER_DISABLED,
    Event.USER_ENABLED,
    Event.ROLE_GRANTED,
    Event.ROLE_REVOKED,
    Event.SESSION_REVOKED,
    Event.REAUTHENTICATION_FAILED,
    Event.REAUTHENTICATION_THROTTLED,
)
_CHANGE_REFUSALS = (
    ExceedsOwnRights,
    LastAdmin,
    UserChanged,
    InvalidHeader,
    RecentSignInRequired,
    WrongCurrentPassword,
    TooManyAttempts,
    Overloaded,
)
_UPDATE_REFUSALS = (UserNotFound, UsernameTaken, EmailTaken, FieldNotPermitted, *_CHANGE_REFUSALS)


def registration_is_open(settings: Settings) -> bool:
    """Whether anybody may register."""
    return settings.registration.mode == "open"


@blueprint.get("")
@require(Permission.USERS_READ, confinable=True)
@limited("read")
@answers(200, UserPageOut, is_streamed=True)
@refuses(InvalidCursor)
@accepts_header("Accept")
async def list_users(query: ListUsers) -> Response:
    """List users, a page at a time; with `Accept: application/x-ndjson` all of them, a document a line.

    Where lists come from a replica they may be a moment old; `Cache-Control: no-cache` asks for the present.
    """
    digest = list_digest(principal().user_id, *(getattr(query, name) for name in BOUND_TO_CURSOR))
    position = read_position(query.cursor, digest)
    if wants_stream():
        return streamed(documents(query, batches(query)))
    return page_answer(query, await find_page(query, position), digest)


@blueprint.post("")
@require(Permission.USERS_WRITE, or_when=registration_is_open)
@limited("register")
@emits(Event.USER_CREATED)
@answers(201, UserOut)
@refuses(
    UsernameTaken,
    EmailTaken,
    FieldNotPermitted,
    ExceedsOwnRights,
    IdempotencyKeyReused,
    RequestInProgress,
    InvalidHeader,
    Overloaded,
)
@accepts_header("Idempotency-Key")
async def create_user(body: CreateUser) -> Response:
    """Register, or create a user."""
    made = await registration.register_user(runtime(), caller(), new_user(body), once=await once())
    if isinstance(made, StoredAnswer):
        return repeated(made)
    return versioned(UserOut.of(made), made.user.version, 201, headers={"Location": location(made.user.id)})


@blueprint.get("/<user_ref:user_id>")
@require(Permission.USERS_READ, or_self="user_id", confinable=True)
@limited("read")
@answers(200, UserOut)
@answers(304)
@refuses(UserNotFound)
@accepts_header("If-None-Match")
async def get_user(user_id: UUID) -> Response:
    """Return one user."""
    view = await service.get_user(runtime(), caller(), user_id)
    return versioned(UserOut.of(view), view.user.version)


@blueprint.put("/<user_ref:user_id>")
@require(Permission.USERS_WRITE, or_self="user_id", confinable=True)
@limited("write")
@emits(*_UPDATE_EVENTS)
@answers(200, UserOut)
@refuses(*_UPDATE_REFUSALS)
@accepts_header("If-Match")
async def update_user(user_id: UUID, body: UpdateUser) -> Response:
    """Set the fields that are sent, leave the others alone."""
    demand = Demand(changes_of(body), body.current_password, expected_version())
    return updated(await changes.update_user(runtime(), caller(), user_id, demand))


@blueprint.patch("/<user_ref:user_id>")
@require(Permission.USERS_WRITE, or_self="user_id", confinable=True)
@limited("write")
@emits(*_UPDATE_EVENTS)
@answers(200, UserOut)
@refuses(*_UPDATE_REFUSALS)
@accepts_header("If-Match")
async def patch_user(user_id: UUID, body: PatchUser) -> Response:
    """Apply a JSON Merge Patch."""
    wanted = changes_of(body)
    patch = wanted.pop("attributes", None) if "attributes" in wanted else NO_PATCH
    merge = None if patch is NO_PATCH else lambda present: merged(present, patch)
    demand = Demand(wanted, body.current_password, expected_version(), merge_attributes=merge)
    return updated(await changes.update_user(runtime(), caller(), user_id, demand))


@blueprint.delete("/<user_ref:user_id>")
@require(Permission.USERS_DELETE, or_self="user_id", confinable=True)
@limited("write")
@emits(
    Event.USER_DELETED,
    Event.SESSION_REVOKED,
    Event.REAUTHENTICATION_FAILED,
    Event.REAUTHENTICATION_THROTTLED,
)
@answers(204)
@refuses(UserNotFound, *_CHANGE_REFUSALS)
@accepts_header("If-Match")
async def delete_user(user_id: UUID, body: DeleteUser | None) -> Response:
    """Delete a user; an administrator can restore it until it is erased."""
    password = body.current_password if body is not None else None
    await changes.delete_user(runtime(), caller(), user_id, current_password=password, is_expected=expected_version())
    return no_content()


@blueprint.post("/<user_ref:user_id>/restore")
@require(Permission.USERS_DELETE, confinable=True)
@limited("write")
@emits(Event.USER_RESTORED)
@answers(200, UserOut)
@refuses(UserNotFound, UserNotDeleted, ExceedsOwnRights)
async def restore_user(user_id: UUID) -> Response:
    """Undo a deletion."""
    return updated(await changes.restore_user(runtime(), caller(), user_id))


@blueprint.get("/<user_ref:user_id>/roles")
@require(Permission.ROLES_GRANT, or_self="user_id", confinable=True)
@limited("read")
@answers(200, GrantsOut)
@refuses(UserNotFound)
async def list_grants(user_id: UUID) -> Response:
    """List the roles of a user, those held over a group with their group."""
    return answer(GrantsOut.of(await grants.list_grants(runtime(), caller(), user_id)))


@blueprint.put("/<user_ref:user_id>/roles/<role_name:role>")
@require(Permission.ROLES_GRANT, confinable=True, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.ROLE_GRANTED)
@answers(204)
@refuses(UserNotFound, RoleNotFound, GroupNotFound, ExceedsOwnRights)
async def grant_role(user_id: UUID, role: str, query: GrantScope) -> Response:
    """Give a role to a user, over everything or with `group` over one group."""
    await grants.grant_role(runtime(), caller(), user_id, role, group=query.group)
    return no_content()


@blueprint.delete("/<user_ref:user_id>/roles/<role_name:role>")
@require(Permission.ROLES_GRANT, confinable=True, rule_set=RuleSet.ADMIN)
@limited("admin")
@emits(Event.ROLE_REVOKED)
@answers(204)
@refuses(UserNotFound, RoleNotFound, GroupNotFound, ExceedsOwnRights, LastAdmin)
async def revoke_role(user_id: UUID, role: str, query: GrantScope) -> Response:
    """Take a role from a user, over everything or with `group` over one group."""
    await grants.revoke_role(runtime(), caller(), user_id, role, group=query.group)
    return no_content()
