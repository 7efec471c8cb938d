"""The tables of roles: what each permits, and who holds it over what."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, ForeignKeyConstraint, Index, PrimaryKeyConstraint, String, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, key_text


class Role(Base):
    """A named set of permissions."""

    __tablename__ = "roles"
    __table_args__ = (PrimaryKeyConstraint("name", name="pk_roles"),)

    name: Mapped[str] = mapped_column(key_text(64))
    description: Mapped[str] = mapped_column(String(255))
    built_in: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RolePermission(Base):
    """One thing that a role permits."""

    __tablename__ = "role_permissions"
    __table_args__ = (
        PrimaryKeyConstraint("role", "permission", name="pk_role_permissions"),
        ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role_permissions_role", ondelete="CASCADE"),
    )

    role: Mapped[str] = mapped_column(key_text(64))
    permission: Mapped[str] = mapped_column(String(64))


class RoleGrant(Base):
    """A role held by a user over a scope: `*`, or one group."""

    __tablename__ = "role_grants"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "role", "scope", name="pk_role_grants"),
        ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_role_grants_user", ondelete="CASCADE"),
        ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role_grants_role"),
        Index("ix_role_grants_holders", "role", "scope", "user_id"),
        Index(
            "ix_role_grants_confined",
            "scope",
            postgresql_where=text("scope <> '*'"),
            sqlite_where=text("scope <> '*'"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(Uuid)
    role: Mapped[str] = mapped_column(key_text(64))
    scope: Mapped[str] = mapped_column(String(36))
    granted_by: Mapped[UUID | None] = mapped_column(Uuid)
    granted_at: Mapped[datetime] = mapped_column(UtcDateTime)
