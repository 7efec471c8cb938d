"""`usermgmt doctor` on a database: in order, damaged in every way that it looks for, empty, away."""

import asyncio
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import SECRET, settings_for
from tests.operator.conftest import CommandLine, environment
from tests.people import Server
from tests.servers import PostgreSQL
from usermgmt.operator import migrations

ROLE = "usermgmt_app"
SOUND = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on"}
ABOUT_DATA = ("schema", "accounts", "retention", "keys")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL server as it should be, with a role for the application."""
    server = PostgreSQL()
    server.start(**SOUND)
    server.execute(f"CREATE ROLE {ROLE} LOGIN")
    server.execute(f"CREATE DATABASE app OWNER {ROLE}")
    yield server
    server.remove()


def as_role(url: str) -> str:
    return url.replace("postgres@", f"{ROLE}@")


def damage(url: str, *statements: str) -> None:
    """Change a database behind the server's back."""

    async def execute() -> None:
        async with migrations.connected(settings_for(url).database) as connection:
            for statement in statements:
                await connection.execute(text(statement))
            await connection.commit()

    asyncio.run(execute())


async def people(url: str) -> None:
    """Put two administrators into a database, with a key that signs."""
    server = Server(settings_for(url))
    async with server.running():
        for name in ("root", "ruth"):
            await server.person(name, roles=["admin"])


def examined(url: str, *words: str, **more: str) -> dict[str, list[dict[str, Any]]]:
    """What each check found."""
    result = CommandLine(environment(url, **more)).run("doctor", "--json", *words)
    assert result.stderr == ""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(result.stdout)["checks"]:
        found.setdefault(row["check"], []).append(row)
    return found


def severities(found: dict[str, list[dict[str, Any]]], *groups: str) -> dict[str, set[str]]:
    """The severities of the checks of some groups."""
    return {check: {row["severity"] for row in rows} for check, rows in found.items() if check.split(".")[0] in groups}


def test_a_database_in_order_has_nothing_to_mend(database_url: str) -> None:
    asyncio.run(people(database_url))
    for words in ((), ("--thorough",)):
        found = severities(examined(database_url, *words), *ABOUT_DATA, "clock", "database")
        assert set().union(*found.values()) == {"ok"}, found
        assert len(found) >= 12


DAMAGE = (
    "DROP INDEX ix_users_by_email",
    "ALTER TABLE sessions ADD COLUMN extra integer",
    "CREATE INDEX of_somebody ON users (version)",
    "DELETE FROM login_names WHERE name = 'ruth@example.com'",
    "INSERT INTO login_names (name, kind, user_id) VALUES ('zoe', 'username', '01890000000070008000000000000000')",
    "DELETE FROM role_grants",
    "UPDATE users SET password_hash = 'um1$00000000$$2b$12$' WHERE username = 'root'",
    "UPDATE users SET password_hash = '$2b$12$abc', deleted_at = '2020-01-01 00:00:00' WHERE username = 'ruth'",
    "UPDATE audit_events SET at = '2010-01-01 00:00:00'",
    "UPDATE sessions SET expires_at = '2020-01-01 00:00:00'",
    "UPDATE signing_keys SET private_key = 'v1.00000000.AAAA'",
)
FOUND = {
    "schema.revision": {"ok"},
    "schema.tables": {"warning", "note"},
    "accounts.administrator": {"error"},
    "accounts.names": {"error", "warning"},
    "accounts.hashes": {"error", "note"},
    "retention.seals": {"warning"},
    "retention.erasures": {"warning"},
    "retention.sessions": {"warning"},
    "retention.events": {"warning"},
    "keys.signing": {"error"},
}


