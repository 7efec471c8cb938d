"""The table that counts guesses."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, Integer, PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, key_text


class Bucket(StrEnum):
    """What a counter counts guesses at."""

    ACCOUNT = "account"  # a login name, from networks that never signed in to it
    FAMILIAR = "familiar"  # a login name, from one network that signed in to it before
    NETWORK = "network"  # any name, from one network
    SESSION = "session"  # `current_password`, in one session
    REFRESH = "refresh"  # refresh tokens that this server never made, from one network


class Throttle(Base):
    """One counter: `failures` that are known in this window, and `pending` guesses that are being verified."""

    __tablename__ = "throttles"
    __table_args__ = (
        PrimaryKeyConstraint("key", "bucket", name="pk_throttles"),
        Index("ix_throttles_window", "window_started_at"),
    )

    key: Mapped[str] = mapped_column(key_text(64))
    bucket: Mapped[str] = mapped_column(String(16))
    failures: Mapped[int] = mapped_column(Integer)
    pending: Mapped[int] = mapped_column(Integer)
    attempted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    window_started_at: Mapped[datetime] = mapped_column(UtcDateTime)
