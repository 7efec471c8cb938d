"""The digests by which an event, a seal and the end of the chain are known again."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from usermgmt.audit.events import TargetType

NO_DIGEST = "0" * 64
"""What the first seal is chained to."""

MAX_LOGIN_NAME = 64
"""How much is kept of what somebody typed as a name."""

ENTRY_BYTES = 48


class Recorded(Protocol):
    """An event as it is stored."""

    owner_id: Any  # SQLAlchemy's attributes are descriptors, which a protocol of plain types would refuse
    id: Any
    at: Any
    event: Any
    outcome: Any
    actor_id: Any
    actor_name: Any
    target_type: Any
    target_id: Any
    session_id: Any
    address: Any
    user_agent: Any
    request_id: Any
    details: Any
    salt: Any
    personal_digest: Any


def personal_parts(
    *, actor_name: str | None, address: str | None, user_agent: str | None, login_name: str | None
) -> list[str | None]:
    """What of an event is about a person and can be erased."""
    return [actor_name, address, user_agent, login_name]


def personal_digest(salt: str, parts: Sequence[str | None]) -> str:
    """What stands for the personal data when they are gone. The salt goes with them."""
    return hashlib.sha256(f"{salt}{_canonical(parts)}".encode()).hexdigest()


def personal_parts_of(event: Recorded) -> list[str | None]:
    """The personal data of a stored event."""
    return personal_parts(
        actor_name=event.actor_name,
        address=event.address,
        user_agent=event.user_agent,
        login_name=event.target_id if event.target_type == TargetType.LOGIN_NAME else None,
    )


def event_digest(event: Recorded) -> bytes:
    """SHA-256 over everything in an event but its personal data, for which their digest stands."""
    at: datetime = event.at
    return hashlib.sha256(
        _canonical(
            [
                str(event.owner_id),
                str(event.id),
                at.isoformat(timespec="milliseconds"),
                event.event,
                event.outcome,
                event.actor_id and str(event.actor_id),
                event.target_type,
                None if event.target_type == TargetType.LOGIN_NAME else event.target_id,
                event.session_id and str(event.session_id),
                event.request_id,
                event.details,
                event.personal_digest,
            ]
        ).encode()
    ).digest()


def chained(previous: str, seq: int, *, first_at: datetime, last_at: datetime, entries: bytes) -> str:
    """The digest of a seal: over the one before, its number, its time, and the events in it."""
    start = f"{previous}:{seq}:{first_at.isoformat()}:{last_at.isoformat()}:"
    return hashlib.sha256(start.encode() + entries).hexdigest()


def entry(event: Recorded) -> bytes:
    """What a seal holds of an event."""
    event_id: UUID = event.id
    return event_id.bytes + event_digest(event)


def entries_of(entries: bytes) -> Iterator[tuple[UUID, bytes]]:
    """The ids and digests in a seal."""
    for start in range(0, len(entries), ENTRY_BYTES):
        yield UUID(bytes=entries[start : start + 16]), entries[start + 16 : start + ENTRY_BYTES]


def _canonical(value: Any) -> str:  # a JSON value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