def test_every_damage_is_found_with_how_to_mend_it(database_url: str) -> None:
    asyncio.run(people(database_url))
    damage(database_url, *DAMAGE)
    found = examined(database_url)
    told = severities(found, *ABOUT_DATA)
    assert {check: told[check] for check in FOUND} == FOUND
    assert all(row["mend"] for check in FOUND for row in found[check] if row["severity"] != "ok")
    (index,) = [row["mend"] for row in found["schema.tables"] if "ix_users_by_email" in row["found"]]
    damage(database_url, index.replace("CONCURRENTLY ", ""), "DROP INDEX of_somebody")
    left = [row["found"] for row in examined(database_url)["schema.tables"]]
    assert left == ["The column extra of sessions is none of this release."]


def test_what_is_told_to_mend_the_names_of_accounts_mends_them(database_url: str) -> None:
    asyncio.run(people(database_url))
    whose = "(SELECT id FROM users WHERE username = 'ruth')"
    stray = next(statement for statement in DAMAGE if "'zoe'" in statement)
    damage(database_url, f"DELETE FROM login_names WHERE user_id = {whose}", stray)
    nameless, orphans = (row["mend"] for row in examined(database_url)["accounts.names"])
    (statement,) = re.findall(r"INSERT .* WHERE id = ", nameless)
    by_email = statement.replace("username_key, 'username'", "email_key, 'email'")
    damage(database_url, statement + whose, by_email + whose, orphans)
    assert severities(examined(database_url), "accounts")["accounts.names"] == {"ok"}
    assert orphans.startswith("DELETE ")


def test_what_is_missing_is_told_and_the_rest_is_looked_at(database_url: str) -> None:
    damage(database_url, "DROP INDEX ix_throttles_window", "ALTER TABLE throttles DROP COLUMN window_started_at")
    damage(database_url, "DROP TABLE login_names")
    found = examined(database_url)
    told = " ".join(row["found"] + row["mend"] for row in found["schema.tables"])
    assert "The table login_names is missing" in told
    assert "ALTER TABLE throttles ADD COLUMN window_started_at" in told
    assert severities(found, "accounts")["accounts.names"] == {"warning"}
    assert severities(found, "accounts")["accounts.administrator"] == {"error"}
    assert severities(found, "keys") == {"keys.signing": {"note"}}


def test_a_schema_of_another_release_is_an_error(database_url: str, empty_database_url: str) -> None:
    assert severities(examined(empty_database_url), "schema")["schema.revision"] == {"error"}
    assert severities(examined(empty_database_url, database__migrate="true"), "schema")["schema.revision"] == {"note"}
    damage(database_url, "UPDATE alembic_version SET version_num = '9999'")
    found = examined(database_url)
    assert severities(found, "schema")["schema.revision"] == {"error"}
    assert severities(found, "accounts")["accounts.administrator"] == {"not_checked"}
    damage(database_url, "UPDATE alembic_version SET version_num = '0001'")
    assert "usermgmt db upgrade" in examined(database_url)["schema.revision"][0]["mend"]


