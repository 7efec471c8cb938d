"""The table by which the processes of a deployment agree who does a chore."""

from datetime import datetime

from sqlalchemy import PrimaryKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime


class ChoreRun(Base):
    """One chore: who does it now and until when nobody else may, when it is due again, when it was last done."""

    __tablename__ = "chores"
    __table_args__ = (PrimaryKeyConstraint("name", name="pk_chores"),)

    name: Mapped[str] = mapped_column(String(32))
    holder: Mapped[str | None] = mapped_column(String(32))
    held_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    succeeded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
