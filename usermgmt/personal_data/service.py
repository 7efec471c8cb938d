"""What is held about a person: handing it out (GDPR, article 15), and erasing it (article 17).

Erasing removes the account and frees its names. The record of what happened stays, without the name, the addresses and
the user agents, and still verifies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries as audit_queries
from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.audit.models import AuditEvent
from usermgmt.audit.queries import EventFilters
from usermgmt.errors import UserNotFound
from usermgmt.groups.models import Group
from usermgmt.permissions import Permission
from usermgmt.personal_data import queries
from usermgmt.roles import queries as role_queries
from usermgmt.roles import service as roles
from usermgmt.roles.queries import Grant
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR, Caller
from usermgmt.sessions.models import Session
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.users import queries as user_queries
from usermgmt.users.models import User
from usermgmt.users.service import UserView, admin_kept, view_of

BATCH = 100
MAX_EVENTS = 10_000
"""The newest events that an export holds; the whole record of one's account is at `/activity`, page by page."""


@dataclass(frozen=True, slots=True)
class Export:
    """Everything that is held about an account."""

    view: UserView
    grants: Sequence[Grant]
    groups: Sequence[Group]
    sessions: Sequence[Session]
    events: Sequence[AuditEvent]


@repeated_on_conflict
async def export_user(runtime: Runtime, caller: Caller, user_id: UUID) -> Export:
    """Everything about one's own account, or about one that `users:export` reaches; else `UserNotFound`. It is recorded
    that it was handed out.
    """
    reach = caller.reach(Permission.USERS_EXPORT, or_own=True)
    async with runtime.database.begin() as session:  # on record first: reading much must not hold up who writes
        if await user_queries.find_user(session, user_id, reach) is None:
            raise UserNotFound
        await audit.record(session, Event.USER_EXPORTED, caller=caller, at=runtime.clock.now(), user_id=user_id)
    async with runtime.database.read() as session:
        user = await user_queries.find_user(session, user_id, reach)
        if user is None:
            raise UserNotFound
        newest = await audit_queries.list_events(session, EventFilters(owner=user_id), position=None, limit=MAX_EVENTS)
        return Export(
            view=await view_of(session, user),
            grants=await role_queries.list_grants(session, user_id),
            groups=await queries.list_groups(session, user_id),
            sessions=await queries.list_sessions(session, user_id),
            events=newest[:MAX_EVENTS],
        )


@repeated_on_conflict
async def erase_user(runtime: Runtime, caller: Caller, user_id: UUID) -> None:
    """Erase an account now, deleted before or not. It cannot be undone. Refused: `UserNotFound`, `ExceedsOwnRights`,
    `LastAdmin`.
    """
    reach = caller.reach(Permission.USERS_ERASE)
    async with runtime.database.begin() as session, admin_kept(session):
        user = await user_queries.find_user_for_update(session, user_id, reach)
        if user is None:
            raise UserNotFound
        if not caller.is_user(user_id):
            await roles.check_covered(session, caller, user_id)
        await _erase(runtime, session, caller, user)


async def erase_due(runtime: Runtime) -> int:
    """Erase a batch of the accounts whose retention period is over; how many there were."""
    before = runtime.clock.now() - runtime.settings.retention.deleted_users
    async with runtime.database.read() as session:
        due = await queries.list_due(session, before=before, limit=BATCH)
    return sum([await _erase_if_due(runtime, user_id) for user_id in due])


@repeated_on_conflict
async def _erase_if_due(runtime: Runtime, user_id: UUID) -> bool:
    """Erase one account in a transaction of its own, unless it was restored meanwhile."""
    before = runtime.clock.now() - runtime.settings.retention.deleted_users
    async with runtime.database.begin() as session:
        user = await user_queries.find_user_for_update(session, user_id)
        if user is None or user.deleted_at is None or user.deleted_at >= before:
            return False
        await _erase(runtime, session, OPERATOR, user)
    return True


async def _erase(runtime: Runtime, session: AsyncSession, caller: Caller, user: User) -> None:
    names = {user.username, user.email, user.username_key, user.email_key}
    await queries.delete_stored_answers(session, user.id)
    await queries.delete_account(session, user)
    await audit.record(session, Event.USER_ERASED, caller=caller, at=runtime.clock.now(), user_id=user.id)
    await audit.erase(session, user.id, names=names)  # of that event too, when they erase themselves
