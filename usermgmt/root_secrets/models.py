"""The table of the root secrets that processes of the deployment know; it holds their names only."""

from datetime import datetime

from sqlalchemy import PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime


class RootSecret(Base):
    """When a process first knew a root secret. `key_id` is made from it one way."""

    __tablename__ = "root_secrets"
    __table_args__ = (PrimaryKeyConstraint("key_id", name="pk_root_secrets"),)

    key_id: Mapped[str] = mapped_column(String(16))
    first_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
