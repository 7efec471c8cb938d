"""`usermgmt db plan`: what it says of a statement is what PostgreSQL does with it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from tests.conftest import DATABASES
from tests.operator.conftest import CommandLine
from tests.servers import PostgreSQL
from usermgmt.operator.migration_plan import full_catalogue, planned
from usermgmt.operator.migration_sql import BASE, HEAD, Migration, migrations_between
from usermgmt.operator.statement_locks import Catalogue, Lock, Work, effect_of

LOCKS = """
    SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = $1 AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p')
      AND c.relnamespace = 'public'::regnamespace
"""
BELOW = {"AccessShareLock", "RowShareLock"}  # what reading takes, and what rows that refer to others take


@pytest.fixture(scope="module")
def place(postgresql: PostgreSQL) -> Iterator[str]:
    """The DSN of a PostgreSQL database for these tests, one after the other."""
    url = postgresql.create("plan")
    yield url.replace("+asyncpg", "")
    postgresql.drop("plan")


@pytest.fixture
async def connection(place: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to it when it is empty."""
    made = await asyncpg.connect(place)
    await made.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield made
    await made.close()


@pytest.fixture
async def onlooker(place: str) -> AsyncIterator[asyncpg.Connection]:
    """Another connection, which sees what the first one does."""
    made = await asyncpg.connect(place)
    yield made
    await made.close()


def named(rows: list[Any]) -> dict[str, str]:
    """The strongest lock of each table, as PostgreSQL calls it."""
    found: dict[str, Lock] = {}
    for name, mode in rows:
        if mode not in BELOW:
            lock = next(each for each in Lock if str(each).title().replace(" ", "") + "Lock" == mode)
            found[name] = max(lock, found.get(name, lock))
    return {name: str(lock) for name, lock in found.items()}


async def locks_in_transaction(connection: asyncpg.Connection, sql: str) -> dict[str, str]:
    """What a statement locks of the tables that were there before it."""
    before = set(await tables(connection))
    async with connection.transaction():
        await connection.execute(sql)
        own = await connection.fetch(LOCKS, connection.get_server_pid())
        # a table that the statement dropped is in no catalogue any more for this transaction
        gone = before - set(await tables(connection))
    found = {name: mode for name, mode in named([tuple(row) for row in own]).items() if name in before}
    return found | dict.fromkeys(gone, str(Lock.ACCESS_EXCLUSIVE))


async def locks_outside(
    connection: asyncpg.Connection, onlooker: asyncpg.Connection, sql: str, table: str
) -> dict[str, str]:
    """What a statement locks that may be in no transaction: it is seen while it waits for one that uses the table."""
    async with asyncio.timeout(30), onlooker.transaction():
        await onlooker.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        task = asyncio.create_task(connection.execute(sql))
        found: dict[str, str] = {}
        while not found and not task.done():
            found = named([tuple(row) for row in await onlooker.fetch(LOCKS, connection.get_server_pid())])
    await task
    return found


