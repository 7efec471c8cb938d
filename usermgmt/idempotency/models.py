"""The table of answers that are given again when a request is repeated under the same key."""

from datetime import datetime

from sqlalchemy import Index, Integer, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, long_text


class IdempotencyKey(Base):
    """What one caller's request under one key led to. `digest` is keyed: it gives nothing of the body away."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        PrimaryKeyConstraint("principal", "key", name="pk_idempotency_keys"),
        Index("ix_idempotency_keys_expires", "expires_at"),
    )

    asker: Mapped[str] = mapped_column("principal", String(64))  # `user:` and an id, or `address:` and an address
    key: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    body: Mapped[str] = mapped_column(long_text())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
