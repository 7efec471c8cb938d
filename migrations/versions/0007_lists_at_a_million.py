"""Indexes for lists of a million accounts

Why: every order of the list of accounts, of all and of those in one state, is the order of an index.
So is each filter of the record; and who holds a role over everything, or any role over a group, is found by one.
Locks: on PostgreSQL none that stops reading or writing (CONCURRENTLY); about three seconds per million rows and index.
It fails when another transaction is open for more than five seconds meanwhile, and may then be run again.
An old release that still runs lists accounts without the indexes that are replaced: slower, and right.
"""

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PRESENT = "deleted_at IS NULL"

Indexes = dict[str, tuple[str, list[str], str | None]]

NEW: Indexes = {
    "ix_users_by_created": ("users", ["created_at", "id"], PRESENT),
    "ix_users_by_username": ("users", ["username_key", "id"], PRESENT),
    "ix_users_by_email": ("users", ["email_key", "id"], PRESENT),
    "ix_users_by_status_created": ("users", ["status", "created_at", "id"], PRESENT),
    "ix_users_by_status_username": ("users", ["status", "username_key", "id"], PRESENT),
    "ix_users_by_status_email": ("users", ["status", "email_key", "id"], PRESENT),
    "ix_users_by_display_name": ("users", ["display_name_key", "id"], f"{PRESENT} AND display_name_key IS NOT NULL"),
    "ix_role_grants_holders": ("role_grants", ["role", "scope", "user_id"], None),
    "ix_role_grants_confined": ("role_grants", ["scope"], "scope <> '*'"),
    "ix_audit_events_by_owner": ("audit_events", ["owner_id", "at", "id"], None),
    "ix_audit_events_by_actor": ("audit_events", ["actor_id", "at", "id"], None),
    "ix_audit_events_by_target": ("audit_events", ["target_id", "at", "id"], None),
    "ix_audit_events_by_event": ("audit_events", ["event", "at", "id"], None),
    "ix_audit_events_by_address": ("audit_events", ["address", "at", "id"], None),
    "ix_audit_events_failed": ("audit_events", ["at", "id"], "outcome = 'failure'"),
}
BESIDE = {
    "ix_users_by_username": ["email_key"],
    "ix_users_by_email": ["username_key"],
    "ix_users_by_display_name": ["username_key", "email_key"],
}
OLD: Indexes = {
    "ix_users_created": ("users", ["created_at", "id"], None),
    "ix_users_username": ("users", ["username_key", "id"], None),
    "ix_users_email": ("users", ["email_key", "id"], None),
    "ix_users_display_name": ("users", ["display_name_key", "id"], None),
    "ix_role_grants_role": ("role_grants", ["role", "user_id"], None),
    "ix_audit_events_actor": ("audit_events", ["actor_id", "at"], None),
    "ix_audit_events_target": ("audit_events", ["target_id", "at"], None),
    "ix_audit_events_event": ("audit_events", ["event", "at"], None),
}


def upgrade() -> None:
    replace(OLD, NEW)


def downgrade() -> None:
    replace(NEW, OLD)


def replace(gone: Indexes, made: Indexes) -> None:
    """Make indexes and remove others; on PostgreSQL outside of a transaction, as CONCURRENTLY wants it."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    with op.get_context().autocommit_block() if is_postgresql else nullcontext():
        for name, (table, columns, where) in made.items():
            drop(name, table)  # what an interrupted run left is not valid
            condition = sa.text(where) if where is not None else None
            op.create_index(
                name,
                table,
                columns,
                postgresql_concurrently=True,
                postgresql_where=condition,
                postgresql_include=BESIDE.get(name, []),
                sqlite_where=condition,
            )
        for name, (table, _, _) in gone.items():
            drop(name, table)


def drop(name: str, table: str) -> None:
    op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
