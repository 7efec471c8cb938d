"""Settings that were renamed or are about to go: understood for one release, with a warning that every tool gives.

No setting of this release is one, so the tests declare some.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.operator.conftest import CommandLine, Start, environment
from usermgmt.settings import Settings, SettingsError, declared_fields, load_settings
from usermgmt.settings.going import Formerly, Leaving, former_names
from usermgmt.settings.report import describe, render_default_toml

RENAMED = {"server.port": "server.tcp_port", "valkey.url": "cache.address", "database.url": "server.database"}
PORT_WARNING = "server.port: is given under its former name server.tcp_port; write server.port"


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {
        **{key: Formerly(name) for key, name in RENAMED.items()},
        "docs.enabled": Leaving("link to your own page."),
    }
    for key, field in declared_fields():
        if key in marks:
            monkeypatch.setattr(field, "metadata", [*field.metadata, marks[key]])


@pytest.fixture
def bare() -> CommandLine:
    """The command line with nothing set but the root secret."""
    return CommandLine({"USERMGMT_SECRET_KEYS": SECRET})


def given(
    file: str = "", *, flags: Mapping[str, object] | None = None, value_file: str = "", **variables: str
) -> Callable[[], Settings]:
    """What loads the settings of these sources; variables are written `section__key`."""

    def load() -> Settings:
        Path("settings.toml").write_text(file, encoding="utf-8")
        Path("value").write_text(value_file, encoding="utf-8")
        environ = {f"USERMGMT_{name.upper()}": value for name, value in variables.items()}
        return load_settings(environ=environ, flags=flags)

    return load


@pytest.mark.parametrize(
    ("load", "origin"),
    [
        (given("[server]\ntcp_port = 81\n"), "settings.toml [server] tcp_port"),
        (given(server__tcp_port="81"), "environment USERMGMT_SERVER__TCP_PORT"),
        (given(flags={"server.tcp_port": 81}), "flag --tcp-port"),
    ],
)
def test_a_renamed_setting_is_taken_under_its_former_name_with_a_warning(
    load: Callable[[], Settings], origin: str
) -> None:
    settings = load()
    assert settings.server.port == 81
    assert settings.origins["server.port"] == origin
    assert [str(each) for each in settings.farewells] == [f"{PORT_WARNING} ({origin})"]


def test_a_file_may_be_named_by_the_former_variable() -> None:
    settings = given(value_file="82\n", server__tcp_port_file="value")()
    assert settings.server.port == 82
    assert settings.origins["server.port"] == "file value named by USERMGMT_SERVER__TCP_PORT_FILE"
    assert [each.origin for each in settings.farewells] == ["environment USERMGMT_SERVER__TCP_PORT_FILE"]


def test_a_former_name_may_be_of_a_section_that_is_gone() -> None:
    settings = given('[cache]\naddress = "valkey://one:6379"\n')()
    assert settings.valkey.url.get_secret_value() == "valkey://one:6379"
    with pytest.raises(SettingsError, match=r"cache\.adress: unknown setting"):
        given('[cache]\nadress = "valkey://one:6379"\n')()


def test_former_names_keep_the_order_of_the_sources() -> None:
    file = "[server]\ntcp_port = 81\n"
    assert given(file, server__tcp_port="82")().server.port == 82
    assert given(file, server__tcp_port="82", flags={"server.tcp_port": 83})().server.port == 83
    assert (
        given(file, flags={"server.port": 84})().server.port == 84
    )  # an option is no name that somebody has to change


def test_development_mode_gives_way_to_a_former_name() -> None:
    Path("settings.toml").write_text('[server]\ndatabase = "sqlite:///mine.db"\ndata_dir = "d"\n', encoding="utf-8")
    settings = load_settings(environ={}, development=True)
    assert settings.database.url.endswith("mine.db")


@pytest.mark.parametrize(
    ("load", "origins"),
    [
        (
            given("[server]\nport = 81\ntcp_port = 81\n"),
            "settings.toml [server] port, settings.toml [server] tcp_port",
        ),
        (
            given("[server]\ntcp_port = 81\n", server__port="82"),
            "environment USERMGMT_SERVER__PORT, settings.toml [server] tcp_port",
        ),
        (
            given("[server]\nport = 81\n", value_file="82", server__tcp_port_file="value"),
            "environment USERMGMT_SERVER__TCP_PORT_FILE, settings.toml [server] port",
        ),
        (
            given("[server]\nport = 81\n", flags={"server.tcp_port": 82}),
            "flag --tcp-port, settings.toml [server] port",
        ),
    ],
)
def test_both_names_at_once_are_refused(load: Callable[[], Settings], origins: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load()
    message = "server.port: is also given under its former name server.tcp_port; take that away"
    assert str(refused.value) == f"{message} ({origins})"


def test_a_wrong_value_is_told_with_the_place_that_it_is_written_at() -> None:
    with pytest.raises(SettingsError) as refused:
        given("[server]\ntcp_port = 'many'\n")()
    assert str(refused.value) == "server.port: must be a whole number (settings.toml [server] tcp_port)"


def test_a_setting_that_goes_works_and_is_warned_of() -> None:
    settings = given(docs__enabled="true")()
    assert settings.docs.enabled
    assert [str(each) for each in settings.farewells] == [
        "docs.enabled: goes in the next release: link to your own page. (environment USERMGMT_DOCS__ENABLED)"
    ]
    assert given()().farewells == ()


def test_every_page_of_the_settings_tells_what_is_going() -> None:
    told = {row.key: row.description for row in describe(Settings())}
    assert told["server.port"].endswith("Formerly server.tcp_port.")
    assert told["docs.enabled"].endswith("Goes in the next release: link to your own page.")
    assert "Formerly server.tcp_port." in render_default_toml()


# The tools


def test_config_check_warns_and_accepts(bare: CommandLine) -> None:
    bare.environ["USERMGMT_DATABASE__ALLOW_SQLITE"] = "true"
    Path("settings.toml").write_text("[server]\ntcp_port = 81\n", encoding="utf-8")
    for words in (("config", "check"), ("config", "check", "--production")):
        result = bare.run(*words)
        assert (result.exit_code, result.stdout) == (0, "Nothing is wrong with the settings.\n")
        assert result.stderr == f"Warning: {PORT_WARNING} (settings.toml [server] tcp_port)\n"
        (warning,) = bare.document(*words)["warnings"]
        assert warning["where"] == "server.port"
        assert "server.tcp_port" in warning["message"]


def test_config_check_refuses_both_names(bare: CommandLine) -> None:
    bare.environ |= {"USERMGMT_SERVER__PORT": "81", "USERMGMT_SERVER__TCP_PORT": "81"}
    assert "server.port: is also given under its former name server.tcp_port" in bare.refused(78, "config", "check")


def test_config_show_tells_the_value_and_the_former_name_it_came_under(bare: CommandLine) -> None:
    bare.environ["USERMGMT_SERVER__TCP_PORT"] = "81"
    rows = {row["key"]: row for row in bare.documents("config", "show", "--origin")}
    assert rows["server.port"] == {
        "key": "server.port",
        "value": "81",
        "origin": "environment USERMGMT_SERVER__TCP_PORT",
    }
    assert PORT_WARNING in bare.run("config", "show").stderr


def test_doctor_warns(bare: CommandLine) -> None:
    def found() -> dict[str, str]:
        rows = json.loads(bare.run("doctor", "--json").stdout)["checks"]
        return next(row for row in rows if row["check"] == "settings.going")

    assert found()["severity"] == "ok"
    bare.environ["USERMGMT_SERVER__TCP_PORT"] = "81"
    assert found()["severity"] == "warning"
    assert found()["found"].startswith(PORT_WARNING)


def test_the_server_warns_in_its_log(start: Start, tmp_path: Path) -> None:
    declare = (
        "from usermgmt.settings import SECTIONS; from usermgmt.settings.going import Formerly; "
        "SECTIONS['server'].model_fields['port'].metadata.append(Formerly('server.tcp_port')); "
        "from usermgmt.operator.cli import main; main()"
    )
    environ = environment(f"sqlite+aiosqlite:///{tmp_path}/one.db", server__tcp_port="0")
    process = start("serve", "--migrate", program=(sys.executable, "-c", declare), environ=environ)
    warning = json.loads(process.wait_for("setting_is_going"))
    assert (warning["level"], warning["setting"]) == ("warning", "server.port")
    assert "server.tcp_port" in warning["reason"]
    process.wait_for('"serving"')


# What this release declares


def test_a_former_name_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    keys = {key for key, _ in declared_fields()}
    names = [mark.name for _, field in declared_fields() for mark in field.metadata if isinstance(mark, Formerly)]
    assert keys.isdisjoint(names)
    assert len(names) == len(set(names)) == len(former_names(declared_fields()))
