"""Chores of the whole deployment, root secrets, and an index of revoked sessions

Why: one process at a time does what concerns shared data, and a new root secret is used when all know it.
Sessions whose retention is over are found without reading all of them.
Locks: on PostgreSQL none that stops reading or writing (CONCURRENTLY); about a second per million sessions.
It fails when another transaction is open for more than five seconds meanwhile, and may then be run again.
An old release that still runs is not disturbed: it does its chores in every process, as before. It cannot be started
again, since this revision's name is a plain number.
"""

from contextlib import AbstractContextManager, nullcontext

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEX = ("ix_sessions_revoked", "sessions")


def upgrade() -> None:
    revoked = sa.text("revoked_at IS NOT NULL")
    with outside_of_transaction():
        drop_index()  # what an interrupted run left is not valid
        op.create_index(
            *INDEX, ["revoked_at"], postgresql_concurrently=True, postgresql_where=revoked, sqlite_where=revoked
        )
    time = sa.DateTime().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
    op.create_table(
        "chores",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(32)),
        sa.Column("held_until", time),
        sa.Column("due_at", time, nullable=False),
        sa.Column("succeeded_at", time),
        sa.PrimaryKeyConstraint("name", name="pk_chores"),
    )
    op.create_table(
        "root_secrets",
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("first_seen_at", time, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_root_secrets"),
    )


def downgrade() -> None:
    op.drop_table("root_secrets")
    op.drop_table("chores")
    with outside_of_transaction():
        drop_index()


def outside_of_transaction() -> AbstractContextManager[None]:
    """As CONCURRENTLY wants it on PostgreSQL."""
    is_postgresql = op.get_context().dialect.name == "postgresql"
    return op.get_context().autocommit_block() if is_postgresql else nullcontext()


def drop_index() -> None:
    op.drop_index(*INDEX, postgresql_concurrently=True, if_exists=True)
