"""The routes of accounts."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec
from quart import Blueprint, Response, request

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
from usermgmt.http.answers import answer, encode, entity_tag, expected_version, json_response, no_content, versioned
from usermgmt.http.body import raw_body
from usermgmt.http.context import caller, client, principal, renewal, runtime
from usermgmt.http.paging import cursors_of, links, may_lag, read_position
from usermgmt.http.streams import streamed, wants_stream
from usermgmt.idempotency.service import (
    IdempotencyKeyReused,
    RequestInProgress,
    StoredAnswer,
    idempotent_request,
)
from usermgmt.permissions import Permission
from usermgmt.roles.service import ExceedsOwnRights, RoleNotFound
from usermgmt.settings import Settings
from usermgmt.storage.pages import InvalidCursor, Position, list_digest
from usermgmt.throttle.service import TooManyAttempts
from usermgmt.users import changes, service
from usermgmt.users.changes import (
    Changes,
    Demand,
    UserChanged,
    UserNotDeleted,
)
from usermgmt.users.models import Status
from usermgmt.users.ownership import WrongCurrentPassword
from usermgmt.users.schemas import (
    CreateUser,
    DeleteUser,
    GrantScope,
    GrantsOut,
    ListedUser,
    ListUsers,
    PatchUser,
    UpdateUser,
    UserOut,
    UserPageOut,
)
from usermgmt.users.service import (
    EmailTaken,
    FieldNotPermitted,
    LastAdmin,
    NewUser,
    Once,
    UsernameTaken,
    UserPage,
    UserView,
)

blueprint = Blueprint("users", __name__, url_prefix="/api/users")

MAX_IDEMPOTENCY_KEY = 255

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
_UPDATE_REFUSALS = (
    UserNotFound,
    UsernameTaken,
    EmailTaken,
    FieldNotPermitted,
    ExceedsOwnRights,
    LastAdmin,
    UserChanged,
    InvalidHeader,
    RecentSignInRequired,
    WrongCurrentPassword,
    TooManyAttempts,
    Overloaded,
)


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
    digest = list_digest(principal().user_id, *(getattr(query, name) for name in _BOUND_TO_CURSOR))
    position = read_position(query.cursor, digest)
    if wants_stream():
        return streamed(_documents(query, _batches(query)))
    return _page_answer(query, await _page(query, position), digest)


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
    made = await service.register_user(runtime(), caller(), _new_user(body), once=await _once())
    if isinstance(made, StoredAnswer):
        return _repeated(made)
    return versioned(UserOut.of(made), made.user.version, 201, headers={"Location": _location(made.user.id)})


@blueprint.get("/<user_ref:user_id>")
@require(Permission.USERS_READ, or_self="user_id", confinable=True)
@limited("read")
@answers(200, UserOut)
@answers(304)
@refuses(UserNotFound)
@accepts_header("If-None-Match")
async def get_user(user_id: UUID) -> Response:
    """Return one user."""
    user = await service.get_user(runtime(), caller(), user_id)
    return versioned(UserOut.read(user, user.roles, user.groups), user.version)


@blueprint.put("/<user_ref:user_id>")
@require(Permission.USERS_WRITE, or_self="user_id", confinable=True)
@limited("write")
@emits(*_UPDATE_EVENTS)
@answers(200, UserOut)
@refuses(*_UPDATE_REFUSALS)
@accepts_header("If-Match")
async def update_user(user_id: UUID, body: UpdateUser) -> Response:
    """Set the fields that are sent, leave the others alone."""
    demand = Demand(_changes(body), body.current_password, expected_version())
    return _updated(await changes.update_user(runtime(), caller(), user_id, demand))


@blueprint.patch("/<user_ref:user_id>")
@require(Permission.USERS_WRITE, or_self="user_id", confinable=True)
@limited("write")
@emits(*_UPDATE_EVENTS)
@answers(200, UserOut)
@refuses(*_UPDATE_REFUSALS)
@accepts_header("If-Match")
async def patch_user(user_id: UUID, body: PatchUser) -> Response:
    """Apply a JSON Merge Patch."""
    wanted = _changes(body)
    patch = wanted.pop("attributes", None) if "attributes" in wanted else _NO_PATCH
    merge = None if patch is _NO_PATCH else lambda present: changes.merged(present, patch)
    demand = Demand(wanted, body.current_password, expected_version(), merge_attributes=merge)
    return _updated(await changes.update_user(runtime(), caller(), user_id, demand))


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
@refuses(
    UserNotFound,
    ExceedsOwnRights,
    LastAdmin,
    UserChanged,
    InvalidHeader,
    RecentSignInRequired,
    WrongCurrentPassword,
    TooManyAttempts,
    Overloaded,
)
@accepts_header("If-Match")
async def delete_user(user_id: UUID, body: DeleteUser | None) -> Response:
    """Delete a user; an administrator can restore it until it is erased."""
    password = body.current_password if body is not None else None
    await changes.delete_user(
        runtime(), caller(), user_id, Demand(current_password=password, is_expected=expected_version())
    )
    return no_content()


@blueprint.post("/<user_ref:user_id>/restore")
@require(Permission.USERS_DELETE, confinable=True)
@limited("write")
@emits(Event.USER_RESTORED)
@answers(200, UserOut)
@refuses(UserNotFound, UserNotDeleted, ExceedsOwnRights)
async def restore_user(user_id: UUID) -> Response:
    """Undo a deletion."""
    return _updated(await changes.restore_user(runtime(), caller(), user_id))


@blueprint.get("/<user_ref:user_id>/roles")
@require(Permission.ROLES_GRANT, or_self="user_id", confinable=True)
@limited("read")
@answers(200, GrantsOut)
@refuses(UserNotFound)
async def list_grants(user_id: UUID) -> Response:
    """List the roles of a user, those held over a group with their group."""
    return answer(GrantsOut.of(await changes.list_grants(runtime(), caller(), user_id)))


@blueprint.put("/<user_ref:user_id>/roles/<role_name:role>")
@require(Permission.ROLES_GRANT, confinable=True, network="admin")
@limited("admin")
@emits(Event.ROLE_GRANTED)
@answers(204)
@refuses(UserNotFound, RoleNotFound, GroupNotFound, ExceedsOwnRights)
async def grant_role(user_id: UUID, role: str, query: GrantScope) -> Response:
    """Give a role to a user, over everything or with `group` over one group."""
    await changes.grant_role(runtime(), caller(), user_id, role, group=query.group)
    return no_content()


@blueprint.delete("/<user_ref:user_id>/roles/<role_name:role>")
@require(Permission.ROLES_GRANT, confinable=True, network="admin")
@limited("admin")
@emits(Event.ROLE_REVOKED)
@answers(204)
@refuses(UserNotFound, RoleNotFound, GroupNotFound, ExceedsOwnRights, LastAdmin)
async def revoke_role(user_id: UUID, role: str, query: GrantScope) -> Response:
    """Take a role from a user, over everything or with `group` over one group."""
    await changes.revoke_role(runtime(), caller(), user_id, role, group=query.group)
    return no_content()


# From bodies and queries


_NO_PATCH: Any = object()  # tells "no attributes sent" from "null sent"
_BOUND_TO_CURSOR = ("sort", "q", "email", "username", "status", "role", "group", "created_after", "created_before")


def _new_user(body: CreateUser) -> NewUser:
    return NewUser(
        username=body.username,
        email=body.email,
        password=body.password,
        display_name=body.display_name,
        attributes=body.attributes,
        status=Status(body.status) if body.status is not None else None,
        roles=body.roles,
    )


def _changes(body: UpdateUser | PatchUser) -> Changes:
    """The fields that were sent."""
    sent = {name: getattr(body, name) for name in body.model_fields_set if name != "current_password"}
    if "status" in sent:
        sent["status"] = Status(sent["status"])
    return cast("Changes", sent)


async def _once() -> Once | None:
    """The request's Idempotency-Key, if it has one."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise InvalidHeader(f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} printable characters.")
    user_id = caller().user_id
    asker = f"user:{user_id}" if user_id is not None else f"address:{client().address}"
    content = f"{request.method} {request.path}\n".encode() + await raw_body()
    named = idempotent_request(asker, key, content, secrets=runtime().secrets)
    return Once(named, lambda view: encode(UserOut.of(view)).decode())


