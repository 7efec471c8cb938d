"""Writing the record and reading it. A row is written in the transaction of the change it tells of, or neither is."""

import json
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries
from usermgmt.audit.digests import MAX_LOGIN_NAME, personal_digest, personal_parts
from usermgmt.audit.events import Event, Outcome, TargetType
from usermgmt.audit.models import AuditEvent
from usermgmt.audit.queries import EventFilters
from usermgmt.errors import UserNotFound
from usermgmt.identifiers import new_id
from usermgmt.permissions import Permission
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Renew
from usermgmt.storage.pages import Page, Position, page_of
from usermgmt.telemetry import metrics

MAX_TARGET = 320
MAX_DETAILS_BYTES = 4 * 1024
STREAM_BATCH = 500
OPERATOR_NAME = "operator"


async def record(
    session: AsyncSession,
    event: Event,
    *,
    caller: Caller,
    at: datetime,
    user_id: UUID | None = None,
    target: str | None = None,
    target_type: TargetType = TargetType.USER,
    session_id: UUID | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    details: dict[str, Any] | None = None,
) -> None:
    """Add one event. It is counted here: one whose transaction does not commit was counted, too.

    `user_id` is the account whose rows this transaction changes; `target` names what was acted on when it is not that
    account. `details` are a few facts of the event's own: never a secret, never a whole request, never a name.
    """
    metrics.audit_events.labels(event, outcome).inc()
    event_id = new_id()
    principal = caller.principal
    target_id = target if target is not None else (str(user_id) if user_id else None)
    if target_id is not None:
        target_id = target_id[: MAX_LOGIN_NAME if target_type == TargetType.LOGIN_NAME else MAX_TARGET]
    salt = secrets.token_hex(16)
    personal = {
        "actor_name": principal.username if principal else (OPERATOR_NAME if caller.is_operator else None),
        "address": caller.client.address,
        "user_agent": caller.client.user_agent,
    }
    parts = personal_parts(**personal, login_name=target_id if target_type == TargetType.LOGIN_NAME else None)
    await queries.insert_event(
        session,
        {
            "owner_id": user_id or caller.user_id or event_id,
            "id": event_id,
            "at": at,
            "event": event,
            "outcome": outcome,
            "actor_id": caller.user_id,
            **personal,
            "target_type": target_type if target_id is not None else None,
            "target_id": target_id,
            "session_id": session_id or (principal.session_id if principal else None),
            "request_id": caller.client.request_id,
            "details": _bounded(details or {}),
            "salt": salt,
            "personal_digest": personal_digest(salt, parts),
        },
    )


async def record_refusal(runtime: Runtime, caller: Caller, route: str, code: str) -> None:
    """Put it on record that a known caller was refused a route, in a transaction of its own."""
    async with runtime.database.begin() as session:
        await record(
            session,
            Event.ACCESS_DENIED,
            caller=caller,
            at=runtime.clock.now(),
            target=route,
            target_type=TargetType.ROUTE,
            outcome=Outcome.FAILURE,
            details={"code": code},
        )


async def erase(session: AsyncSession, user_id: UUID, *, names: Collection[str]) -> None:
    """Take the personal data of an account out of the record, also where one of its names was only typed."""
    await queries.update_erased(session, user_id, names={name[:MAX_LOGIN_NAME] for name in names})


async def list_events(
    runtime: Runtime, caller: Caller, filters: EventFilters, *, position: Position | None, limit: int
) -> Page[AuditEvent]:
    """A page of the events that `audit:read` reaches, newest first."""
    confined = replace(filters, reach=caller.reach(Permission.AUDIT_READ))
    async with runtime.database.read() as session:
        return await _page(session, confined, position, limit)


async def list_activity(
    runtime: Runtime, caller: Caller, user_id: UUID, filters: EventFilters, *, position: Position | None, limit: int
) -> Page[AuditEvent]:
    """A page of the events of one's own account, or of one that `audit:read` reaches; else `UserNotFound`."""
    reach = caller.reach(Permission.AUDIT_READ, or_own=True)
    async with runtime.database.read() as session:
        if not await queries.has_user(session, user_id, reach):
            raise UserNotFound
        return await _page(session, replace(filters, owner=user_id, reach=reach), position, limit)


def untold_reader(caller: Caller, user_id: UUID) -> UUID | None:
    """The owner of an account where they read its record without `audit:read`: they are not told where others called
    from. None for whoever is told.
    """
    return user_id if caller.is_user(user_id) and not caller.has(Permission.AUDIT_READ) else None


async def stream_events(
    runtime: Runtime, caller: Caller, filters: EventFilters, *, renew: Renew | None = None
) -> AsyncIterator[Sequence[AuditEvent]]:
    """Every event that `audit:read` reaches, newest first, in batches; no connection is held between two batches.

    `renew` tells before each further batch what the caller may see by then; what it raises ends the list.
    """
    position: Position | None = None
    while True:
        page = await list_events(runtime, caller, filters, position=position, limit=STREAM_BATCH)
        yield page.items
        position = page.next
        if position is None:
            return
        caller = await renew() if renew is not None else caller


async def _page(
    session: AsyncSession, filters: EventFilters, position: Position | None, limit: int
) -> Page[AuditEvent]:
    rows = await queries.list_events(session, filters, position=position, limit=limit)
    return page_of(rows, position, limit, lambda event: (event.at, event.id))


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    """Keep the record from growing with what somebody sends."""
    size = len(json.dumps(details, ensure_ascii=False).encode())
    return details if size <= MAX_DETAILS_BYTES else {"left_out_bytes": size}
