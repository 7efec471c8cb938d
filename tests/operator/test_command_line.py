"""The command line as a whole: help, options that stand anywhere, refusals without a traceback."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from tests.conftest import SECRET
from tests.operator.conftest import PASSWORD, PROGRAM, CommandLine, environment
from usermgmt import __version__
from usermgmt.operator.cli import cli
from usermgmt.operator.grammar import Lazy, OperatorGroup

GROUPS = ("config", "secrets", "db", "admin", "users", "roles", "keys")
HEAVY = ("quart", "sqlalchemy", "pydantic", "alembic", "cryptography", "structlog")


@pytest.fixture
def bare() -> CommandLine:
    """The command line without any setting."""
    return CommandLine({})


def lazy_commands() -> Iterator[tuple[str, Lazy]]:
    yield from cli.lazy.items()
    for name in GROUPS:
        group = cli.commands[name]
        assert isinstance(group, OperatorGroup)
        yield from ((f"{name} {command}", lazy) for command, lazy in group.lazy.items())


@pytest.mark.parametrize(("name", "lazy"), list(lazy_commands()))
def test_every_listed_command_exists_and_explains_itself(bare: CommandLine, name: str, lazy: Lazy) -> None:
    module, _, attribute = lazy.path.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    help_text = bare.done(*name.split(), "--help")
    assert help_text.startswith(f"Usage: usermgmt {name}")
    for option in ("--config", "--json", "--yes"):
        assert option in help_text


@pytest.mark.parametrize("code", ["0", "1", "2", "69", "78", "130"])
def test_the_help_documents_every_exit_code(bare: CommandLine, code: str) -> None:
    epilog = bare.done("--help").partition("Exit codes:")[2]
    assert any(line.split()[:1] == [code] for line in epilog.splitlines())


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_a_command_explains_itself(bare: CommandLine, group: str) -> None:
    result = bare.run(group)
    assert result.exit_code == 2
    assert "Commands:" in result.stdout + result.stderr


@pytest.mark.parametrize("words", [["version"], ["--help"], ["users", "--help"], ["completion", "zsh"]])
def test_what_answers_at_once_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from usermgmt.operator.cli import main\n"
        f"try: sys.argv[1:] = {words!r}; main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"assert not [name for name in {HEAVY!r} if name in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


IMPORT_EACH = """
import importlib, os, sys
import quart, quart_schema, sqlalchemy.ext.asyncio, asyncpg, pydantic  # nothing of ours; once for all children
for module in sys.argv[1:]:
    if (child := os.fork()) == 0:
        importlib.import_module(module)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{module} cannot be imported before the others")
