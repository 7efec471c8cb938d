"""How long work on a million rows takes: a measured order of size, no promise.

Measured on two cores of a virtual machine as processor time on 100,000 rows like those of `users`, with all that they
need in memory: PostgreSQL 18 without parallel workers, SQLite 3.40. The mean over indexes of one to three columns; rows
are changed or written anew with six indexes beside them. `DISK` makes room for reading and writing: on a machine whose
processors were shared by many, everything took two to three times its processor time. Time grows with the rows.
"""

from usermgmt.operator.statement_locks import Work

DISK = 2.0
POSTGRESQL = {
    Work.NONE: 0.0,
    Work.COLUMN_DROPPED: 0.0,
    Work.SCAN: 0.2,
    Work.INDEX: 0.5,
    Work.INDEX_CONCURRENTLY: 0.7,
    Work.WRITE: 20.0,
    Work.REWRITE: 4.5,
}
SQLITE = {
    Work.NONE: 0.0,
    Work.COLUMN_DROPPED: 1.2,
    Work.SCAN: 0.2,
    Work.INDEX: 1.0,
    Work.INDEX_CONCURRENTLY: 1.0,
    Work.WRITE: 45.0,
    Work.REWRITE: 7.2,  # a dropped column, and six indexes
}


def seconds_of(work: Work, rows: int, *, is_sqlite: bool) -> float:
    """How many seconds the work on so many rows is expected to take."""
    return DISK * (SQLITE if is_sqlite else POSTGRESQL)[work] * rows / 1_000_000
