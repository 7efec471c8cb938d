"""Accounts, roles, sessions, audit, signing keys, idempotency keys

Why: the first schema.
Locks: none that matter, every table is new.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def key_text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def document() -> sa.types.TypeEngine[Any]:
    return sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("username_key", key_text(255), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("email_key", key_text(320), nullable=False),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_name_key", key_text(512)),
        sa.Column("password_hash", sa.Text()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("email_verified_at", time()),
        sa.Column("attributes", document(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("updated_at", time(), nullable=False),
        sa.Column("deleted_at", time()),
        sa.Column("password_changed_at", time()),
        sa.Column("last_login_at", time()),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="ck_users_status"),
    )
    op.create_index("ix_users_created", "users", ["created_at", "id"])
    op.create_index("ix_users_username", "users", ["username_key", "id"])
    op.create_index("ix_users_email", "users", ["email_key", "id"])
    op.create_index("ix_users_display_name", "users", ["display_name_key", "id"])

    op.create_table(
        "login_names",
        sa.Column("name", key_text(320), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_login_names"),
    )

    op.create_table(
        "roles",
        sa.Column("name", key_text(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("built_in", sa.Boolean(), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("updated_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_roles"),
    )
    op.create_table(
        "role_permissions",
        sa.Column("role", key_text(64), nullable=False),
        sa.Column("permission", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("role", "permission", name="pk_role_permissions"),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role_permissions_role", ondelete="CASCADE"),
    )
    op.create_table(
        "role_grants",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", key_text(64), nullable=False),
        sa.Column("scope", sa.String(36), nullable=False),
        sa.Column("granted_by", sa.Uuid()),
        sa.Column("granted_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "role", "scope", name="pk_role_grants"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_role_grants_user", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["role"], ["roles.name"], name="fk_role_grants_role"),
    )
    op.create_index("ix_role_grants_role", "role_grants", ["role", "user_id"])

    op.create_table(
        "sessions",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("authenticated_at", time(), nullable=False),
        sa.Column("refreshed_at", time(), nullable=False),
        sa.Column("idle_expires_at", time(), nullable=False),
        sa.Column("expires_at", time(), nullable=False),
        sa.Column("address", sa.String(45)),
        sa.Column("user_agent", sa.String(512)),
        sa.Column("revoked_at", time()),
        sa.Column("revoked_reason", sa.String(32)),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user", ondelete="CASCADE"),
    )
    live = sa.text("revoked_at IS NULL")
    op.create_index("ix_sessions_live", "sessions", ["expires_at"], postgresql_where=live, sqlite_where=live)

    op.create_table(
        "audit_events",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", time(), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("actor_id", sa.Uuid()),
        sa.Column("actor_name", sa.String(255)),
        sa.Column("target_type", sa.String(32)),
        sa.Column("target_id", sa.String(320)),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("address", sa.String(45)),
        sa.Column("user_agent", sa.String(512)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("details", document(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at", "id"])
    op.create_index("ix_audit_events_actor", "audit_events", ["actor_id", "at"])
    op.create_index("ix_audit_events_target", "audit_events", ["target_id", "at"])
    op.create_index("ix_audit_events_event", "audit_events", ["event", "at"])

    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("private_key", sa.Text(), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("activated_at", time(), nullable=False),
        sa.Column("retired_at", time()),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("expires_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_expires", "idempotency_keys", ["expires_at"])


def downgrade() -> None:
    for table in (
        "idempotency_keys",
        "signing_keys",
        "audit_events",
        "sessions",
        "role_grants",
        "role_permissions",
        "roles",
        "login_names",
        "users",
    ):
        op.drop_table(table)
