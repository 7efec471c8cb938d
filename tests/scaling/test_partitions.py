"""The operator's file that divides the record by month: on a filled table, with the application running on it."""

import os
import re
import secrets
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.conftest import settings_for
from tests.people import Server
from tests.scaling.drive import drive
from tests.scaling.recorder import Recorder
from tests.servers import PostgreSQL
from usermgmt.audit import seals, service
from usermgmt.audit.verification import verify

FILE = Path(__file__).parents[2] / "deploy" / "partition_audit.sql"
PARTS = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'audit_events'::regclass ORDER BY 1"
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'audit_events' ORDER BY 1"
MONTHS_AGO = """
CREATE OR REPLACE FUNCTION audit_events_month(ahead int) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + (ahead + {}) * interval '1 month') AT TIME ZONE 'UTC'
$$"""
OWN_INDEXES = "SELECT count(*) FROM pg_index WHERE indrelid = 'audit_events_past'::regclass"


class Divided:
    """A database whose record can be divided, and the application on it."""

    def __init__(self, postgresql: PostgreSQL, name: str) -> None:
        self._postgresql = postgresql
        self._name = name
        self.server = Server(settings_for(postgresql.url(name)))

    def run(self, statement: str) -> list[str]:
        """Run a statement as psql does; the lines it prints."""
        return self._postgresql.execute(statement, database=self._name).splitlines()

    def divide(self) -> None:
        """Run the file, each of its transactions by itself, as psql does with a file."""
        script = FILE.read_text(encoding="utf-8")
        for transaction in re.split(r"^(?=BEGIN;|ALTER TABLE audit_events VALIDATE|ANALYZE)", script, flags=re.M):
            if transaction.strip():
                self.run(transaction)

    async def seal(self) -> None:
        """Seal all that there is."""
        self.server.clock.move(timedelta(minutes=1))
        await seals.seal_pending(self.server.runtime)

    async def problems(self) -> list[str]:
        """What is wrong with the record."""
        return (await verify(self.server.runtime)).problems


@pytest.fixture
async def divided(postgresql: PostgreSQL) -> AsyncIterator[Divided]:
    name = f"parts{os.urandom(4).hex()}"
    postgresql.create(name, template="template")
    made = Divided(postgresql, name)
    async with made.server.running():
        await made.server.person("old")
        await made.seal()
        yield made
    postgresql.drop(name)


async def test_a_filled_record_is_divided_without_copying_and_still_verifies(divided: Divided):
    indexes, place = divided.run(INDEXES), divided.run("SELECT pg_relation_filenode('audit_events')")
    before = divided.run("SELECT owner_id, id, at, event FROM audit_events ORDER BY at, id")
    divided.divide()
    assert len(divided.run(PARTS)) == 5  # what there was, three months, and the rest
    assert divided.run("SELECT pg_relation_filenode('audit_events_past')") == place
    assert divided.run(OWN_INDEXES) == ["8"]  # the ones it had; none was built again
    assert [each.replace(" ONLY ", " ") for each in divided.run(INDEXES)] == indexes
    assert divided.run("SELECT owner_id, id, at, event FROM audit_events ORDER BY at, id") == before
    await divided.server.person("new")
    await divided.seal()
    assert await divided.problems() == []


async def test_everything_that_the_application_does_works_on_it(divided: Divided):
    divided.divide()
    await drive(divided.server, Recorder())
    assert await divided.problems() == []


async def test_events_lie_in_their_month_and_none_is_refused_when_no_month_was_made(divided: Divided):
    divided.divide()
    later = "SELECT audit_events_first_id(audit_events_month({}) + interval '3 days')"
    copy = (
        "INSERT INTO audit_events SELECT owner_id, '{}', at, event, outcome, actor_id, actor_name, target_type,"
        " target_id, session_id, address, user_agent, request_id, details, salt, personal_digest"
        " FROM audit_events LIMIT 1 RETURNING tableoid::regclass"
    )
    assert divided.run(copy.format(divided.run(later.format(2))[0]))[0] in divided.run(PARTS)[1:-1]
    fifth = divided.run(later.format(5))[0]
    assert divided.run(copy.format(fifth)) == ["audit_events_rest"]
    assert divided.run("SELECT audit_events_add_months(6)") == ["3"]
    where = divided.run(f"SELECT tableoid::regclass FROM audit_events WHERE id = '{fifth}'")
    assert where != ["audit_events_rest"]
    assert where[0].startswith("audit_events_2")
    assert divided.run("SELECT audit_events_add_months(6)") == ["0"]


async def test_the_space_of_months_is_given_back_when_retention_has_emptied_them(
    divided: Divided, monkeypatch: pytest.MonkeyPatch
):
    divided.divide()
    assert divided.run("SELECT audit_events_drop_empty()") == ["0"]
    clock = divided.server.clock
    monkeypatch.setattr(service, "new_id", lambda: _id_of(clock.now()))  # as if the machine's clock had moved
    clock.move(divided.server.settings.audit.retention + timedelta(days=70))
    divided.run(MONTHS_AGO.format((clock.ahead.days // 30) - 1))
    assert divided.run("SELECT audit_events_add_months(3)") == ["3"]
    await divided.server.person("much-later")
    await divided.seal()
    assert divided.run("SELECT audit_events_drop_empty()") == ["3"]  # the months in which nothing happened
    assert "audit_events_past" in divided.run(PARTS)  # what holds events stays, however old
    assert await divided.problems() == []
    while await seals.prune_due(divided.server.runtime):
        pass
    assert divided.run("SELECT audit_events_drop_empty()") == ["1"]
    assert "audit_events_past" not in divided.run(PARTS)
    assert len(await divided.server.events("login.succeeded")) == 1
    assert await divided.problems() == []


def _id_of(time: datetime) -> UUID:
    """An id as it is made at a time."""
    return UUID(int=int(time.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | secrets.randbits(62))
