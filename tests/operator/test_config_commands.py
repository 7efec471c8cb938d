"""`usermgmt config` and `usermgmt secrets`."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.operator.conftest import CommandLine
from usermgmt.settings import Settings
from usermgmt.settings.report import render_default_toml


@pytest.fixture
def bare() -> CommandLine:
    """The command line without any setting."""
    return CommandLine({})


def test_init_writes_a_file_that_sets_nothing(bare: CommandLine) -> None:
    bare.done("config", "init")
    text = Path("settings.toml").read_text()
    assert text == render_default_toml()
    assert not any(tomllib.loads(text).values())
    bare.done("config", "init", "elsewhere.toml")
    assert Path("elsewhere.toml").read_text() == text


def test_init_replaces_nothing_unless_told_to(bare: CommandLine) -> None:
    Path("settings.toml").write_text("# mine\n")
    assert "--yes" in bare.refused(2, "config", "init")
    assert Path("settings.toml").read_text() == "# mine\n"
    bare.done("config", "init", "--yes")
    assert Path("settings.toml").read_text() == render_default_toml()


def test_init_tells_why_it_cannot_write(bare: CommandLine) -> None:
    assert "No such file or directory" in bare.refused(1, "config", "init", "nowhere/settings.toml")


def test_check_lists_all_problems(bare: CommandLine) -> None:
    bare.done("config", "check")
    Path("settings.toml").write_text("[server]\nprot = 1\n[logs]\nlevel = 'loud'\n")
    explanation = bare.refused(78, "config", "check")
    assert "server.port" in explanation
    assert "logs.level" in explanation


def test_check_knows_the_rules_of_production(bare: CommandLine) -> None:
    explanation = bare.refused(78, "config", "check", "--production")
    assert [key in explanation for key in ("secret.keys", "database.url")] == [True, True]
    document = json.loads(bare.refused(78, "config", "check", "--production", "--json"))
    assert [reason["where"] for reason in document["error"]["reasons"]] == ["secret.keys", "database.url"]
    fit = CommandLine({"USERMGMT_SECRET_KEYS": SECRET, "USERMGMT_DATABASE__URL": "postgresql://db/app"})
    fit.done("config", "check", "--production")


def test_check_tells_errors_and_rules_of_production_together(bare: CommandLine) -> None:
    Path("settings.toml").write_text("[server]\nport = 'many'\nworkers = 3\n")
    explanation = bare.refused(78, "config", "check", "--production")
    for key in ("server.port", "server.workers", "secret.keys", "database.url"):
        assert explanation.count(f"  {key}: ") == 1


def test_show_hides_secrets() -> None:
    line = CommandLine(
        {"USERMGMT_SECRET_KEYS": SECRET, "USERMGMT_DATABASE__URL": "postgresql://app:hidden-word@db/app"}
    )
    for words in (["config", "show"], ["config", "show", "--origin"], ["config", "show", "--json"]):
        shown = line.done(*words)
        assert SECRET not in shown
        assert "hidden-word" not in shown
        assert "(hidden)" in shown


def test_show_tells_every_setting_and_where_it_comes_from(bare: CommandLine) -> None:
    Path("settings.toml").write_text("[server]\nport = 1234\n")
    rows = {row["key"]: row for row in bare.documents("config", "show", "--origin")}
    assert set(rows) == set(Settings().origins)
    assert rows["server.port"] == {"key": "server.port", "value": "1234", "origin": "settings.toml [server] port"}
    assert "origin" not in bare.documents("config", "show")[0]


def test_generated_secrets_are_fit_for_production(bare: CommandLine) -> None:
    first, second = bare.done("secrets", "generate").strip(), bare.document("secrets", "generate")["key"]
    assert first != second
    for key in (first, second):
        fit = CommandLine({"USERMGMT_SECRET_KEYS": key, "USERMGMT_DATABASE__URL": "postgresql://db/app"})
        fit.done("config", "check", "--production")
