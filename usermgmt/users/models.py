"""The tables of accounts: the account itself, and the names that sign in to it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Integer, PrimaryKeyConstraint, String, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from usermgmt.storage.types import Base, UtcDateTime, json_document, key_text, long_text

MAX_ATTRIBUTES_BYTES = 8 * 1024
MAX_ROLES = 20
"""How many roles one request, or one row of an import, may name."""

_encode = json.JSONEncoder(ensure_ascii=False).encode


def are_attributes_too_long(attributes: Mapping[str, Any]) -> bool:
    """Whether they are more, as JSON, than an account may carry."""
    return bool(attributes) and len(_encode(attributes).encode()) > MAX_ATTRIBUTES_BYTES


class Status(StrEnum):
    """Whether an account may sign in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class NameKind(StrEnum):
    """What a login name is to its account."""

    USERNAME = "username"
    EMAIL = "email"


PRESENT = "deleted_at IS NULL"
NAMED = f"{PRESENT} AND display_name_key IS NOT NULL"


def _listed(name: str, *columns: str, where: str = PRESENT, beside: Sequence[str] = ()) -> Index:
    """An index that leaves deleted accounts out, as lists do; `beside` is only read from it (PostgreSQL)."""
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where), postgresql_include=beside)


class User(Base):
    """One account. Names are kept as typed, and as their canonical keys, which are what is compared and sorted."""

    __tablename__ = "users"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_users"),
        CheckConstraint("status IN ('active', 'disabled')", name="ck_users_status"),
        # each order of the list, of all accounts and of those in one state
        _listed("ix_users_by_created", "created_at", "id"),
        _listed("ix_users_by_username", "username_key", "id", beside=["email_key"]),
        _listed("ix_users_by_email", "email_key", "id", beside=["username_key"]),
        _listed("ix_users_by_status_created", "status", "created_at", "id"),
        _listed("ix_users_by_status_username", "status", "username_key", "id"),
        _listed("ix_users_by_status_email", "status", "email_key", "id"),
        _listed(
            "ix_users_by_display_name", "display_name_key", "id", where=NAMED, beside=["username_key", "email_key"]
        ),
        Index(
            "ix_users_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL"),
            sqlite_where=text("deleted_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(Uuid)
    username: Mapped[str] = mapped_column(String(255))
    username_key: Mapped[str] = mapped_column(key_text(255))
    email: Mapped[str] = mapped_column(String(320))
    email_key: Mapped[str] = mapped_column(key_text(320))
    display_name: Mapped[str | None] = mapped_column(String(255))
    display_name_key: Mapped[str | None] = mapped_column(key_text(512))
    password_hash: Mapped[str | None] = mapped_column(long_text())
    status: Mapped[str] = mapped_column(String(16))
    email_verified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attributes: Mapped[dict[str, Any]] = mapped_column(json_document())  # the application's own document
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    password_changed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LoginName(Base):
    """One name that leads to an account; its key makes usernames and e-mail addresses unique together.

    No foreign key and no second index: this small table is keyed by the name, so that what is keyed by the account can
    be spread over several databases.
    """

    __tablename__ = "login_names"
    __table_args__ = (PrimaryKeyConstraint("name", name="pk_login_names"),)

    name: Mapped[str] = mapped_column(key_text(320))
    kind: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[UUID] = mapped_column(Uuid)
