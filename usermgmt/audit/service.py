"""Writing the record. A row is written in the transaction of the change it tells of: both happen, or neither."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit.events import Event, Outcome
from usermgmt.audit.models import AuditEvent
from usermgmt.identifiers import new_id
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller

MAX_TARGET = 320
MAX_USER_AGENT = 512
OPERATOR_NAME = "operator"


async def record(
    session: AsyncSession,
    event: Event,
    *,
    caller: Caller,
    at: datetime,
    user_id: UUID | None = None,
    target: str | None = None,
    target_type: str = "user",
    session_id: UUID | None = None,
    outcome: Outcome = Outcome.SUCCESS,
    details: dict[str, Any] | None = None,
) -> None:
    """Add one event.

    `user_id` is the account whose rows this transaction changes; `target` names what was acted on when it is not that
    account. `details` are a few facts of the event's own: never a secret, never a whole request.
    """
    event_id = new_id()
    principal = caller.principal
    target_id = target if target is not None else (str(user_id) if user_id else None)
    await session.execute(
        insert(AuditEvent).values(
            owner_id=user_id or caller.user_id or event_id,
            id=event_id,
            at=at,
            event=event,
            outcome=outcome,
            actor_id=caller.user_id,
            actor_name=principal.username if principal else (OPERATOR_NAME if caller.is_operator else None),
            target_type=target_type if target_id is not None else None,
            target_id=target_id[:MAX_TARGET] if target_id is not None else None,
            session_id=session_id or (principal.session_id if principal else None),
            address=caller.client.address,
            user_agent=(caller.client.user_agent or "")[:MAX_USER_AGENT] or None,
            request_id=caller.client.request_id,
            details=details or {},
        )
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
            target_type="route",
            outcome=Outcome.FAILURE,
            details={"code": code},
        )
