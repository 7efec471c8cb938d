"""Migrations lead up and down, keep what is there, and end at exactly the tables that the code says."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Table, inspect, text

from tests.conftest import DATABASES, settings_for
from tests.people import Server
from tests.servers import PostgreSQL
from usermgmt.audit import seals
from usermgmt.chores import shared_chores
from usermgmt.maintenance import service as maintenance
from usermgmt.operator import migrations, schema_state
from usermgmt.permissions import BUILT_IN_ROLES
from usermgmt.schema import metadata
from usermgmt.settings import DatabaseSettings

NAMES = {"p": "pk", "f": "fk", "u": "uq", "c": "ck"}

POSTGRESQL_CATALOGUE = """
    SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
           coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(l.collname, '')
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), contype::text, '', ''
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
    ORDER BY 1, 2, 3
"""


@pytest.fixture(params=DATABASES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatabaseSettings]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield settings_for(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}").database
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    name = f"e{os.urandom(6).hex()}"
    yield settings_for(server.create(name)).database
    server.drop(name)


def revisions() -> list[Script]:
    """Every migration, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(schema_state.scripts()))
    return list(reversed(list(ScriptDirectory.from_config(config).walk_revisions())))


def catalogue(connection: Connection) -> list[Any]:
    """Everything that the database itself says of its tables."""
    if connection.dialect.name == "postgresql":
        return [tuple(row) for row in connection.execute(text(POSTGRESQL_CATALOGUE))]
    found: list[Any] = []
    inspector = inspect(connection)
    for table in sorted(inspector.get_table_names()):
        for pragma in ("table_xinfo", "foreign_key_list"):
            rows = connection.execute(text(f"PRAGMA {pragma}('{table}')")).all()
            found += [(pragma, table, *row) for row in rows]
        found += [("index", table, i["name"], i["column_names"], i["unique"]) for i in inspector.get_indexes(table)]
        found += [("check", table, c["name"], c["sqltext"]) for c in inspector.get_check_constraints(table)]
        found += [("key", table, inspector.get_pk_constraint(table)["name"])]
        found += [("foreign", table, f["name"], f["referred_table"]) for f in inspector.get_foreign_keys(table)]
    where = "SELECT name, sql FROM sqlite_master WHERE sql LIKE '%WHERE%' ORDER BY name"
    return sorted(map(str, found)) + [str(tuple(row)) for row in connection.execute(text(where))]


async def schema(settings: DatabaseSettings) -> list[Any]:
    async with schema_state.connected(settings) as connection:
        return [row for row in await connection.run_sync(catalogue) if "alembic_version" not in str(row)]


async def contents(settings: DatabaseSettings) -> dict[str, list[str]]:
    """Every row of every table."""
    async with schema_state.connected(settings) as connection:
        return {
            table.name: sorted(str(row) for row in (await connection.execute(table.select())).all())
            for table in metadata.sorted_tables
        }


async def fill(settings: DatabaseSettings) -> None:
    """Put something into every table, as the server would."""
    server = Server(settings_for(settings.url))
    async with server.running():
        admin = await server.person("root", roles=["admin"])
        for name in ("ada", "bob"):
            await server.person(name)
        body = {"username": "eve", "email": "eve@example.com", "password": "no such phrase as this"}
        once = {"Idempotency-Key": "the-very-same"}
        assert (await admin.post("/api/users", json=body, headers=once)).status_code == 201
        assert (
            await admin.post("/api/roles", json={"name": "auditor", "permissions": ["users:read"]})
        ).status_code == 201
        made = await (await admin.post("/api/groups", json={"name": "Lab"})).get_json()
        assert (await admin.put(f"/api/groups/{made['id']}/members/{admin.id}")).status_code == 204
        rule = {"network": "203.0.113.0/24", "action": "deny"}
        assert (await admin.post("/api/ip-rules", json=rule)).status_code == 201
        server.clock.move(timedelta(minutes=1))
        assert await seals.seal_pending(server.runtime) > 0
        for chore in shared_chores(server.settings):
            assert await maintenance.run_chore(server.runtime, chore, "me") is not None


# There and back


async def test_up_down_and_up_again_gives_the_same_schema_and_it_works(empty: DatabaseSettings):  # N02
    assert (await migrations.upgrade(empty)).current is None
    first = await schema(empty)
    assert len(first) > len(metadata.tables)
    await fill(empty)
    assert all((await contents(empty)).values())
    assert (await migrations.downgrade(empty, target="base")).current == schema_state.head()
    assert await schema(empty) == []
    assert (await schema_state.state(empty)).current is None
    assert (await migrations.upgrade(empty)).current is None
    assert await schema(empty) == first
    await fill(empty)


async def test_one_step_up_and_down_at_a_time_gives_the_same_schemas(empty: DatabaseSettings):  # N02
    seen: list[list[Any]] = [await schema(empty)]
    for script in revisions():
        await migrations.upgrade(empty, target=script.revision)
        assert (await schema_state.state(empty)).current == script.revision
        seen.append(await schema(empty))
    assert (await schema_state.state(empty)).is_current
    for before in reversed(seen[:-1]):
        await migrations.downgrade(empty, target="-1")
        assert await schema(empty) == before


