"""The table of IP rules: which networks may call."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Integer, PrimaryKeyConstraint, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime


class IpRule(Base):
    """One rule. Small enough a table that every worker holds all of it in memory."""

    __tablename__ = "ip_rules"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_ip_rules"),
        CheckConstraint("action IN ('allow', 'deny')", name="ck_ip_rules_action"),
        CheckConstraint("mode IN ('enforce', 'report')", name="ck_ip_rules_mode"),
        CheckConstraint("subject_kind IN ('everyone', 'role', 'user', 'set')", name="ck_ip_rules_subject"),
    )

    id: Mapped[UUID] = mapped_column(Uuid)
    network: Mapped[str] = mapped_column(String(43))
    action: Mapped[str] = mapped_column(String(8))
    subject_kind: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str | None] = mapped_column(String(64))
    mode: Mapped[str] = mapped_column(String(8))
    note: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    hits: Mapped[int] = mapped_column(BigInteger)
    last_hit_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by: Mapped[UUID | None] = mapped_column(Uuid)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IpRuleVersion(Base):
    """Counts the changes to the rules in its one row, which is all that a worker reads when nothing has changed."""

    __tablename__ = "ip_rule_version"
    __table_args__ = (PrimaryKeyConstraint("id", name="pk_ip_rule_version"),)

    id: Mapped[int] = mapped_column(Integer, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)