# To answers


def _updated(view: UserView) -> Response:
    return versioned(UserOut.of(view), view.user.version)


def _location(user_id: UUID | str) -> str:
    """The address of a user, on the configured base and never on a Host header."""
    return f"{runtime().settings.server.public_url}/api/users/{user_id}"


def _repeated(stored: StoredAnswer) -> Response:
    """The answer that the first request under the key was given."""
    user = msgspec.json.decode(stored.body, type=UserOut)
    headers = {
        "Idempotency-Replayed": "true",
        "Location": _location(user.id),
        "ETag": entity_tag(user.version),
        "Cache-Control": "private, no-cache",
    }
    return json_response(stored.body, stored.status, headers=headers)


async def _page(query: ListUsers, position: Position | None) -> UserPage:
    return await service.list_users(
        runtime(),
        caller(),
        query.filters(),
        order=query.sort,
        position=position,
        limit=query.limit,
        count=query.count,
        may_lag=may_lag(),
    )


def _batches(query: ListUsers) -> AsyncIterator[Sequence[UserView]]:
    return service.stream_users(
        runtime(), caller(), query.filters(), order=query.sort, may_lag=may_lag(), renew=renewal()
    )


def _page_answer(query: ListUsers, found: UserPage, digest: bytes) -> Response:
    following, before = cursors_of(found.page, digest)
    items = [query.listed(view) for view in found.page.items]
    body = UserPageOut(items=items, next_cursor=following, prev_cursor=before)
    if found.count is not None:
        body.count, body.count_is_exact = found.count, found.is_count_exact
    return answer(body, headers=links(following, before))


async def _documents(query: ListUsers, batches: AsyncIterator[Sequence[UserView]]) -> AsyncIterator[list[ListedUser]]:
    async for batch in batches:
        yield [query.listed(view) for view in batch]