async def test_migrating_again_changes_no_row(empty: DatabaseSettings):
    await migrations.upgrade(empty)
    await fill(empty)
    before = await contents(empty)
    assert all(before.values())
    state = await migrations.upgrade(empty)
    assert (state.current, state.is_current) == (schema_state.head(), True)
    assert await contents(empty) == before


async def test_migrating_brings_the_built_in_roles_up_to_date_and_leaves_others_alone(empty: DatabaseSettings):
    await migrations.upgrade(empty)
    await fill(empty)
    before = await contents(empty)
    async with schema_state.connected(empty) as connection:
        await connection.execute(
            text("DELETE FROM role_permissions WHERE role = 'admin' AND permission = 'users:read'")
        )
        await connection.execute(text("INSERT INTO role_permissions VALUES ('user', 'users:delete')"))
        await connection.execute(text("DELETE FROM role_permissions WHERE role = 'manager'"))
        await connection.commit()
    await migrations.upgrade(empty)
    assert await contents(empty) == before


# The code and the database agree


async def test_the_migrations_make_what_the_models_say(empty: DatabaseSettings):  # N04
    await migrations.upgrade(empty)

    def differences(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return found

    async with schema_state.connected(empty) as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("database", DATABASES)
async def test_the_migrations_make_to_the_last_type_what_the_models_would(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
):  # N04
    def address(name: str) -> DatabaseSettings:
        if database == "sqlite":
            return settings_for(f"sqlite+aiosqlite:///{tmp_path / name}.db").database
        server: PostgreSQL = request.getfixturevalue("postgresql")
        made = f"{name}{os.urandom(6).hex()}"
        request.addfinalizer(lambda: server.drop(made))
        return settings_for(server.create(made)).database

    migrated, made = address("migrated"), address("made")
    await migrations.upgrade(migrated)
    async with schema_state.connected(made) as connection:
        await connection.run_sync(metadata.create_all)
        await connection.commit()
    assert await schema(migrated) == await schema(made)


def named(table: Table) -> list[str]:
    named = [*table.constraints, *table.indexes]
    assert [item for item in named if item.name is None] == [], table.name
    return [str(item.name) for item in named]


async def test_every_constraint_and_index_has_the_name_that_we_gave_it(empty: DatabaseSettings):
    await migrations.upgrade(empty)
    ours = {name for table in metadata.tables.values() for name in named(table)}
    assert [name for name in ours if not re.fullmatch(r"(pk|fk|ck|uq|ix)_[a-z_]+", name)] == []
    if empty.is_sqlite:
        return
    found = {(row[0], row[2]): row for row in await schema(empty) if row[0] != "column"}
    assert {name for _, name in found} == ours
    for (kind, name), row in found.items():
        if kind == "constraint":
            assert name.startswith(NAMES[row[4]]), row


# Several at once


MIGRATE = """
import asyncio, sys
from tests.conftest import settings_for
from usermgmt.operator import migrations
print(asyncio.run(migrations.upgrade(settings_for(sys.argv[1]).database)).current)
"""


async def test_of_several_processes_on_an_empty_database_one_migrates(empty: DatabaseSettings):  # M17
    async def migrate() -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "ignore", "-c", MIGRATE, empty.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode().strip()

    before = await asyncio.gather(*(migrate() for _ in range(2)))
    assert set(before) <= {"None", schema_state.head()}
    if not empty.is_sqlite:  # there the look and the lock are two transactions; the second look is the one that counts
        assert sorted(before) == sorted(["None", schema_state.head()])
    async with schema_state.connected(empty) as connection:
        rows = (await connection.execute(text("SELECT version_num FROM alembic_version"))).all()
        roles = (await connection.execute(text("SELECT name FROM roles ORDER BY name"))).scalars().all()
    assert [row[0] for row in rows] == [schema_state.head()]
    assert list(roles) == sorted(role.name for role in BUILT_IN_ROLES)
    await fill(empty)


# The files


def test_the_migrations_are_one_line_of_descent():
    scripts = revisions()
    assert [script.down_revision for script in scripts] == [None, *(script.revision for script in scripts[:-1])]
    assert scripts[-1].revision == schema_state.head()


def test_every_migration_says_why_and_what_it_locks():
    for script in revisions():
        document = script.doc + "\n" + (script.longdoc or "")
        assert re.search(r"^Why: .+\.", document, re.MULTILINE), script.path
        assert re.search(r"^Locks: .+\.", document, re.MULTILINE), script.path
        source = Path(script.path).read_text(encoding="utf-8")
        assert "def downgrade() -> None:\n    pass" not in source


def test_the_last_migration_is_the_one_that_alembic_finds():
    scripts = ScriptDirectory.from_config(migrations.alembic_config())
    assert schema_state.head() == scripts.get_current_head()
    assert all(schema_state.is_known(script.revision) for script in scripts.walk_revisions())
    assert not schema_state.is_known("9999")


def test_a_server_that_migrates_nothing_has_no_alembic_in_memory():
    code = "import sys, usermgmt.operator.serve; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
