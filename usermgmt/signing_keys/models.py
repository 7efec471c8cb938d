"""The table of the keys that sign access tokens."""

from datetime import datetime

from sqlalchemy import PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, long_text


class SigningKey(Base):
    """One key. It is published from `created_at`, signs from `activated_at`, and verifies until `retired_at`."""

    __tablename__ = "signing_keys"
    __table_args__ = (PrimaryKeyConstraint("kid", name="pk_signing_keys"),)

    kid: Mapped[str] = mapped_column(String(64))
    algorithm: Mapped[str] = mapped_column(String(16))
    private_key: Mapped[str] = mapped_column(long_text())
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    activated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
