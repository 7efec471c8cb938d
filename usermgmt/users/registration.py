"""Accounts: making them, by registering or by whoever may, once however often it is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.idempotency import service as idempotency
from usermgmt.idempotency.service import AnsweredMeanwhile, IdempotentRequest, StoredAnswer
from usermgmt.identifiers import new_id
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.roles import service as roles
from usermgmt.runtime import Runtime
from usermgmt.security.names import canonical_email, prefix_key, username_key
from usermgmt.security.principal import Caller
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.users import queries
from usermgmt.users.models import Status, User
from usermgmt.users.service import FieldNotPermitted, UserView, list_taken, login_names_of, raise_taken, take_names

CREATED = 201


@dataclass(frozen=True, slots=True)
class NewUser:
    """What an account is made from. `status` and `roles` are None unless they were asked for."""

    username: str
    email: str
    password: str | None
    display_name: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None
    roles: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Once:
    """The wish to be answered the same when asked again: the named request, and how its answer is written."""

    request: IdempotentRequest
    write: Callable[[UserView], str]


@repeated_on_conflict
async def register_user(
    runtime: Runtime, caller: Caller, new: NewUser, *, once: Once | None = None
) -> UserView | StoredAnswer:
    """Make an account, with its names, its roles and its record, or nothing at all.

    Exactly one of several registrations of a name succeeds. Refused: `UsernameTaken`, `EmailTaken`,
    `FieldNotPermitted` (status and roles need `users:write`), `ExceedsOwnRights`, `Overloaded`. With `once`, a request
    that was answered before gets its `StoredAnswer`.
    """
    if (new.status is not None or new.roles is not None) and not caller.has(Permission.USERS_WRITE):
        raise FieldNotPermitted
    user = new_account(new, runtime.clock.now())
    async with runtime.database.read() as session:
        # first: whoever took them under this key has answered by now
        taken = await list_taken(session, login_names_of(user))
        if once is not None and (answer := await idempotency.find_answer(session, once.request, now=user.created_at)):
            return answer
    raise_taken(taken)
    if new.password is not None:
        user.password_hash = await runtime.hasher.hash(new.password)
    try:
        return await _insert_account(runtime, caller, user, new.roles, once)
    except AnsweredMeanwhile:
        return await _answer_of(runtime, once)


def new_account(new: NewUser, now: datetime) -> User:
    """The row of an account that is about to be made; its password is hashed by whoever makes it."""
    address = canonical_email(new.email)
    return User(
        id=new_id(),
        username=new.username,
        username_key=username_key(new.username),
        email=address.address,
        email_key=address.key,
        display_name=new.display_name,
        display_name_key=prefix_key(new.display_name) if new.display_name else None,
        password_hash=None,
        status=new.status or Status.ACTIVE,
        attributes=new.attributes,
        version=1,
        created_at=now,
        updated_at=now,
        password_changed_at=now if new.password is not None else None,
    )


async def insert_account(session: AsyncSession, caller: Caller, user: User, granted: Sequence[str]) -> UserView:
    """Add an account with its names, its roles and its record. Refused: `UsernameTaken`, `EmailTaken`."""
    now = user.created_at
    await take_names(session, user.id, login_names_of(user))
    await queries.insert_user(session, user)
    for role in granted:
        await role_queries.insert_grant(session, user.id, role, granted_by=caller.user_id, at=now)
    await audit.record(
        session, Event.USER_CREATED, caller=caller, at=now, user_id=user.id, details={"roles": list(granted)}
    )
    return UserView(user, granted)


async def _insert_account(
    runtime: Runtime, caller: Caller, user: User, wanted: Sequence[str] | None, once: Once | None
) -> UserView:
    now = user.created_at
    granted = sorted(set(wanted)) if wanted is not None else [runtime.settings.registration.default_role]
    async with runtime.database.begin() as session:
        if once is not None:
            await idempotency.claim_key(session, once.request, now=now)
        if wanted is not None:
            await roles.check_grantable(session, caller, wanted)
        view = await insert_account(session, caller, user, granted)
        if once is not None:
            await idempotency.store_answer(session, once.request, status=CREATED, body=once.write(view))
    return view


async def _answer_of(runtime: Runtime, once: Once | None) -> StoredAnswer:
    """The answer of the request that was faster."""
    assert once is not None
    async with runtime.database.read() as session:
        answer = await idempotency.find_answer(session, once.request, now=runtime.clock.now())
    if answer is None:
        raise idempotency.RequestInProgress
    return answer
