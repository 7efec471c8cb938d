"""Lists stand on indexes: on PostgreSQL no order and no filter of a list scans or sorts the table."""

import json
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.people import Person, Server
from usermgmt.users import lists

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

ACCOUNTS = 20_000
SCALE = 50
ORDERS = ("created_at", "-created_at", "username", "-username", "email", "-email")
FILTERS = (
    "status=active",
    "status=disabled",
    "role=user",
    "q=user123",
    "created_after=2026-01-01T02:00:00Z",
    "created_before=2026-01-01T01:00:00Z",
    "username=user77",
    "email=user77@example.com",
)
FILL = f"""
INSERT INTO users (id, username, username_key, email, email_key, status, attributes, version, created_at, updated_at)
SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n, 'user' || n,
       'user' || n || '@example.com', 'user' || n || '@example.com',
       CASE WHEN n % 1000 = 0 THEN 'disabled' ELSE 'active' END, '{{}}', 1, at, at
FROM (SELECT n, timestamptz '2026-01-01Z' + n * interval '1 second' AS at FROM generate_series(1, {ACCOUNTS}) n) made
"""
GRANT = "INSERT INTO role_grants SELECT id, 'user', '*', NULL, created_at FROM users WHERE username LIKE 'user%'"


@pytest.fixture
async def many(server: Server) -> Server:
    for statement in (FILL, GRANT, "ANALYZE"):
        await server.execute(statement)
    return server


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


@pytest.fixture
def _small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is a fiftieth of a million; so are the stretches that are read of it."""
    for name in ("NEAR", "FEW", "FAR"):
        monkeypatch.setattr(lists, name, getattr(lists, name) // SCALE)


@pytest.fixture
def statements() -> Iterator[dict[str, Any]]:
    """The lists that the test asks the database for, with their parameters."""
    seen: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        is_last_resort = "OFFSET 0" in statement  # what nothing bounds: see decision 0023
        if statement.startswith("SELECT") and "string_agg" in statement and not is_last_resort:
            seen[statement] = parameters

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


@on_postgresql
@pytest.mark.usefixtures("_small_stretches")
async def test_no_list_scans_or_sorts_the_table(many: Server, admin: Person, statements: dict[str, Any]):
    for order, filters in product(ORDERS, [(), *((each,) for each in FILTERS), *combinations(FILTERS, 2)]):
        path = "&".join([f"/api/users?limit=20&sort={order}", *filters])
        answer = await admin.get(path)
        if answer.status_code == 422:  # one filter twice
            continue
        cursor = (await answer.get_json())["next_cursor"]
        assert cursor is None or (await admin.get(f"{path}&cursor={cursor}")).status_code == 200
    found = dict(statements)
    assert len(found) > 30
    for statement, parameters in found.items():
        plan = nodes(await _read_rows(many, statement, parameters))
        scans = [each for each in plan if each["Node Type"] == "Seq Scan" and each["Relation Name"] == "users"]
        assert scans == [], statement
        sorts = [each["Actual Rows"] for each in plan if each["Node Type"] in {"Sort", "Incremental Sort"}]
        assert max(sorts, default=0) <= lists.FAR + 1, statement


async def _read_rows(server: Server, statement: str, parameters: Any) -> dict[str, Any]:
    """The plan of a statement, run with its own parameters."""
    async with server.runtime.database.read_rows() as rows:
        connection = rows.connection
        await connection.exec_driver_sql(f"SET seq_page_cost = {SCALE}")  # what a table of that length costs to scan
        found = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        document = found.scalar_one()
        await connection.exec_driver_sql("RESET seq_page_cost")
    text = document if isinstance(document, str) else json.dumps(document)
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan
