"""Where the accounts are kept."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from usermgmt.settings.kinds import Pause, Section, Switch, Wait, Whole
from usermgmt.settings.values import Between, DatabaseUrl, Duration, ReplicaUrl, file_of


class DatabaseSettings(Section):
    """Where the data is, and how long to wait for it."""

    url: DatabaseUrl = Field(
        default=DatabaseUrl("sqlite+aiosqlite:///data/usermgmt.db"),
        description="URL of the database, sqlite:///path or postgresql://user:password@host/name.",
    )
    read_url: ReplicaUrl = Field(
        default=ReplicaUrl(""),
        description="URL of a replica for lists, which may be a moment behind; empty: the database itself.",
    )
    pooler: Literal["none", "transaction"] = Field(
        default="none", description="Whether a pooler such as pgbouncer shares connections between transactions."
    )
    distributed: Switch = Field(
        default=False, description="Whether PostgreSQL is a cluster with Citus (deploy/citus.sql), true or false."
    )
    pool_size: Annotated[Whole, Between(1, 1000)] = Field(
        default=10,
        description="Most connections held, in number; on PostgreSQL one more watches the server.",
    )
    pool_timeout: Wait = Field(default=Duration.parse("2s"), description="Duration to wait for a free connection.")
    statement_timeout: Wait = Field(
        default=Duration.parse("5s"), description="Duration after which a statement is given up."
    )
    count_timeout: Wait = Field(
        default=Duration.parse("1s"),
        description="Duration after which an exact count of a list is given up and estimated.",
    )
    connect_timeout: Wait = Field(default=Duration.parse("2s"), description="Duration to wait for a new connection.")
    start_timeout: Pause = Field(
        default=Duration.parse("30s"), description="Duration to wait for the database when the server starts."
    )
    allow_sqlite: Switch = Field(default=False, description="Whether SQLite may be used in production, true or false.")
    migrate: Switch = Field(
        default=False, description="Whether migrations are applied when the server starts, true or false."
    )

    @property
    def is_sqlite(self) -> bool:
        """Whether the data is in a SQLite file."""
        return self.url.startswith("sqlite")

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler shares connections between transactions, so that nothing set for one lasts."""
        return self.pooler == "transaction"

    @property
    def sqlite_file(self) -> Path:
        """The file of a SQLite database."""
        return file_of(self.url)