async def tables(connection: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


async def indexes(connection: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await connection.fetch("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("ends", [(BASE, HEAD), (HEAD, BASE)])
def test_every_statement_of_every_migration_is_known(ends: tuple[str, str], database: str):
    is_sqlite = database == "sqlite"
    catalogue = full_catalogue(is_sqlite=is_sqlite)
    statements = [each.sql for one in migrations_between(*ends, is_sqlite=is_sqlite) for each in one.statements]
    assert len(statements) > 30
    assert [sql for sql in statements if effect_of(sql, catalogue) is None] == []


async def test_every_statement_of_every_migration_locks_what_the_plan_says(
    connection: asyncpg.Connection, onlooker: asyncpg.Connection
):
    catalogue = full_catalogue(is_sqlite=False)
    seen = 0
    for ends in ((BASE, HEAD), (HEAD, BASE)):
        for migration in migrations_between(*ends, is_sqlite=False):
            seen += await compare(migration, catalogue, connection, onlooker)
    assert seen > 80
    assert await tables(connection) == []


async def compare(
    migration: Migration, catalogue: Catalogue, connection: asyncpg.Connection, onlooker: asyncpg.Connection
) -> int:
    """Run one migration statement by statement; how many were compared."""
    seen = 0
    for statement in migration.statements:
        effect = effect_of(statement.sql, catalogue)
        assert effect is not None
        said = {table: str(lock) for table, lock in effect.locks.items()}
        if statement.transaction is not None:
            assert await locks_in_transaction(connection, statement.sql) == said, statement.sql
            assert effect.makes_table == statement.sql.startswith("CREATE TABLE"), statement.sql
        elif "IF EXISTS" in statement.sql and not (await indexes(connection)) & set(statement.sql.split()):
            await connection.execute(statement.sql)  # nothing is there to drop, and nothing is locked
            continue
        else:
            assert await locks_outside(connection, onlooker, statement.sql, effect.table) == said, statement.sql
        seen += 1
    return seen


SCHEMA = """
    CREATE TABLE parents (id integer CONSTRAINT pk_parents PRIMARY KEY);
    CREATE TABLE things (id integer, parent integer, name varchar(20), size integer DEFAULT 1);
    INSERT INTO parents SELECT generate_series(1, 100);
    INSERT INTO things SELECT n, n, 'name' || n FROM generate_series(1, 100) AS n;
    ALTER TABLE things ADD CONSTRAINT ck_old CHECK (id > 0) NOT VALID;
    ALTER TABLE things ADD CONSTRAINT fk_old FOREIGN KEY (parent) REFERENCES parents (id);
    CREATE INDEX ix_old ON things (name)
"""
READ = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = to_regclass('things')"
OTHERS = [
    ("ALTER TABLE things ADD COLUMN more integer", Work.NONE),
    ("ALTER TABLE things ADD COLUMN more integer DEFAULT 5 NOT NULL", Work.NONE),
    ("ALTER TABLE things ADD COLUMN more varchar(20) DEFAULT 'it''s'", Work.NONE),
    ("ALTER TABLE things ADD COLUMN more timestamptz DEFAULT now()", Work.NONE),
    ("ALTER TABLE things ADD COLUMN more uuid DEFAULT gen_random_uuid()", Work.REWRITE),
    ("ALTER TABLE things ADD COLUMN more timestamptz DEFAULT clock_timestamp() NOT NULL", Work.REWRITE),
    ("ALTER TABLE things ADD COLUMN more bigserial", Work.REWRITE),
    ("ALTER TABLE things ADD COLUMN more integer GENERATED ALWAYS AS (id * 2) STORED", Work.REWRITE),
    ("ALTER TABLE things DROP COLUMN name", Work.COLUMN_DROPPED),
    ("ALTER TABLE things DROP COLUMN parent", Work.COLUMN_DROPPED),
    ("ALTER TABLE things ALTER COLUMN size TYPE bigint", Work.REWRITE),
    ("ALTER TABLE things ALTER COLUMN size TYPE numeric(10, 2)", Work.REWRITE),
    ("ALTER TABLE things ALTER COLUMN name SET NOT NULL", Work.SCAN),
    ("ALTER TABLE things ALTER COLUMN name DROP NOT NULL", Work.NONE),
    ("ALTER TABLE things ALTER COLUMN size SET DEFAULT 7", Work.NONE),
    ("ALTER TABLE things ALTER COLUMN size DROP DEFAULT", Work.NONE),
    ("ALTER TABLE things RENAME COLUMN name TO title", Work.NONE),
    ("ALTER TABLE things RENAME TO items", Work.NONE),
    ("ALTER TABLE things ADD CONSTRAINT ck_new CHECK (size > 0)", Work.SCAN),
    ("ALTER TABLE things ADD CONSTRAINT ck_new CHECK (size IN (1, 2, abs(3))) NOT VALID", Work.NONE),
    ("ALTER TABLE things ADD CONSTRAINT uq_new UNIQUE (id)", Work.INDEX),
    ("ALTER TABLE things ADD CONSTRAINT fk_new FOREIGN KEY (id) REFERENCES parents (id)", Work.SCAN),
    ("ALTER TABLE things ADD CONSTRAINT fk_new FOREIGN KEY(id) REFERENCES parents (id) NOT VALID", Work.NONE),
    ("ALTER TABLE things VALIDATE CONSTRAINT ck_old", Work.SCAN),
    ("ALTER TABLE things DROP CONSTRAINT ck_old", Work.NONE),
    ("ALTER TABLE things DROP CONSTRAINT fk_old", Work.NONE),
    ("CREATE UNIQUE INDEX ix_new ON things (id)", Work.INDEX),
    ("DROP INDEX ix_old", Work.NONE),
    ("UPDATE things SET size = 2", Work.WRITE),
    ("DELETE FROM things WHERE id > 50", Work.WRITE),
    ("DROP TABLE things", Work.NONE),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "work"), OTHERS)
async def test_statements_that_migrations_may_have_one_day(sql: str, work: Work, connection: asyncpg.Connection):
    await connection.execute(SCHEMA)
    catalogue = Catalogue()
    catalogue.learn(SCHEMA.replace("integer CONSTRAINT pk_parents PRIMARY KEY", "integer").split(";"))
    effect = effect_of(sql, catalogue)
    assert effect is not None
    assert (effect.table, effect.work) == ("things", work)

    before = await connection.fetchval("SELECT pg_relation_filenode('things')")
    transaction = connection.transaction()
    await transaction.start()
    read_before = await connection.fetchval(READ)
    await connection.execute(sql)
    after = await connection.fetchval("SELECT pg_relation_filenode(to_regclass('things'))")
    read = await connection.fetchval(READ)
    await transaction.rollback()
    if after is not None:
        assert (work is Work.REWRITE) == (before != after), "whether the table is written anew"
        assert (read > read_before) == (work not in (Work.NONE, Work.COLUMN_DROPPED)), "whether its rows are read"
    said = {table: str(lock) for table, lock in effect.locks.items()}
    assert await locks_in_transaction(connection, sql) == said


@pytest.mark.parametrize(
    "sql",
    [
        "VACUUM FULL users",
        "LOCK TABLE users",
        "ALTER TABLE users ADD COLUMN a integer, ALTER COLUMN b TYPE bigint",
        "ALTER TABLE users ADD COLUMN a integer UNIQUE",
        "ALTER TABLE users ADD COLUMN a uuid REFERENCES groups (id)",
        "ALTER TABLE users DROP CONSTRAINT nobody_knows",
        "ALTER TABLE users SET UNLOGGED",
        "CREATE TABLE more (LIKE users) INHERITS (users)",
        "CREATE TABLE more AS SELECT * FROM users",
        "INSERT INTO users (id) SELECT id FROM groups",
        "UPDATE users SET version = 1; DROP TABLE users",
        "DELETE FROM users USING groups WHERE true",
        "DROP INDEX nobody_knows",
        "DROP TABLE users CASCADE",
        "CREATE TRIGGER t BEFORE UPDATE ON users EXECUTE FUNCTION f()",
        "DO $$ BEGIN PERFORM 1 END $$",
        "-- the rest of this migration cannot be told without running it",
    ],
)
def test_what_is_not_recognised_is_unknown_and_not_harmless(sql: str):
    assert effect_of(sql, full_catalogue(is_sqlite=False)) is None


def test_a_lock_is_held_until_the_transaction_ends():
    (plan,) = planned("0001", "0002", {"sessions": 10_000_000}, is_sqlite=False)
    held = {each.table: each for each in plan.held}
    assert held["sessions"].lock is Lock.ACCESS_EXCLUSIVE
    assert held["sessions"].seconds == plan.seconds > 5  # taken for the column, kept while the index is built
    (concurrent,) = planned("0006", "0007", {"users": 10_000_000}, is_sqlite=False)
    assert (concurrent.held, concurrent.seconds > 50) == ([], True)


def test_the_plan_tells_what_is_pending(line: CommandLine, database_url: str):
    assert "Nothing is pending" in line.done("db", "plan")
    for name in ("ada", "bob"):
        line.create(name)
    line.done("db", "downgrade", "0005", "--yes")
    told = line.document("db", "plan")
    assert [(each["revision"], bool(each["summary"])) for each in told["migrations"]] == [
        ("0006", True),
        ("0007", True),
        ("0008", True),
    ]
    (operation,) = told["migrations"][0]["operations"]
    assert operation["table"] == "users"
    assert operation["rows"] > 0
    assert told["unknown"] == 0
    text = line.done("db", "plan")
    assert "An index of deleted accounts" in text
    assert ("SHARE on users" if "postgresql" in database_url else "writers wait") in text
    assert line.document("db", "current")["current"] == "0005"


def test_any_range_can_be_planned_up_and_down(line: CommandLine):
    up = line.document("db", "plan", "--from", "base", "--to", "0003")
    down = line.document("db", "plan", "--from", "0003", "--to", "base")
    assert [each["revision"] for each in up["migrations"]] == ["0001", "0002", "0003"]
    assert [each["revision"] for each in down["migrations"]] == ["0003", "0002", "0001"]
    assert "DROP TABLE throttles" in [each["sql"] for each in down["migrations"][0]["operations"]]
    for words in (["--from", "0815"], ["--to", "0815"]):
        assert "0815" in line.refused(1, "db", "plan", *words)


def test_a_database_that_is_not_there_yet_is_planned_from_its_beginning(empty_line: CommandLine):
    told = empty_line.document("db", "plan")
    assert told["from"] is None
    assert len(told["migrations"]) >= 7
    assert {each["rows"] for one in told["migrations"] for each in one["operations"]} == {0}
