"""The tables of groups: sets of accounts over which a role can be held."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, String, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, key_text


class Group(Base):
    """A set of accounts, by a name that no other group has."""

    __tablename__ = "groups"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_groups"),
        UniqueConstraint("name", name="uq_groups_name"),
    )

    id: Mapped[UUID] = mapped_column(Uuid)
    name: Mapped[str] = mapped_column(key_text(64))
    description: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class GroupMember(Base):
    """One account in one group."""

    __tablename__ = "group_members"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "group_id", name="pk_group_members"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_group_members_user", ondelete="CASCADE"),
        ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_members_group", ondelete="CASCADE"),
        Index("ix_group_members_group", "group_id", "user_id"),
    )

    user_id: Mapped[UUID] = mapped_column(Uuid)
    group_id: Mapped[UUID] = mapped_column(Uuid)
    added_by: Mapped[UUID | None] = mapped_column(Uuid)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
