"""Two instances on one PostgreSQL and one Valkey, and the people who call them. No test here runs on SQLite: it has one
instance. What takes seconds to start is shared by the tests of a module; each leaves it running.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle

import pytest

from tests.deployment.instances import Instance
from tests.deployment.traffic import Client, Connect
from tests.operator.conftest import PASSWORD, CommandLine, environment
from tests.servers import PostgreSQL, Valkey

CALLERS = ("read", "read", "list", "change", "change", "refresh")
"""What each caller does; nginx repeats a GET that failed, but no PATCH and no POST."""

AMPLE = {f"limits__{name}": "10000000/m" for name in ("read", "write", "refresh", "login", "admin")}
"""Budgets that are counted, in Valkey, and never spent."""


@pytest.fixture(scope="module")
def database(postgresql: PostgreSQL) -> Iterator[str]:
    """A migrated database of the module's own, by its name."""
    name = f"d{os.urandom(6).hex()}"
    postgresql.create(name, template="template")
    yield name
    postgresql.drop(name)


@pytest.fixture(scope="module")
def shared_settings(valkey_server: Valkey) -> dict[str, str]:
    """What instances behind a proxy have in common, but for their database."""
    return {
        "valkey__url": valkey_server.url,
        "network__trusted_proxies": "127.0.0.1",
        "server__drain_delay": "3s",
        "server__public_url": "https://accounts.example.com",
        **AMPLE,
    }


Begin = Callable[..., Instance]


@pytest.fixture(scope="module")
def begin(shared_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """Make an instance on a database and start it; further settings as section__key."""
    with ExitStack() as stack:

        def make(url: str, **more: str) -> Instance:
            made = Instance(environment(url, **{**shared_settings, **more}), tmp_path_factory.mktemp("instance"))
            made.start()
            stack.callback(made.put_away)
            return made

        yield make


@dataclass(frozen=True, slots=True)
class People:
    """Accounts, of which each has a session through some way to the servers."""

    line: CommandLine

    def has(self, name: str, *, role: str | None = None) -> None:
        """See to it that there is an account."""
        if self.line.run("users", "show", name).exit_code:
            self.line.create(name)
            if role is not None:
                self.line.done("roles", "grant", name, role)

    def callers(self, *ways: Connect) -> list[tuple[Client, str, str]]:
        """Signed-in callers of each kind of `CALLERS`, by the ways in turn."""
        made = []
        for number, (kind, make) in enumerate(zip(CALLERS, cycle(ways), strict=False)):
            name = f"caller{number}"
            self.has(name, role="admin" if kind == "list" else None)
            client = Client(make)
            client.sign_in(name, PASSWORD)
            made.append((client, name, kind))
        return made

    def display_name(self, username: str) -> str:
        """What the database has, past every server."""
        name: str = self.line.document("users", "show", username)["display_name"]
        return name


@pytest.fixture(scope="module")
def people(postgresql: PostgreSQL, database: str) -> People:
    """Accounts to call as."""
    return People(CommandLine(environment(postgresql.url(database))))


@pytest.fixture(scope="module")
def instances(begin: Begin, postgresql: PostgreSQL, database: str) -> Iterator[tuple[Instance, Instance]]:
    """Two instances that serve; they end before their database does."""
    made = begin(postgresql.url(database)), begin(postgresql.url(database))
    yield made
    for each in made:
        each.put_away()
