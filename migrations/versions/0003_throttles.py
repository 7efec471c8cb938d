"""Counters of guesses

Why: sign-ins are counted by account and by network in the database, so that restarts and replicas do not forget.
Locks: none that matter, the table is new.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def key_text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "throttles",
        sa.Column("key", key_text(64), nullable=False),
        sa.Column("bucket", sa.String(16), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("attempted_at", time(), nullable=False),
        sa.Column("window_started_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("key", "bucket", name="pk_throttles"),
    )
    op.create_index("ix_throttles_window", "throttles", ["window_started_at"])


def downgrade() -> None:
    op.drop_table("throttles")
