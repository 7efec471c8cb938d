"""The table of sessions: who is signed in where."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKeyConstraint, Index, Integer, PrimaryKeyConstraint, String, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime


class RevocationReason(StrEnum):
    """Why a session ended before its time."""

    SIGNED_OUT = "signed_out"
    REFRESH_REUSED = "refresh_reused"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason, not a secret
    REVOKED_BY_OWNER = "revoked_by_owner"
    REVOKED_BY_ADMIN = "revoked_by_admin"
    TOO_MANY_SESSIONS = "too_many_sessions"
    USER_DISABLED = "user_disabled"
    USER_DELETED = "user_deleted"


class Session(Base):
    """One sign-in. It is revoked, never deleted, until its time is over.

    `generation` counts the refreshes. The refresh token is derived from it, so nothing secret is stored.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "id", name="pk_sessions"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user", ondelete="CASCADE"),
        Index("ix_sessions_network", "user_id", "network"),
        Index(
            "ix_sessions_live",
            "expires_at",
            postgresql_where=text("revoked_at IS NULL"),
            sqlite_where=text("revoked_at IS NULL"),
        ),
        Index(
            "ix_sessions_revoked",
            "revoked_at",
            postgresql_where=text("revoked_at IS NOT NULL"),
            sqlite_where=text("revoked_at IS NOT NULL"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(Uuid)
    id: Mapped[UUID] = mapped_column(Uuid)
    generation: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    authenticated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    refreshed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    idle_expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    address: Mapped[str | None] = mapped_column(String(45))
    user_agent: Mapped[str | None] = mapped_column(String(512))
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_reason: Mapped[str | None] = mapped_column(String(32))
    network: Mapped[str | None] = mapped_column(String(43))  # what counts as one source of the address

    @property
    def ends_at(self) -> datetime:
        """When its time is over, unless it is refreshed before."""
        return min(self.expires_at, self.idle_expires_at)

    def is_live(self, at: datetime) -> bool:
        """Whether it is good at a time."""
        return self.revoked_at is None and self.ends_at > at


def is_live(columns: Any, at: Any) -> tuple[ColumnElement[bool], ...]:  # of `Session` or its table; a time or a value
    """The conditions of `Session.is_live` in a statement."""
    return (columns.revoked_at.is_(None), columns.expires_at > at, columns.idle_expires_at > at)
