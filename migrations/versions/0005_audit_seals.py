"""Seals of the audit trail

Why: a record that was changed, removed, added or reordered is found, and personal data can be erased all the same.
Locks: adding columns without defaults to audit_events, ACCESS EXCLUSIVE for an instant.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("salt", sa.String(32)))
    op.add_column("audit_events", sa.Column("personal_digest", sa.String(64)))
    op.create_table(
        "audit_seals",
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("sealed_at", time(), nullable=False),
        sa.Column("first_at", time(), nullable=False),
        sa.Column("last_at", time(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_seals"),
    )
    op.create_index("ix_audit_seals_last", "audit_seals", ["last_at"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("pruned_seq", sa.BigInteger(), nullable=False),
        sa.Column("pruned_digest", sa.String(64), nullable=False),
        sa.Column("sealed_until", time(), nullable=False),
        sa.Column("sealed_until_id", sa.Uuid(), nullable=False),
        sa.Column("searched_at", time(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )


def downgrade() -> None:
    op.drop_table("audit_head")
    op.drop_index("ix_audit_seals_last", "audit_seals")
    op.drop_table("audit_seals")
    op.drop_column("audit_events", "personal_digest")
    op.drop_column("audit_events", "salt")