def test_looking_makes_no_file_and_changes_nothing(tmp_path: Path) -> None:
    examined(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_tell_errors_and_with_strict_warnings(sound: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usermgmt.operator.doctor_machine_checks.QUICKEST_HASH", 0.0)
    monkeypatch.setattr("usermgmt.operator.doctor_machine_checks.TIMES", 1)
    few = {"passwords__bcrypt_cost": "10", "server__max_connections": "64"}
    line = CommandLine(environment(as_role(sound.url("app")), **few))
    line.done("db", "upgrade")
    assert "No active account" in line.run("doctor").stdout
    for name in ("root", "ruth"):
        line.document("admin", "create", name, f"{name}@example.com", "--password-stdin", given=secrets.token_hex(12))
    done = line.done("doctor", "--strict", "--problems")
    assert "0 errors, 0 warnings" in done
    assert "\x1b" not in done
    line.environ["USERMGMT_LIMITS__ENABLED"] = "false"
    assert line.run("doctor").exit_code == 0
    assert line.run("doctor", "--strict").exit_code == 1
    line.environ["USERMGMT_THROTTLE__ENABLED"] = "false"
    assert line.run("doctor").exit_code == 1
    healthy = line.run("doctor", "--json")
    assert (json.loads(healthy.stdout)["healthy"], healthy.exit_code) == (False, 1)


# PostgreSQL


def test_a_server_that_forgets_and_a_superuser_are_told(postgresql: PostgreSQL, sound: PostgreSQL) -> None:
    found = severities(examined(postgresql.url("postgres")), "postgresql")
    assert found["postgresql.durability"] == {"error", "warning"}
    assert found["postgresql.role"] == {"warning"}
    assert set().union(*severities(examined(as_role(sound.url("app"))), "postgresql").values()) == {"ok"}


def test_too_many_connections_are_told(sound: PostgreSQL) -> None:
    url = as_role(sound.url("app"))

    def severity(*words: str, **more: str) -> set[str]:
        return severities(examined(url, *words, **more), "postgresql")["postgresql.connections"]

    assert severity(database__pool_size="20") == {"ok"}
    assert severity(database__pool_size="180") == {"warning"}
    exactly = int(sound.execute("SHOW max_connections")) - 3  # which are for a superuser
    assert severity(database__pool_size=str(exactly - 1)) == {"warning"}
    assert severity(database__pool_size=str(exactly)) == {"error"}  # each process has one more, to look
    assert severity("--instances", "10", database__pool_size="20") == {"error"}
    assert severity("--instances", "10", database__pool_size="20", database__pooler="transaction") == {"ok"}
    sound.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 12")
    try:
        assert severity(database__pool_size="20") == {"error"}
    finally:
        sound.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


def test_a_pooler_that_is_not_there_a_standby_that_is_none_and_a_dead_replica_are_told(sound: PostgreSQL) -> None:
    url = as_role(sound.url("app"))
    found = severities(examined(url, database__pooler="transaction", database__read_url=url), "postgresql")
    assert found["postgresql.pooler"] == {"note"}
    assert found["postgresql.replica"] == {"warning"}
    dead = examined(url, database__read_url="postgresql://app:hidden-word@127.0.0.1:1/app")
    assert severities(dead, "postgresql")["postgresql.replica"] == {"warning"}
    assert "hidden-word" not in json.dumps(dead)


def test_a_read_only_server_and_an_unfinished_index_are_told(sound: PostgreSQL) -> None:
    url = as_role(sound.create("broken"))
    sound.execute("CREATE TABLE twice (x int); INSERT INTO twice VALUES (1), (1)", database="broken")
    with pytest.raises(CalledProcessError):
        sound.execute("CREATE UNIQUE INDEX CONCURRENTLY of_twice ON twice (x)", database="broken")
    sound.execute("ALTER DATABASE broken SET default_transaction_read_only = on")
    found = examined(url)
    assert severities(found, "postgresql")["postgresql.primary"] == {"error"}
    assert [row["mend"] for row in found["schema.indexes"]] == ["REINDEX INDEX CONCURRENTLY of_twice"]


def test_a_slot_that_serves_nobody_is_told_when_it_holds_much(
    sound: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usermgmt.operator.doctor_postgresql_checks.MOST_BYTES_HELD", 0)
    sound.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    try:
        found = examined(as_role(sound.url("app")))
    finally:
        sound.execute("SELECT pg_drop_replication_slot('gone')")
    assert [row["mend"] for row in found["postgresql.slots"]] == [
        "Start its replica again, or SELECT pg_drop_replication_slot('gone')."
    ]


# SQLite


def test_a_sqlite_file_is_private_and_its_log_is_short(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copy(sqlite_template, path := tmp_path / "mine.db")
    path.chmod(0o600)
    url = f"sqlite:///{path}"

    def told() -> str:
        return " ".join(row["found"] for row in examined(url)["machine.sqlite"])

    assert "everybody" not in told()
    path.chmod(0o644)
    assert "can be read by everybody" in told()
    with (tmp_path / "mine.db-wal").open("wb") as log:
        os.truncate(log.fileno(), 300 << 20)
    assert "has 300 MiB" in told()
    assert SECRET not in told()
