"""The table of the record of who did what."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, PrimaryKeyConstraint, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, json_document


class AuditEvent(Base):
    """One event. Rows are only ever added: the application needs no right to change them.

    `owner_id` is the user whose rows the transaction changes, else the actor, else the event's own id: so the record
    of a change lives beside what it changed.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        PrimaryKeyConstraint("owner_id", "id", name="pk_audit_events"),
        Index("ix_audit_events_at", "at", "id"),
        Index("ix_audit_events_actor", "actor_id", "at"),
        Index("ix_audit_events_target", "target_id", "at"),
        Index("ix_audit_events_event", "event", "at"),
    )

    owner_id: Mapped[UUID] = mapped_column(Uuid)
    id: Mapped[UUID] = mapped_column(Uuid)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    event: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[UUID | None] = mapped_column(Uuid)
    actor_name: Mapped[str | None] = mapped_column(String(255))
    target_type: Mapped[str | None] = mapped_column(String(32))
    target_id: Mapped[str | None] = mapped_column(String(320))
    session_id: Mapped[UUID | None] = mapped_column(Uuid)
    address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    request_id: Mapped[str | None] = mapped_column(String(128))
    details: Mapped[dict[str, Any]] = mapped_column(json_document())  # each event has its own few facts
