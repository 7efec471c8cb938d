"""Code of this release on the schema of the next: what a rolling upgrade and the way back stand on."""

import asyncio
import json

import pytest
from sqlalchemy import text

from tests.conftest import settings_for
from tests.operator.conftest import CommandLine, environment
from tests.people import PASSWORD, Server
from tests.storage.test_migrations import fill
from usermgmt.operator import schema_state
from usermgmt.operator.schema_state import SchemaState
from usermgmt.operator.startup import prepare
from usermgmt.schema import metadata

NUMBER = int(schema_state.head()[:4])
NEXT, AFTER_NEXT = f"{NUMBER + 1:04}_from_{NUMBER:04}", f"{NUMBER + 2:04}_from_{NUMBER + 1:04}"


async def migrate_as_a_newer_release(url: str, revision: str) -> None:
    """What an additive migration may do, done to every table: columns, an index, a table that refers to accounts."""
    async with schema_state.connected(settings_for(url).database) as connection:
        for table in metadata.sorted_tables:
            await connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN next_text varchar(20)"))
            await connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN next_count integer DEFAULT 0 NOT NULL"))
            await connection.execute(text(f"CREATE INDEX ix_next_{table.name} ON {table.name} (next_count)"))
        await connection.execute(
            text("CREATE TABLE next_table (user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE)")
        )
        await connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        await connection.commit()


def test_the_whole_api_works_on_the_schema_of_the_next_release(database_url: str) -> None:  # N03
    async def use() -> None:
        await migrate_as_a_newer_release(database_url, NEXT)
        prepared = await prepare(settings_for(database_url, **{"database.migrate": True}))
        await prepared.runtime.close()
        await fill(settings_for(database_url).database)
        server = Server(settings_for(database_url))
        async with server.running():
            ben = await server.person("ben")
            body = {"refresh_token": ben.refresh_token}
            refreshed = await server.nobody().post("/api/auth/refresh", json=body)
            assert refreshed.status_code == 200
            ben.keep(await refreshed.get_json())
            change = {"current_password": PASSWORD, "new_password": "another phrase of some length"}
            for method, path, sent, status in (
                ("PUT", "/api/users/me", {"display_name": "Ben"}, 200),
                ("GET", "/api/users/me/sessions", None, 200),
                ("GET", "/api/users/me/activity", None, 200),
                ("GET", "/api/users/me/export", None, 200),
                ("PUT", "/api/users/me", {"password": change["new_password"], "current_password": PASSWORD}, 200),
                ("DELETE", "/api/users/me", {"current_password": change["new_password"]}, 204),
            ):
                answer = await ben.call(method, path, **({"json": sent} if sent else {}))
                assert answer.status_code == status, (method, path, await answer.get_data())

    asyncio.run(use())
    line = CommandLine(environment(database_url))
    assert {user["username"] for user in line.documents("users", "list")} >= {"root", "ada", "bob", "eve"}
    line.done("audit", "verify")
    checks = json.loads(line.run("doctor", "--json").stdout)["checks"]
    (told,) = [each for each in checks if each["check"] == "schema.revision"]
    assert (told["severity"], NEXT in told["found"]) == ("note", True)


@pytest.mark.parametrize("revision", [AFTER_NEXT, f"{NUMBER + 1:04}", "unheard"])
def test_a_schema_that_this_release_may_not_know_is_refused(database_url: str, revision: str) -> None:
    asyncio.run(migrate_as_a_newer_release(database_url, revision))
    line = CommandLine(environment(database_url))
    assert "only another release knows" in line.refused(78, "users", "list")


@pytest.mark.parametrize(
    ("current", "head", "is_fit"),
    [
        ("0008_from_0007", "0007", True),
        ("0009_from_0007", "0008_from_0007", True),
        ("0009_from_0007", "0007", True),
        ("0009_from_0008", "0007", False),
        ("0008", "0007", False),
        ("0006", "0007", False),
        ("0006_from_0005", "0007", False),
        (None, "0007", False),
        ("0007", "0007", True),
    ],
)
def test_a_revision_tells_whose_code_runs_on_it(current: str | None, head: str, is_fit: bool) -> None:
    assert SchemaState(current, head).is_fit == is_fit


def test_every_revision_has_the_form_that_older_releases_read() -> None:
    assert schema_state._NUMBERS.fullmatch(schema_state.head())
