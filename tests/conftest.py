"""What every test stands on: both databases, an application on each, and people to call as.

Each worker of the test run has one PostgreSQL server of its own. A database is migrated once; it is emptied after each
test, or copied for it, so that no test sees what another did.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from quart import Quart

from tests.people import Person, Server
from tests.servers import PostgreSQL, Valkey
from tests.warm import keep_compiled
from usermgmt.operator import migrations
from usermgmt.settings import Settings, load_settings

SECRET = "tests-only-7f3a9c51e8d24b60a1f7c3d95e2b8046"
DATABASES = ("sqlite", "postgresql")
SHARED = "shared"
OWN_DATABASE = {"storage", "operator", "fuzz"}  # folders whose tests change schemas and settings, or start processes
EMPTY = "; ".join(
    f"DELETE FROM {table}"
    for table in (
        "throttles",
        "ip_rules",
        "group_members",
        "groups",
        "role_grants",
        "sessions",
        "users",
        "login_names",
        "audit_events",
        "audit_seals",
        "audit_head",
        "signing_keys",
        "idempotency_keys",
        "chores",
        "root_secrets",
        "roles WHERE NOT built_in",
    )
)

keep_compiled()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running PostgreSQL server with a migrated template database."""
    server = PostgreSQL()
    server.start()
    try:
        asyncio.run(migrations.upgrade(settings_for(server.create("template")).database))
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(migrations.upgrade(settings_for(f"sqlite+aiosqlite:///{path}").database))
    return path


@pytest.fixture(scope="session")
def shared_database(postgresql: PostgreSQL) -> str:
    """The address of the one PostgreSQL database that most tests of a worker use after each other."""
    return postgresql.create(SHARED, template="template")


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """A Valkey server, started when a test first needs it."""
    server = Valkey()
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[Valkey]:
    """An empty Valkey server."""
    yield valkey_server
    valkey_server.command("FLUSHALL")


@pytest.fixture
def mortal_valkey() -> Iterator[Valkey]:
    """A Valkey server that the test may hang and kill."""
    server = Valkey()
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a migrated, empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "test.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    if OWN_DATABASE & set(request.node.path.parts):
        name = f"t{os.urandom(6).hex()}"
        yield server.create(name, template="template")
        server.drop(name)
        return
    url: str = request.getfixturevalue("shared_database")
    yield url
    asyncio.run(empty(url))


async def empty(url: str) -> None:
    """Delete what a test left behind."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(EMPTY)
    await connection.close()


@pytest.fixture
def flags() -> dict[str, Any]:
    """Settings of the application under test; a test or module overrides this fixture to add its own."""
    return {}


@pytest.fixture
def settings(database_url: str, flags: dict[str, Any]) -> Settings:
    """The settings of the application under test."""
    return settings_for(database_url, **flags)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    """A running application with a clock that the test can move."""
    server = Server(settings)
    async with server.running():
        yield server


@pytest.fixture
def app(server: Server) -> Quart:
    """The application itself."""
    return server.app


@pytest.fixture
async def admin(server: Server) -> Person:
    """Somebody who may do everything."""
    return await server.person("root", roles=["admin"])


@pytest.fixture
async def manager(server: Server) -> Person:
    """Somebody who looks after accounts."""
    return await server.person("mia", roles=["manager"])


@pytest.fixture
async def ada(server: Server) -> Person:
    """An ordinary user."""
    return await server.person("ada")


@pytest.fixture
async def bob(server: Server) -> Person:
    """Another ordinary user."""
    return await server.person("bob")


@pytest.fixture
def as_(server: Server, admin: Person, manager: Person, ada: Person, bob: Person) -> Callable[[str], Any]:
    """A client by the name of a caller in a table of refusals."""
    callers = {"nobody": server.nobody(), "stranger": bob, "self": ada, "manager": manager, "admin": admin}
    return lambda name: callers[name]


def settings_for(database_url: str, **flags: Any) -> Settings:
    """Settings for tests: quick hashes, no budgets, guesses without end, no environment."""
    return load_settings(
        flags={
            "database.url": database_url,
            "database.allow_sqlite": True,
            "secret.keys": SECRET,
            "passwords.bcrypt_cost": 4,
            "passwords.hash_nice": 0,
            "passwords.hash_queue": "60s",
            "database.pool_timeout": "20s",
            "audit.seal_interval": "1h",
            "limits.enabled": False,
            "server.fast_path": os.environ.get("FAST_PATH", "true"),
            **{f"throttle.{name}": "1000000/15m" for name in ("account", "network", "session", "refresh")},
            **flags,
        },
        environ={},
        config=None,
    )
