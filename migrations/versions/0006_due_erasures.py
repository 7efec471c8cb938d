"""An index of deleted accounts by the time of deletion

Why: accounts whose retention period is over are found without reading all of them.
Locks: SHARE on users while the index is built, about a second per million rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index("ix_users_deleted", "users", ["deleted_at"], postgresql_where=deleted, sqlite_where=deleted)


def downgrade() -> None:
    op.drop_index("ix_users_deleted", "users")