"""


def test_each_module_can_be_imported_first() -> None:
    modules = sorted({lazy.path.partition(":")[0] for _, lazy in lazy_commands()})
    assert modules
    subprocess.run([sys.executable, "-c", IMPORT_EACH, *modules], check=True)


def test_the_version(bare: CommandLine) -> None:
    assert bare.done("version") == f"usermgmt {__version__}\n"
    assert bare.document("version") == {"version": __version__}


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "roles", "list"],
        ["roles", "--json", "list"],
        ["roles", "list", "--json"],
        ["roles", "list", "--json", "--json"],
    ],
)
def test_global_options_stand_anywhere(line: CommandLine, words: list[str]) -> None:
    names = [json.loads(row)["name"] for row in line.done(*words).splitlines()]
    assert names == ["admin", "manager", "user"]


@pytest.mark.parametrize(
    "words", [["--config", "other.toml", "config", "show"], ["config", "show", "--config", "other.toml"]]
)
def test_the_settings_file_is_chosen_anywhere(bare: CommandLine, words: list[str]) -> None:
    Path("other.toml").write_text("[server]\nport = 1234\n")
    assert "1234" in bare.done(*words)


@pytest.mark.parametrize(
    "words", [["nope"], ["users", "nope"], ["users", "show"], ["users", "list", "--nope"], ["seed", "--users", "0"]]
)
def test_a_wrong_command_line_is_2(bare: CommandLine, words: list[str]) -> None:
    explanation = bare.refused(2, *words)
    assert "Error: " in explanation
    document = json.loads(bare.refused(2, *words, "--json"))
    assert document["error"]["code"] == "usage"


def test_every_problem_of_the_settings_is_told_at_once(bare: CommandLine) -> None:
    wrong = {"USERMGMT_SERVER__PORT": "many", "USERMGMT_NOPE": "1"}
    result = bare.run("users", "list", environ=wrong)
    assert result.exit_code == 78
    assert [name in result.stderr for name in ("server.port", "USERMGMT_NOPE")] == [True, True]
    result = bare.run("users", "list", "--json", environ=wrong)
    assert len(json.loads(result.stderr)["error"]["reasons"]) == 2


def test_without_a_secret_the_remedy_is_told(bare: CommandLine) -> None:
    assert "USERMGMT_SECRET_KEYS" in bare.refused(78, "users", "list")


def test_without_a_schema_the_remedy_is_told_and_nothing_is_made(empty_line: CommandLine, tmp_path: Path) -> None:
    assert "usermgmt db upgrade" in empty_line.refused(78, "users", "list")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["users", "list"], ["keys", "list"], ["db", "current"], ["db", "check"], ["db", "upgrade"]]
)
@pytest.mark.parametrize("is_json", [False, True])
def test_a_database_that_is_away_is_69(words: list[str], is_json: bool) -> None:
    away = CommandLine(environment("postgresql://app:hidden-word@127.0.0.1:1/app"))
    explanation = away.refused(69, *words, *["--json"] * is_json)
    assert "hidden-word" not in explanation
    assert "database" in explanation
    if is_json:
        assert json.loads(explanation)["error"]["code"] == "database_unavailable"


@pytest.mark.parametrize("path", ["folder", "garbage.db"])
def test_a_sqlite_file_that_cannot_be_one_is_69(path: str) -> None:
    Path("folder").mkdir()
    Path("garbage.db").write_bytes(b"this is no database at all, however long it may be" * 100)
    CommandLine(environment(f"sqlite:///{path}")).refused(69, "users", "list")


def test_what_development_mode_left_is_found_without_options(bare: CommandLine, sqlite_template: Path) -> None:
    Path("data").mkdir()
    Path("data/secret.key").write_text(SECRET)
    Path("data/usermgmt.db").write_bytes(sqlite_template.read_bytes())
    assert bare.documents("users", "list") == []
    other = {"USERMGMT_SERVER__DATA_DIR": "other"}
    refused = bare.run("users", "list", environ=other)
    assert (refused.exit_code, "no other/secret.key here" in refused.stderr) == (78, True)
    Path("data").rename("other")
    assert bare.run("users", "list", environ=other).exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(bare: CommandLine, shell: str) -> None:
    assert "_USERMGMT_COMPLETE" in bare.done("completion", shell)


def test_completion_completes() -> None:
    asked = {**os.environ, "_USERMGMT_COMPLETE": "bash_complete", "COMP_WORDS": "usermgmt users dis", "COMP_CWORD": "2"}
    answered = subprocess.run([PROGRAM], env=asked, capture_output=True, text=True, check=False)
    assert answered.stdout.split() == ["plain,disable"]


def test_a_password_is_asked_for_twice_and_never_shown(line: CommandLine) -> None:
    words = [PROGRAM, "users", "create", "ada", "ada@example.com"]
    code, seen = typed(words, line.environ, [PASSWORD, PASSWORD])
    assert code == 0, seen
    assert PASSWORD not in seen
    assert line.document("users", "show", "ada")["username"] == "ada"


def test_without_a_terminal_a_password_is_not_asked_for(line: CommandLine) -> None:
    assert "--password-stdin" in line.refused(2, "users", "create", "ada", "ada@example.com", given=PASSWORD)


@pytest.mark.parametrize("given", [b"", b"\n", b"one\ntwo\n", b"\xff\xfe12345678", b"nul\x00in the middle"])
def test_a_password_is_one_line_of_text(line: CommandLine, given: bytes) -> None:
    line.refused(2, "users", "create", "ada", "ada@example.com", "--password-stdin", given=given)


@pytest.mark.parametrize("answer", ["n", "y"])
def test_a_question_is_asked_at_a_terminal(line: CommandLine, answer: str) -> None:
    code, seen = typed([PROGRAM, "db", "downgrade", "base"], line.environ, [answer])
    assert "[y/N]" in seen
    assert code == (0 if answer == "y" else 1)
    assert line.document("db", "current")["is_current"] == (answer == "n")


def typed(words: list[str], environ: dict[str, str], answers: list[str]) -> tuple[int, str]:
    """Run a program at a terminal and type the answers, each when the next question stands there."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(words[0], words, {**os.environ, **environ})
    seen = ""
    try:
        while True:
            seen += os.read(terminal, 1024).decode()
            if answers and seen.rstrip(" ").endswith(":"):
                os.write(terminal, answers.pop(0).encode() + b"\n")
                seen += "\n"
    except OSError:  # what Linux says when the program has closed its terminal
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), seen
