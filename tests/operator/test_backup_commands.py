"""`usermgmt db backup` and `restore`: what was kept is there again, whole; what fails changes and leaves nothing."""

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import settings_for
from tests.operator.conftest import PATIENCE, CommandLine, Start, environment
from tests.operator.whole_databases import PG_BIN, change, furnish, kind_of, new_database, open_file, program, rows_of
from tests.people import PASSWORD, Person, Server

NAMED = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@pytest.fixture
def other_url(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[str]:
    """A database of the same kind with nothing in it."""
    with new_database(request, tmp_path / "other", kind_of(database_url)) as url:
        yield url


def leftovers(folder: Path) -> list[str]:
    """Drafts that somebody left behind."""
    return [path.name for path in folder.rglob(".*") if path.name.startswith(".")]


def test_what_was_backed_up_while_it_was_written_to_is_whole_and_serves(
    line: CommandLine, database_url: str, other_url: str, start: Start, tmp_path: Path
):
    """The drill: back up under writes, restore elsewhere, start there; sessions and passwords hold, the record too."""
    ada = asyncio.run(furnish(database_url))
    acknowledged, made = asyncio.run(back_up_under_writes(database_url, start, line.environ))
    assert made > acknowledged
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600

    there = CommandLine(environment(other_url))
    told = there.document("db", "restore", "kept", *PG_BIN, "--verify")
    assert (told["is_current"], told["intact"]) == (True, True)
    assert 5 + acknowledged <= told["users"] <= 5 + made
    rows = asyncio.run(rows_of(other_url))
    assert len(rows["login_names"]) == 2 * len(rows["users"])
    assert len([row for row in rows["audit_events"] if "user.created" in row]) == len(rows["users"])
    asyncio.run(serve_again(other_url, ada))


async def back_up_under_writes(database_url: str, start: Start, environ: dict[str, str]) -> tuple[int, int]:
    """Back up while accounts are made; how many were there before and after."""
    server, made, is_over = Server(settings_for(database_url)), 0, asyncio.Event()
    begun = asyncio.Event()

    async def write() -> None:
        nonlocal made
        while not is_over.is_set():
            body = {"username": f"writer{made}", "email": f"writer{made}@example.com", "password": PASSWORD}
            assert (await server.nobody().post("/api/users", json=body)).status_code == 201
            made += 1
            begun.set()

    async with server.running(), asyncio.timeout(PATIENCE):
        writing = asyncio.create_task(write())
        await begun.wait()
        acknowledged = made
        process = start("db", "backup", "kept", *PG_BIN, environ=environ)
        assert await asyncio.to_thread(process.end) == 0, process.errors()
        is_over.set()
        await writing
    return acknowledged, made


async def serve_again(database_url: str, ada: Person) -> None:
    """Start on a restored database: the tokens and passwords of before are good."""
    restored = Server(settings_for(database_url))
    async with restored.running():
        again = Person(restored, username="ada", password=PASSWORD, id=ada.id)
        again.access_token = ada.access_token
        assert (await again.get("/api/users/me")).status_code == 200
        token = {"refresh_token": ada.refresh_token}
        assert (await restored.nobody().post("/api/auth/refresh", json=token)).status_code == 200
        await Person(restored, username="writer0", password=PASSWORD).log_in()


def test_a_restored_database_is_the_same_to_the_last_row(line: CommandLine, database_url: str, other_url: str):
    asyncio.run(furnish(database_url))
    before = asyncio.run(rows_of(database_url))
    told = line.document("db", "backup", "kept", *PG_BIN, "--verify")
    assert told.items() >= {"database": NAMED[kind_of(database_url)], "users": 5, "verified": True}.items()
    assert told["bytes"] == Path("kept").stat().st_size
    CommandLine(environment(other_url)).done("db", "restore", "kept", *PG_BIN)
    assert asyncio.run(rows_of(other_url)) == before
    line.create("later")
    assert asyncio.run(rows_of(database_url)) != before
    told = line.done("db", "restore", "kept", *PG_BIN, "--replace", "--yes")
    assert re.search(r"Restored kept in .* events on record: \d+( until [0-9: -]+ UTC)?, revision: \w+\.", told)
    assert asyncio.run(rows_of(database_url)) == before


def test_a_file_is_replaced_only_when_that_was_said(line: CommandLine, tmp_path: Path):
    (tmp_path / "kept").write_text("precious")
    assert "kept exists" in line.refused(2, "db", "backup", "kept", *PG_BIN)
    assert (tmp_path / "kept").read_text() == "precious"
    line.done("db", "backup", "kept", *PG_BIN, "--yes")
    assert (tmp_path / "kept").stat().st_size > 1000
    assert "No such file" in line.refused(1, "db", "backup", "nowhere/kept", *PG_BIN)
    assert leftovers(tmp_path) == []


def test_what_is_no_database_of_ours_is_not_backed_up(empty_line: CommandLine, tmp_path: Path):
    refusal = empty_line.refused(1, "db", "backup", "kept", *PG_BIN)
    assert "no database" in refusal or "not a database of this server" in refusal
    assert not (tmp_path / "kept").exists()


def test_a_database_that_holds_anything_is_replaced_only_when_that_was_said(line: CommandLine):
    line.create("ada")
    line.done("db", "backup", "kept", *PG_BIN)
    assert "--replace" in line.refused(1, "db", "restore", "kept", *PG_BIN)
    assert "Pass --yes" in line.refused(2, "db", "restore", "kept", *PG_BIN, "--replace")
    assert len(line.documents("users", "list")) == 1


def test_a_restore_that_fails_changes_nothing(line: CommandLine, database_url: str, tmp_path: Path):
    asyncio.run(furnish(database_url))
    line.done("db", "backup", "kept", *PG_BIN)
    line.create("later")
    before = asyncio.run(rows_of(database_url))
    whole = (tmp_path / "kept").read_bytes()
    for name, content in {
        "half": whole[: len(whole) // 2],
        "short": whole[:-200],
        "text": b"nothing of the kind",
        "nothing": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        line.refused(1, "db", "restore", name, *PG_BIN, "--replace", "--yes")
        assert asyncio.run(rows_of(database_url)) == before, name
    line.refused(1, "db", "restore", "missing", *PG_BIN, "--replace", "--yes")
    assert leftovers(tmp_path) == []


def test_a_backup_of_an_older_release_is_restored_and_of_a_newer_one_refused(
    line: CommandLine, database_url: str, other_url: str
):
    there = CommandLine(environment(other_url))
    line.create("ada")
    line.done("db", "downgrade", "0006", "--yes")
    line.done("db", "backup", "older", *PG_BIN)
    result = there.run("db", "restore", "older", *PG_BIN, "--verify")
    assert (result.exit_code, "db upgrade" in result.stderr) == (0, True)
    there.done("db", "upgrade")
    assert there.document("users", "show", "ada")["username"] == "ada"
    asyncio.run(change(database_url, "UPDATE alembic_version SET version_num = '9999'"))
    line.done("db", "backup", "newer", *PG_BIN)
    assert "9999, which only another release knows" in there.refused(
        1, "db", "restore", "newer", *PG_BIN, "--replace", "--yes"
    )
    assert there.document("users", "show", "ada")["username"] == "ada"


def test_a_backup_of_one_kind_is_not_restored_to_the_other(
    line: CommandLine, database_url: str, request: pytest.FixtureRequest, tmp_path: Path
):
    line.done("db", "backup", "kept", *PG_BIN)
    kind = "sqlite" if kind_of(database_url) == "postgresql" else "postgresql"
    with new_database(request, tmp_path, kind) as url:
        assert "db copy" in CommandLine(environment(url)).refused(1, "db", "restore", "kept", *PG_BIN)


# SQLite


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_somebody_has_open_is_not_replaced(line: CommandLine, database_url: str):
    line.done("db", "backup", "kept")
    line.create("ada")
    with open_file(database_url):
        assert "is open: stop the server" in line.refused(1, "db", "restore", "kept", "--replace", "--yes")
    assert len(line.documents("users", "list")) == 1
    line.done("db", "restore", "kept", "--replace", "--yes")
    assert line.documents("users", "list") == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_database_is_replaced_and_keeps_its_rights(line: CommandLine, database_url: str):
    line.create("ada")
    line.done("db", "backup", "kept")
    assert [path.name for path in Path().glob("kept*")] == ["kept"]
    path = Path(database_url.partition("///")[2])
    path.write_bytes(b"damaged" * 1000)
    path.chmod(0o640)
    line.done("db", "restore", "kept", "--replace", "--yes")
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(line.documents("users", "list")) == 1
    assert "itself" in line.refused(1, "db", "restore", str(path), "--replace", "--yes")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_behind_a_link_is_replaced_where_it_lies(line: CommandLine, database_url: str, tmp_path: Path):
    line.create("ada")
    line.done("db", "backup", "kept")
    line.create("bob")
    path = Path(database_url.partition("///")[2])
    real = tmp_path / "elsewhere" / "real.db"
    real.parent.mkdir()
    path.replace(real)
    path.symlink_to(real)
    line.done("db", "restore", "kept", "--replace", "--yes")
    assert path.is_symlink()
    assert [each.name for each in real.parent.iterdir()] == ["real.db"]
    assert b"bob@example.com" not in real.read_bytes()
    assert [user["username"] for user in line.documents("users", "list")] == ["ada"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "CREATE TRIGGER planted AFTER INSERT ON users BEGIN UPDATE users SET status = 'active'; END",
            "trigger planted",
        ),
        ("CREATE VIEW people AS SELECT username FROM users", "view people"),
    ],
)
def test_a_file_with_what_acts_by_itself_is_refused(line: CommandLine, tmp_path: Path, statement: str, told: str):
    line.done("db", "backup", "kept")
    line.create("ada")
    asyncio.run(change(f"sqlite+aiosqlite:///{tmp_path}/kept", "CREATE TABLE notes (text TEXT)"))
    line.done("db", "restore", "kept", "--replace", "--yes")
    line.create("ada")
    asyncio.run(change(f"sqlite+aiosqlite:///{tmp_path}/kept", statement))
    assert told in line.refused(1, "db", "restore", "kept", "--replace", "--yes")
    assert len(line.documents("users", "list")) == 1


# PostgreSQL


PLANTED = r"""
{real}/pg_restore "$@" | sed '/^.restrict/d; /^.unrestrict/d; s/^{at}.*/&\n\\! touch planted\n/'
"""


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("at", ["SET lock_timeout", "CREATE TABLE public.users ", "ALTER TABLE ONLY public.users"])
def test_what_a_file_says_to_psql_is_not_done(line: CommandLine, tmp_path: Path, at: str):
    """An archive can hold such lines, and pg_restore writes them as they are."""
    line.done("db", "backup", "kept", *PG_BIN)
    line.create("ada")
    real = Path(PG_BIN[1])
    program(tmp_path / "bin", "pg_restore", PLANTED.format(real=real, at=at))
    (tmp_path / "bin/psql").symlink_to(real / "psql")
    refusal = line.refused(1, "db", "restore", "kept", "--pg-bin", "bin", "--replace", "--yes")
    assert 'syntax error at or near "\\"' in refusal
    assert not (tmp_path / "planted").exists()
    assert len(line.documents("users", "list")) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_programs_that_are_missing_or_too_old_are_told_with_how_to_get_them(line: CommandLine, tmp_path: Path):
    for script, told in (("", "There is no pg_dump"), ("echo 'pg_dump (PostgreSQL) 12.3'", "is of PostgreSQL 12")):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if script:
            program(folder, "pg_dump", script)
        refusal = line.refused(1, "db", "backup", "kept", "--pg-bin", str(folder))
        assert told in refusal
        assert "apt install postgresql-client-18" in refusal
    assert not (tmp_path / "kept").exists()


HALF = """
case "$*" in *--version*) echo "pg_dump (PostgreSQL) 99.1"; exit;; esac
case "$*" in *secret-of-the-database*) exit 9;; esac
test "$PGPASSWORD" = secret-of-the-database || exit 8
for word; do case "$word" in --file=*) echo half > "${word#--file=}";; esac; done
"""


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("way", ["fails", "is stopped"])
def test_a_backup_that_is_cut_leaves_no_file(line: CommandLine, start: Start, tmp_path: Path, way: str):
    environ = {**line.environ}
    environ["USERMGMT_DATABASE__URL"] = environ["USERMGMT_DATABASE__URL"].replace(
        "postgres@", "postgres:secret-of-the-database@"
    )
    ending = "echo no space left >&2; exit 1" if way == "fails" else "exec sleep 60"
    program(tmp_path / "bin", "pg_dump", HALF + ending)
    process = start("db", "backup", "kept", "--pg-bin", "bin", environ=environ)
    if way == "fails":
        assert process.end() == 1
        assert "no space left" in process.errors()
    else:
        deadline = time.monotonic() + PATIENCE
        while not any(path.read_text() for path in tmp_path.glob(".kept.part-*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # a file tells nobody that it grew
        assert process.end(signal.SIGTERM) == 130
    assert [path.name for path in tmp_path.iterdir() if "kept" in path.name] == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_tables_that_nobody_knows_are_never_dropped(line: CommandLine, database_url: str):
    line.done("db", "backup", "kept", *PG_BIN)
    line.create("ada")
    asyncio.run(change(database_url, "CREATE TABLE invoices (id integer)"))
    assert "knows: invoices" in line.refused(1, "db", "restore", "kept", *PG_BIN, "--replace", "--yes")
    asyncio.run(change(database_url, "DROP TABLE invoices"))
    asyncio.run(change(database_url, "CREATE VIEW people AS SELECT username FROM users"))
    assert "people" in line.refused(1, "db", "restore", "kept", *PG_BIN, "--replace", "--yes")
    assert len(line.documents("users", "list")) == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_address_behind_a_pooler_is_refused(line: CommandLine):
    pooled = CommandLine({**line.environ, "USERMGMT_DATABASE__POOLER": "transaction"})
    for words in (["backup", "kept"], ["copy", "--to", "sqlite:///other.db"]):
        assert "leads to a pooler" in pooled.refused(78, "db", *words)
