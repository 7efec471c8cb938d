"""The table of the record of who did what."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, PrimaryKeyConstraint, String, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, json_document


class AuditEvent(Base):
    """One event. Rows are only ever added: the application needs no right to change them.

    `owner_id` is the user whose rows the transaction changes, else the actor, else the event's own id: so the record
    of a change lives beside what it changed. `personal_digest` stands for the personal data (`salt` keeps it from being
    guessed), so that those can be erased and the event still be verified.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        PrimaryKeyConstraint("owner_id", "id", name="pk_audit_events"),
        Index("ix_audit_events_at", "at", "id"),
        Index("ix_audit_events_by_owner", "owner_id", "at", "id"),
        Index("ix_audit_events_by_actor", "actor_id", "at", "id"),
        Index("ix_audit_events_by_target", "target_id", "at", "id"),
        Index("ix_audit_events_by_event", "event", "at", "id"),
        Index("ix_audit_events_by_address", "address", "at", "id"),
        Index(
            "ix_audit_events_failed",
            "at",
            "id",
            postgresql_where=text("outcome = 'failure'"),
            sqlite_where=text("outcome = 'failure'"),
        ),
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
    salt: Mapped[str | None] = mapped_column(String(32))
    personal_digest: Mapped[str | None] = mapped_column(String(64))


class AuditSeal(Base):
    """A batch of events that can no longer be changed unnoticed: their ids and digests, chained to the seal before.

    `entries` is 48 bytes an event: its id, and its digest.
    """

    __tablename__ = "audit_seals"
    __table_args__ = (PrimaryKeyConstraint("seq", name="pk_audit_seals"), Index("ix_audit_seals_last", "last_at"))

    seq: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    sealed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)
    entries: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(16))
    signature: Mapped[str] = mapped_column(String(64))


class AuditHead(Base):
    """The end of the chain, signed, so that cutting it off is noticed; and where its beginning was pruned."""

    __tablename__ = "audit_head"
    __table_args__ = (PrimaryKeyConstraint("id", name="pk_audit_head"),)

    id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    events: Mapped[int] = mapped_column(BigInteger)
    pruned_seq: Mapped[int] = mapped_column(BigInteger)
    pruned_digest: Mapped[str] = mapped_column(String(64))
    sealed_until: Mapped[datetime] = mapped_column(UtcDateTime)
    sealed_until_id: Mapped[UUID] = mapped_column(Uuid)
    searched_at: Mapped[datetime] = mapped_column(UtcDateTime)
    key_id: Mapped[str] = mapped_column(String(16))
    signature: Mapped[str] = mapped_column(String(64))
