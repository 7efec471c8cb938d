"""What goes out of the routes of the record, and what may be asked."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from pydantic import AfterValidator, Field

from usermgmt.audit.events import Event, Outcome
from usermgmt.audit.models import AuditEvent
from usermgmt.audit.queries import EventFilters
from usermgmt.http.answers import Timestamp, timestamp
from usermgmt.http.fields import DIGITS, QueryId, RequestModel, Rfc3339Time, refused
from usermgmt.security.address import canonical_address


def _address(value: str) -> str:
    canonical = canonical_address(value)
    if canonical is None:
        raise refused("invalid_address", "This must be an IP address.")
    return canonical


AddressText = Annotated[str, AfterValidator(_address), Field(max_length=64, json_schema_extra={"format": "ip-address"})]


class ListActivity(RequestModel):
    """Which events of an account, which page."""

    limit: Annotated[int, Field(ge=1, le=100), DIGITS] = 50
    cursor: Annotated[str, Field(max_length=2048)] | None = None
    event: Event | None = None
    outcome: Outcome | None = None
    since: Rfc3339Time | None = None
    until: Rfc3339Time | None = None

    def filters(self) -> EventFilters:
        """The conditions of the list."""
        return EventFilters(event=self.event, outcome=self.outcome, since=self.since, until=self.until)


class ListEvents(ListActivity):
    """Which events, which page."""

    actor: QueryId | None = None
    target: Annotated[str, Field(min_length=1, max_length=320)] | None = Field(
        None, description="What was acted on: the id of an account, the name of a role."
    )
    address: AddressText | None = None

    def filters(self) -> EventFilters:
        """The conditions of the list."""
        return EventFilters(
            actor=self.actor,
            target=self.target,
            event=self.event,
            outcome=self.outcome,
            address=self.address,
            since=self.since,
            until=self.until,
        )


class ActorOut(msgspec.Struct, kw_only=True):
    """Who did it. Nobody known: a sign-in; the operator at the command line has a name and no id."""

    id: str | None
    name: str | None


class TargetOut(msgspec.Struct, kw_only=True):
    """What it was done to."""

    type: str | None
    id: str | None


class EventOut(msgspec.Struct, kw_only=True):
    """One event on record."""

    id: str
    at: Timestamp
    event: str
    outcome: str
    actor: ActorOut
    target: TargetOut
    session_id: str | None
    address: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]

    @classmethod
    def of(cls, event: AuditEvent, *, reader: UUID | None = None) -> "EventOut":
        """The event as clients see it. A `reader` without `audit:read` is not told where others called from."""
        is_told = reader is None or event.actor_id is None or event.actor_id == reader
        return cls(
            id=str(event.id),
            at=timestamp(event.at),
            event=event.event,
            outcome=event.outcome,
            actor=ActorOut(
                id=str(event.actor_id) if event.actor_id else None, name=event.actor_name if is_told else None
            ),
            target=TargetOut(type=event.target_type, id=event.target_id),
            session_id=str(event.session_id) if event.session_id and is_told else None,
            address=event.address if is_told else None,
            user_agent=event.user_agent if is_told else None,
            request_id=event.request_id if is_told else None,
            details=event.details,
        )


class EventPageOut(msgspec.Struct, kw_only=True):
    """A page of events, newest first."""

    items: list[EventOut]
    next_cursor: str | None
    prev_cursor: str | None
