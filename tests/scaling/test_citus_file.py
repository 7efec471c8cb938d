"""The operator's files for Citus fit the schema: every step runs on PostgreSQL, with stand-ins for Citus' functions.

Citus itself is not there. What it refuses in such a schema, and was seen to, the stand-ins refuse too.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scaling.placement import PLACES, Distributed, Local, Reference
from tests.servers import PostgreSQL

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"
CONSTRAINTS = (
    "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
)


class Cluster:
    """A database with the stand-ins, on which files are run as psql runs them."""

    def __init__(self, server: PostgreSQL, name: str) -> None:
        self._server = server
        self._name = name
        self.run((HERE / "citus_stub.sql").read_text())

    def run(self, script: str) -> None:
        """Run statements; fails with PostgreSQL's words."""
        try:
            self._server.execute(f"SET search_path = public, citus_stub; {script}", database=self._name)
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr) from error

    def rows(self, statement: str) -> list[list[str]]:
        """What a statement finds."""
        return [line.split("|") for line in self._server.execute(statement, database=self._name).splitlines()]

    def placed(self) -> dict[str, list[str]]:
        """What was done with each table."""
        found = self.rows("SELECT name, kind, distributed_by, colocated_with FROM citus_stub.placed")
        return {name: rest for name, *rest in found}


@pytest.fixture
def cluster(postgresql: PostgreSQL) -> Iterator[Cluster]:
    name = f"citus{os.urandom(4).hex()}"
    postgresql.create(name, template="template")
    yield Cluster(postgresql, name)
    postgresql.drop(name)


def script(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def test_every_table_is_put_where_it_has_its_place_and_no_constraint_is_lost(cluster: Cluster):
    before = cluster.rows(CONSTRAINTS)
    cluster.run(script("citus.sql"))
    assert cluster.rows(CONSTRAINTS) == before
    placed = cluster.placed()
    for table, place in PLACES.items():
        if isinstance(place, Distributed):
            with_whom = "none" if place.family == table else place.family
            assert placed.pop(table) == ["distributed", place.column, with_whom]
        elif isinstance(place, Reference):
            assert placed.pop(table) == ["reference", "", ""]
        else:
            assert isinstance(place, Local)
    assert placed == {}


def test_it_can_be_undone(cluster: Cluster):
    before = cluster.rows(CONSTRAINTS)
    cluster.run(script("citus.sql"))
    cluster.run(script("citus_undo.sql"))
    assert cluster.placed() == {}
    assert cluster.rows(CONSTRAINTS) == before


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER TABLE sessions RENAME CONSTRAINT fk_sessions_user TO fk_owner", "fk_sessions_user"),
        ("ALTER TABLE throttles RENAME COLUMN key TO name", "query returned no rows"),
        ("CREATE UNIQUE INDEX ux ON users (email_key)", "must contain the distribution column"),
        ("CREATE TABLE devices (user_id uuid REFERENCES users)", "to distributed tables are not supported"),
        ("DROP TABLE ip_rule_version", "ip_rule_version"),
    ],
)
def test_a_schema_that_it_does_not_fit_is_refused_and_left_as_it_was(cluster: Cluster, change: str, fault: str):
    cluster.run(change)
    with pytest.raises(AssertionError, match=fault):
        cluster.run(script("citus.sql"))
    assert cluster.placed() == {}
