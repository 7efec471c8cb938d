"""IP rules

Why: an operator decides which networks may call, and every worker follows within a second.
Locks: none that matter, the tables are new.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "ip_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("network", sa.String(43), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("subject_kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64)),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("note", sa.String(255), nullable=False),
        sa.Column("expires_at", time()),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("last_hit_at", time()),
        sa.Column("created_by", sa.Uuid()),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("updated_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ip_rules"),
        sa.CheckConstraint("action IN ('allow', 'deny')", name="ck_ip_rules_action"),
        sa.CheckConstraint("mode IN ('enforce', 'report')", name="ck_ip_rules_mode"),
        sa.CheckConstraint("subject_kind IN ('everyone', 'role', 'user', 'set')", name="ck_ip_rules_subject"),
    )
    version = op.create_table(
        "ip_rule_version",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ip_rule_version"),
    )
    op.bulk_insert(version, [{"id": 1, "version": 0}])


def downgrade() -> None:
    op.drop_table("ip_rule_version")
    op.drop_table("ip_rules")
