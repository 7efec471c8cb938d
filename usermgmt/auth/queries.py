"""The read that every request with a token makes: is the session alive, is the account active, what may it do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select

from usermgmt.audit.events import Event
from usermgmt.audit.models import AuditEvent
from usermgmt.permissions import Rights
from usermgmt.roles.held import held_grants, rights_of_grants
from usermgmt.sessions.models import Session, is_live
from usermgmt.storage.rows import Rows
from usermgmt.storage.wanted import DISTRIBUTED, is_wanted, kind_of, wanted, wanted_values
from usermgmt.users.models import Status, User


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that is not revoked, of an account that may sign in; it is over at `ends_at`."""

    username: str
    authenticated_at: datetime
    ends_at: datetime
    rights: Rights


LIVE_TOKENS = (
    select(func.count())
    .select_from(AuditEvent)
    .join(Session, (Session.user_id == AuditEvent.owner_id) & (Session.id == AuditEvent.session_id))
    .where(
        AuditEvent.event.in_([Event.LOGIN_SUCCEEDED, Event.SESSION_REFRESHED]),
        AuditEvent.at >= bindparam("since"),
        AuditEvent.at < bindparam("until"),
        *is_live(Session, bindparam("at")),
    )
)
"""How many access tokens were issued in a period to sessions that are good still."""


async def fetch_live_sessions(rows: Rows, keys: Sequence[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], LiveSession]:
    """Those of the sessions, named by user and session, that are not revoked and whose account may sign in."""
    kind = kind_of(rows.connection)
    found = await rows.fetch(_statement(kind), wanted_values(kind, _KEY, keys))
    return {
        (user_id, session_id): LiveSession(username, authenticated_at, min(idle, absolute), rights_of_grants(grants))
        for user_id, session_id, username, authenticated_at, idle, absolute, grants in found
    }


_KEY = ("user_id", "session_id")


@cache
def _statement(kind: str) -> Select[*tuple[Any, ...]]:
    is_spread = kind == DISTRIBUTED
    found = select(
        Session.user_id,
        Session.id,
        User.username,
        Session.authenticated_at,
        Session.idle_expires_at,
        Session.expires_at,
        held_grants(User.id, among="user_id" if is_spread else None),
    )
    if is_spread:  # each id with each user: ids are unique, so that no other session is found
        found = found.where(is_wanted(Session.user_id, "user_id"), is_wanted(Session.id, "session_id"))
    else:
        keys = wanted(kind, *_KEY)
        found = found.join(keys, (keys.c.user_id == Session.user_id) & (keys.c.session_id == Session.id))
    return found.join(User, User.id == Session.user_id).where(
        Session.revoked_at.is_(None), User.status == Status.ACTIVE, User.deleted_at.is_(None)
    )
