"""Groups, and the network of a session

Why: a role can be held over one group of accounts; a sign-in from a network that is new to the account is told.
Locks: sessions, ACCESS EXCLUSIVE until its new index is built; users, SHARE ROW EXCLUSIVE as long.
That takes about a second per million rows. Old releases leave the new column empty.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def key_text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", key_text(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("created_at", time(), nullable=False),
        sa.Column("updated_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "group_members",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("added_by", sa.Uuid()),
        sa.Column("added_at", time(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "group_id", name="pk_group_members"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_group_members_user", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_members_group", ondelete="CASCADE"),
    )
    op.create_index("ix_group_members_group", "group_members", ["group_id", "user_id"])
    op.add_column("sessions", sa.Column("network", sa.String(43)))
    op.create_index("ix_sessions_network", "sessions", ["user_id", "network"])


def downgrade() -> None:
    op.drop_index("ix_sessions_network", "sessions")
    op.drop_column("sessions", "network")
    op.drop_table("group_members")
    op.drop_table("groups")
    # a role held over a group that is gone means nothing, and the release before does not look at it
    op.execute("DELETE FROM role_grants WHERE scope <> '*'")
