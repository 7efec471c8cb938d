"""Between HTTP and the use cases of accounts: what a request asks for, and what an answer shows."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec

from usermgmt.errors import InvalidHeader
from usermgmt.http.answers import Answer, answer, encode, entity_tag, json_response, versioned
from usermgmt.http.body import raw_body
from usermgmt.http.context import caller, client, header, method_and_path, renewal, runtime
from usermgmt.http.paging import cursors_of, links, may_lag
from usermgmt.idempotency.service import StoredAnswer, idempotent_request
from usermgmt.storage.pages import Position
from usermgmt.users import service
from usermgmt.users.changes import Changes
from usermgmt.users.models import Status
from usermgmt.users.registration import NewUser, Once
from usermgmt.users.schemas import CreateUser, ListedUser, ListUsers, PatchUser, UpdateUser, UserOut, UserPageOut
from usermgmt.users.service import UserPage, UserView

MAX_IDEMPOTENCY_KEY = 255
NO_PATCH: Any = object()  # tells "no attributes sent" from "null sent"
FREE_OF_CURSOR = {"limit", "cursor", "fields", "count"}
BOUND_TO_CURSOR = tuple(name for name in ListUsers.model_fields if name not in FREE_OF_CURSOR)
"""What a cursor is good for: another question, or another order, needs another."""


# From bodies and queries


def new_user(body: CreateUser) -> NewUser:
    """What an account is to be made from."""
    return NewUser(
        username=body.username,
        email=body.email,
        password=body.password,
        display_name=body.display_name,
        attributes=body.attributes,
        status=Status(body.status) if body.status is not None else None,
        roles=body.roles,
    )


def changes_of(body: UpdateUser | PatchUser) -> Changes:
    """The fields that were sent."""
    sent = {name: getattr(body, name) for name in body.model_fields_set if name != "current_password"}
    if "status" in sent:
        sent["status"] = Status(sent["status"])
    return cast("Changes", sent)


def merged(present: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch to a document (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return {} if patch is None else patch
    result = dict(present) if isinstance(present, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


async def once() -> Once | None:
    """The request's Idempotency-Key, if it has one."""
    key = header("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise InvalidHeader(f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} printable characters.")
    user_id = caller().user_id
    asker = f"user:{user_id}" if user_id is not None else f"address:{client().address}"
    content = f"{method_and_path()}\n".encode() + await raw_body()
    named = idempotent_request(asker, key, content, secrets=runtime().secrets)
    return Once(named, lambda view: encode(UserOut.of(view)).decode())


# To answers


def updated(view: UserView) -> Answer:
    """An account as it is now, with its version."""
    return versioned(UserOut.of(view), view.user.version)


def location(user_id: UUID | str) -> str:
    """The address of a user, on the configured base and never on a Host header."""
    return f"{runtime().settings.server.public_url}/api/users/{user_id}"


def repeated(stored: StoredAnswer) -> Answer:
    """The answer that the first request under the key was given."""
    user = msgspec.json.decode(stored.body, type=UserOut)
    headers = {
        "Idempotency-Replayed": "true",
        "Location": location(user.id),
        "ETag": entity_tag(user.version),
        "Cache-Control": "private, no-cache",
    }
    return json_response(stored.body, stored.status, headers=headers)


async def find_page(query: ListUsers, position: Position | None) -> UserPage:
    """The page that is asked for."""
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


def batches(query: ListUsers) -> AsyncIterator[Sequence[UserView]]:
    """All that is asked for; what the request says is read now, while there is one."""
    return service.stream_users(
        runtime(), caller(), query.filters(), order=query.sort, may_lag=may_lag(), renew=renewal()
    )


def page_answer(query: ListUsers, found: UserPage, digest: bytes) -> Answer:
    """A page, with the cursors of those beside it."""
    following, before = cursors_of(found.page, digest)
    body = UserPageOut(items=query.listed(found.page.items), next_cursor=following, prev_cursor=before)
    if found.count is not None:
        body.count, body.count_is_exact = found.count, found.is_count_exact
    return answer(body, headers=links(following, before))


async def documents(query: ListUsers, batches: AsyncIterator[Sequence[UserView]]) -> AsyncIterator[list[ListedUser]]:
    """The documents of a stream."""
    async for batch in batches:
        yield query.listed(batch)
