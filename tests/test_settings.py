"""Settings: where each value comes from, what is refused, and that no secret is ever shown."""

import json
import pickle
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from usermgmt.settings import Settings, load_settings
from usermgmt.settings.problems import common_problems, production_problems
from usermgmt.settings.report import describe, render_default_toml
from usermgmt.settings.sources import SettingsError, SettingsProblem
from usermgmt.settings.values import Budget, Duration, masked_url

COMMITTED = Path(__file__).parent.parent / "settings.toml"
GOOD_KEY = "mD3zq8Vw1Xk5Jr0tYb7uNc2LfHs9Pa4E"
OTHER_KEY = "Zx6cWv1Qe9Rt3Uy8Io2Pk5Lh7Gf4Ds0A"
POSTGRES = "postgresql+asyncpg://app:pw@db/app"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "settings.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
    """Settings from these variables and from flags written `section__key`."""
    return load_settings(environ=environ or {}, flags={key.replace("__", "."): flags[key] for key in flags})


def shown(settings: Settings) -> dict[str, str]:
    return {row.key: row.value_shown for row in describe(settings)}


def value_of(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def problems_of(
    environ: Mapping[str, str] | None = None, *, flags: Mapping[str, object] | None = None
) -> list[SettingsProblem]:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ=environ or {}, flags=flags)
    return refused.value.problems


# Defaults


def test_without_any_source_every_key_has_its_default() -> None:
    settings = load_settings(environ={})
    assert settings.model_dump() == Settings().model_dump()
    assert set(settings.origins.values()) == {"default"}
    assert list(settings.origins) == [row.key for row in describe(settings)]


def test_defaults_are_the_documented_ones() -> None:
    assert shown(Settings()) == {
        "server.host": "127.0.0.1",
        "server.port": "8000",
        "server.server": "hypercorn",
        "server.tls_certificate": "",
        "server.tls_key": "",
        "server.workers": "1",
        "server.worker_timeout": "30s",
        "server.graceful_timeout": "30s",
        "server.drain_delay": "0s",
        "server.request_timeout": "15s",
        "server.head_timeout": "5s",
        "server.min_bytes_per_second": "8192",
        "server.max_connections": "10000",
        "server.max_body_bytes": "65536",
        "server.management_bind": "",
        "server.max_upload_bytes": "67108864",
        "server.fast_path": "true",
        "server.public_url": "",
        "server.data_dir": "data",
        "database.url": "sqlite+aiosqlite:///data/usermgmt.db",
        "database.read_url": "",
        "database.pooler": "none",
        "database.distributed": "false",
        "database.pool_size": "10",
        "database.pool_timeout": "2s",
        "database.statement_timeout": "5s",
        "database.count_timeout": "1s",
        "database.connect_timeout": "2s",
        "database.start_timeout": "30s",
        "database.allow_sqlite": "false",
        "database.migrate": "false",
        "secret.keys": "(not set)",
        "secret.rollout": "10m",
        "bootstrap.admin_username": "",
        "bootstrap.admin_email": "",
        "bootstrap.admin_password": "(not set)",
        "passwords.bcrypt_cost": "12",
        "passwords.min_length": "8",
        "passwords.max_length": "1024",
        "passwords.blocklist": "",
        "passwords.hash_workers": "0",
        "passwords.hash_queue": "2s500ms",
        "passwords.hash_nice": "12",
        "tokens.issuer": "usermgmt",
        "tokens.audience": "usermgmt",
        "tokens.algorithm": "ES256",
        "tokens.access_lifetime": "10m",
        "tokens.session_idle_lifetime": "14d",
        "tokens.session_lifetime": "30d",
        "tokens.key_lifetime": "90d",
        "tokens.refresh_grace": "10s",
        "tokens.fresh_lifetime": "15m",
        "tokens.max_sessions": "100",
        "tokens.transport": "body",
        "registration.mode": "open",
        "registration.default_role": "user",
        "limits.enabled": "true",
        "limits.login": "300/m",
        "limits.register": "300/m",
        "limits.refresh": "600/m",
        "limits.read": "6000/m",
        "limits.write": "1200/m",
        "limits.admin": "1200/m",
        "limits.unknown": "300/m",
        "valkey.url": "(not set)",
        "valkey.timeout": "50ms",
        "network.trusted_proxies": "",
        "network.forwarded_header": "X-Forwarded-For",
        "throttle.enabled": "true",
        "throttle.account": "10/15m",
        "throttle.network": "100/15m",
        "throttle.session": "10/15m",
        "throttle.refresh": "100/15m",
        "audit.retention": "3650d",
        "audit.seal_interval": "5s",
        "retention.deleted_users": "30d",
        "retention.sessions": "90d",
        "cors.origins": "",
        "cors.credentials": "false",
        "logs.format": "json",
        "logs.level": "info",
        "metrics.enabled": "false",
        "metrics.token": "(not set)",
        "tracing.otlp_endpoint": "",
        "tracing.sample_ratio": "0.1",
        "errors.sentry_dsn": "(not set)",
        "errors.environment": "production",
        "errors.sample_rate": "1.0",
        "docs.enabled": "false",
        "plugins.blueprints": "",
    }


def test_no_key_ends_like_the_variable_that_names_a_file() -> None:
    assert [key for key in Settings().origins if key.endswith("_file")] == []


def test_every_key_has_a_description_of_one_line() -> None:
    for row in describe(Settings()):
        assert re.fullmatch(r"[A-Z].*\.", row.description), row.key


@pytest.mark.parametrize(("section", "name"), [(Settings(), "server"), (Settings().server, "port")])
def test_settings_cannot_be_changed(section: BaseModel, name: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, name, getattr(section, name))


def test_settings_can_be_handed_to_another_process() -> None:
    settings = loaded({"USERMGMT_LIMITS__READ": "5/s", "USERMGMT_SECRET_KEYS": GOOD_KEY})
    copied = pickle.loads(pickle.dumps(settings))
    assert copied == settings
    assert copied.origins == settings.origins


# Precedence

LAYERS = ("flag", "environment", "file", "toml", "development")
ORIGINS = {
    "flag": "flag --format",
    "environment": "environment USERMGMT_LOGS__FORMAT",
    "file": "file format.txt named by USERMGMT_LOGS__FORMAT_FILE",
    "toml": "settings.toml [logs] format",
    "development": "development mode",
}


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_strongest_source_wins_and_is_the_origin(strongest: int) -> None:
    given = LAYERS[strongest:]
    winner = given[0]

    def text(layer: str) -> str:
        return "pretty" if layer == winner else "json"

    if "toml" in given:
        written(f'[logs]\nformat = "{text("toml")}"\n')
    environ = {}
    if "file" in given:
        environ["USERMGMT_LOGS__FORMAT_FILE"] = str(written(text("file") + "\n", "format.txt"))
    if "environment" in given:
        environ["USERMGMT_LOGS__FORMAT"] = text("environment")
    flags = {"logs.format": text("flag") if "flag" in given else None}
    settings = load_settings(flags=flags, environ=environ, development=True)
    assert settings.logs.format == "pretty"
    assert settings.origins["logs.format"] == ORIGINS[winner]


def test_each_key_comes_from_its_own_source() -> None:
    written("[server]\nport = 1\nworkers = 3\n")
    environ = {"USERMGMT_SERVER__PORT": "2", "USERMGMT_SERVER__HOST": "::"}
    settings = load_settings(flags={"server.port": 3, "database.allow_sqlite": True}, environ=environ)
    assert (settings.server.port, settings.server.workers, settings.server.host) == (3, 3, "::")
    assert settings.origins["server.port"] == "flag --port"
    assert settings.origins["server.workers"] == "settings.toml [server] workers"
    assert settings.origins["server.host"] == "environment USERMGMT_SERVER__HOST"
    assert settings.origins["database.allow_sqlite"] == "flag --allow-sqlite"
    assert settings.origins["database.url"] == "default"


def test_a_weaker_value_that_loses_is_not_checked() -> None:
    written('[server]\nport = "many"\n')
    assert loaded({"USERMGMT_SERVER__PORT": "2"}).server.port == 2


def test_a_file_whose_value_would_lose_is_not_opened() -> None:
    environ = {"USERMGMT_SERVER__PORT": "2", "USERMGMT_SERVER__PORT_FILE": "/nowhere/port"}
    assert loaded(environ).server.port == 2


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERMGMT_SERVER__PORT", "4321")
    assert load_settings().server.port == 4321


# The TOML file


def test_the_file_is_the_named_one_else_that_of_the_environment_else_the_usual_one() -> None:
    named = written("[server]\nport = 1\n", "named.toml")
    from_environment = {"USERMGMT_CONFIG": str(written("[server]\nport = 2\n", "environment.toml"))}
    written("[server]\nport = 3\n")
    assert load_settings(config=named, environ=from_environment).server.port == 1
    assert load_settings(environ=from_environment).server.port == 2
    assert load_settings(environ={"USERMGMT_CONFIG": ""}).server.port == 3
    assert load_settings(environ={}).server.port == 3


def test_the_origin_has_the_path_of_the_file() -> None:
    path = written("[server]\nport = 1\n", "named.toml").absolute()
    assert load_settings(config=path, environ={}).origins["server.port"] == f"{path} [server] port"


def test_a_byte_order_mark_is_not_a_problem() -> None:
    written("\ufeff[server]\nport = 1\n")
    assert load_settings(environ={}).server.port == 1


def test_toml_values_have_their_own_types() -> None:
    written(
        """
        [server]
        port = 81
        request_timeout = 2.5
        graceful_timeout = "1m"
        [cors]
        origins = ["https://a.example"]
        credentials = true
        [limits]
        login = "5/10s"
        """
    )
    settings = load_settings(environ={})
    assert settings.server.port == 81
    assert settings.server.request_timeout == timedelta(seconds=2.5)
    assert settings.server.graceful_timeout == timedelta(minutes=1)
    assert settings.cors.origins == ("https://a.example",)
    assert settings.cors.credentials is True
    assert settings.limits.login == Budget(5, Duration(seconds=10))


def test_a_named_file_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(config=Path("gone.toml"), environ={})
    assert str(refused.value) == "gone.toml cannot be read: No such file or directory (flag --config)"
    (problem,) = problems_of({"USERMGMT_CONFIG": "gone.toml"})
    assert problem.origin == "environment USERMGMT_CONFIG"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[server]\nport = \n", "settings.toml"),
        (b"port = 'hunter2\n", "settings.toml"),
        (b"[server]\nhost = '\xff'\n", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(content: bytes, message: str) -> None:
    Path("settings.toml").write_bytes(content)
    (problem,) = problems_of()
    assert message in str(problem)
    assert "hunter2" not in str(problem)


def test_a_directory_in_place_of_the_file_is_refused() -> None:
    Path("settings.toml").mkdir()
    (problem,) = problems_of()
    assert problem.message == "settings.toml cannot be read: Is a directory"


# Files named by the environment


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_named_file_holds_the_value_without_its_line_break(ending: str) -> None:
    Path("password").write_bytes(b" pass word " + ending.encode())
    settings = loaded(
        {
            "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "ada",
            "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "ada@example.org",
            "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD_FILE": "password",
        }
    )
    assert settings.bootstrap.admin_password.get_secret_value() == " pass word "
    named_by = "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD_FILE"
    assert settings.origins["bootstrap.admin_password"] == f"file password named by {named_by}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("gone", "No such file or directory"), (".", "Is a directory"), ("binary", "it is not UTF-8")],
)
def test_a_named_file_that_cannot_be_read_is_refused(path: str, reason: str) -> None:
    Path("binary").write_bytes(b"\xff\xfe")
    (problem,) = problems_of({"USERMGMT_SERVER__HOST_FILE": path})
    origin = "environment USERMGMT_SERVER__HOST_FILE"
    assert problem == SettingsProblem("server.host", origin, f"its file cannot be read: {reason}")


def test_a_secret_mistaken_for_a_path_is_not_shown() -> None:
    (problem,) = problems_of({"USERMGMT_SECRET__KEYS_FILE": GOOD_KEY})
    assert GOOD_KEY not in repr(problem)


@pytest.mark.parametrize("name", ["USERMGMT_SECRET__KEYS", "USERMGMT_SECRET_KEYS"])
@pytest.mark.parametrize("is_file", [False, True])
def test_secret_keys_have_a_second_spelling(*, name: str, is_file: bool) -> None:
    if is_file:
        written(f"{GOOD_KEY}\n{OTHER_KEY}\n", "keys")
    settings = loaded({f"{name}_FILE": "keys"} if is_file else {name: f"{GOOD_KEY},{OTHER_KEY}"})
    assert settings.secret.keys == (SecretStr(GOOD_KEY), SecretStr(OTHER_KEY))
    assert settings.origins["secret.keys"].endswith(f"{name}_FILE" if is_file else name)


def test_both_spellings_at_once_are_refused() -> None:
    (problem,) = problems_of({"USERMGMT_SECRET__KEYS": GOOD_KEY, "USERMGMT_SECRET_KEYS": OTHER_KEY})
    assert problem.message == "set USERMGMT_SECRET_KEYS or USERMGMT_SECRET__KEYS, not both"


# Names that mean nothing


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("USERMGMT_SERVER__PROT", "USERMGMT_SERVER__PORT"),
        ("USERMGMT_SERVR__PORT", "USERMGMT_SERVER__PORT"),
        ("USERMGMT_SERVER_PORT", "USERMGMT_SERVER__PORT"),
        ("USERMGMT_PORT", "USERMGMT_SERVER__PORT"),
        ("USERMGMT_SERVER__POOL_SIZE", "USERMGMT_DATABASE__POOL_SIZE"),
        ("USERMGMT_DATABASE__ULR_FILE", "USERMGMT_DATABASE__URL_FILE"),
        ("USERMGMT_CONFG", "USERMGMT_CONFIG"),
        ("USERMGMT_SECRET_KEY", "USERMGMT_SECRET_KEYS"),
        ("USERMGMT_SERVER__QUUX", None),
        ("USERMGMT_", None),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(name: str, meant: str | None) -> None:
    (problem,) = problems_of({name: "hunter2", "PATH": "/bin", "OTHER_USERMGMT_X": "1"})
    suggestion = f"; did you mean {meant}?" if meant else ""
    assert problem.message == f"unknown setting{suggestion}"
    assert problem.origin == f"environment {name}"
    assert "hunter2" not in repr(problem)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[server]\nprot = 1",
            "server.prot: unknown setting; did you mean server.port? (settings.toml [server] prot)",
        ),
        (
            "[servr]\nport = 1\nhost = 'a'",
            "servr: unknown setting; did you mean [server]? (settings.toml [servr])",
        ),
        (
            "[server]\npool_size = 1",
            "server.pool_size: unknown setting; did you mean database.pool_size? (settings.toml [server] pool_size)",
        ),
        ("port = 1", "port: unknown setting; did you mean server.port? (settings.toml)"),
        ("[quux]", "quux: unknown setting (settings.toml [quux])"),
        ("server = 1", "server: must be a section, [server] (settings.toml)"),
        ("[[server]]\nport = 1", "server: must be a section, [server] (settings.toml)"),
        ('"a\\nb" = 1', "a\\nb: unknown setting (settings.toml)"),
    ],
)
def test_an_unknown_name_in_the_file_is_refused_with_a_suggestion(text: str, line: str) -> None:
    written(text)
    (problem,) = problems_of()
    assert str(problem) == line


def test_an_unknown_flag_is_refused_with_a_suggestion() -> None:
    (problem,) = problems_of(flags={"server.prot": 1})
    assert str(problem) == "server.prot: unknown setting; did you mean server.port? (flag --prot)"


# Values


@pytest.mark.parametrize(
    ("text", "expected", "canonical"),
    [
        ("500ms", timedelta(milliseconds=500), "500ms"),
        ("10s", timedelta(seconds=10), "10s"),
        ("10m", timedelta(minutes=10), "10m"),
        ("2h", timedelta(hours=2), "2h"),
        ("30d", timedelta(days=30), "30d"),
        ("1h30m", timedelta(minutes=90), "1h30m"),
        ("90s", timedelta(seconds=90), "1m30s"),
        ("1d2h3m4s5ms6us", timedelta(1, 4, 6, 5, 3, 2), "1d2h3m4s5ms6us"),
        ("15", timedelta(seconds=15), "15s"),
        ("0.25", timedelta(milliseconds=250), "250ms"),
        (" 10s ", timedelta(seconds=10), "10s"),
        ("0", timedelta(0), "0s"),
        ("99999999d", timedelta(days=99999999), "99999999d"),
    ],
)
def test_a_duration_is_read_and_written_back(text: str, expected: timedelta, canonical: str) -> None:
    duration = Duration.parse(text)
    assert duration == expected
    assert isinstance(duration, timedelta)
    assert str(duration) == canonical
    assert Duration.parse(str(duration)) == duration
    assert repr(duration) == f"Duration('{canonical}')"


NO_DURATIONS = [
    "",
    " ",
    "m",
    "10x",
    "10 m",
    "-5s",
    "1m1h",
    "1.5h",
    "1e3",
    "nan",
    "inf",
    "999999999d",
    "\u0661s",
    "10M",
]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("text", "count", "period", "canonical"),
    [
        ("20/m", 20, timedelta(minutes=1), "20/m"),
        ("20/10s", 20, timedelta(seconds=10), "20/10s"),
        ("5/s", 5, timedelta(seconds=1), "5/s"),
        ("1000/h", 1000, timedelta(hours=1), "1000/h"),
        ("1/d", 1, timedelta(days=1), "1/d"),
        ("3/500ms", 3, timedelta(milliseconds=500), "3/500ms"),
        ("20/60s", 20, timedelta(minutes=1), "20/m"),
        ("20/11m", 20, timedelta(minutes=11), "20/11m"),
        ("20/1h30m", 20, timedelta(minutes=90), "20/1h30m"),
    ],
)
def test_a_budget_is_read_and_written_back(text: str, count: int, period: timedelta, canonical: str) -> None:
    budget = Budget.parse(text)
    assert (budget.count, budget.period) == (count, period)
    assert str(budget) == canonical
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "20", "20/", "/m", "20/10", "0/m", "5/0s", "-1/m", "1.5/m", "20/x", "20/m/m", "20 / m"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must "):
        Budget.parse(text)


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", " On "])
def test_these_words_are_true(word: str) -> None:
    assert loaded({"USERMGMT_DOCS__ENABLED": word}).docs.enabled is True


@pytest.mark.parametrize("word", ["false", "0", "no", "off", "False"])
def test_these_words_are_false(word: str) -> None:
    assert loaded({"USERMGMT_LIMITS__ENABLED": word}).limits.enabled is False


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://a.example", ("https://a.example",)),
        ("https://a.example, http://localhost:3000,", ("https://a.example", "http://localhost:3000")),
        ("https://a.example\nhttps://b.example", ("https://a.example", "https://b.example")),
        ('["https://a.example", "http://[::1]:3000"]', ("https://a.example", "http://[::1]:3000")),
        (" [] ", ()),
        ("", ()),
        ("*", ("*",)),
    ],
)
def test_a_list_in_one_variable_is_separated_by_commas_or_json(text: str, origins: tuple[str, ...]) -> None:
    assert loaded({"USERMGMT_CORS__ORIGINS": text}).cors.origins == origins


@pytest.mark.parametrize(
    ("given", "url", "is_sqlite"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d", False),
        ("postgresql://u:p@h:5433/d?ssl=require", "postgresql+asyncpg://u:p@h:5433/d?ssl=require", False),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d", False),
        ("postgresql:///d?host=/run/postgresql", "postgresql+asyncpg:///d?host=/run/postgresql", False),
        ("postgresql:///d", "postgresql+asyncpg:///d", False),
        ("postgres://u:p%40%2F@[::1]/d", "postgresql+asyncpg://u:p%40%2F@[::1]/d", False),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db", True),
        ("sqlite:////var/a.db", "sqlite+aiosqlite:////var/a.db", True),
        ("sqlite+aiosqlite:///a.db", "sqlite+aiosqlite:///a.db", True),
    ],
)
def test_a_database_url_gets_its_asynchronous_driver(given: str, url: str, *, is_sqlite: bool) -> None:
    settings = loaded(database__url=given)
    assert settings.database.url == url
    assert settings.database.is_sqlite is is_sqlite


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("server.port", "0", 0),
        ("server.port", 65535, 65535),
        ("server.port", " 80 ", 80),
        ("server.public_url", "", ""),
        ("server.public_url", "https://users.example/", "https://users.example"),
        ("server.public_url", "http://[::1]:8000/a/b//", "http://[::1]:8000/a/b"),
        ("server.data_dir", "/var/lib/usermgmt", Path("/var/lib/usermgmt")),
        ("server.graceful_timeout", 0, timedelta(0)),
        ("server.request_timeout", timedelta(seconds=3), timedelta(seconds=3)),
        ("passwords.bcrypt_cost", "4", 4),
        ("passwords.bcrypt_cost", "16", 16),
        ("passwords.min_length", "64", 64),
        ("passwords.max_length", "64", 64),
        ("passwords.hash_nice", "0", 0),
        ("tokens.access_lifetime", "15m", timedelta(minutes=15)),
        ("tokens.refresh_grace", "0s", timedelta(0)),
        ("tokens.refresh_grace", "60s", timedelta(seconds=60)),
        ("tokens.algorithm", "EdDSA", "EdDSA"),
        ("limits.read", Budget.parse("1/s"), Budget(1, Duration(seconds=1))),
        ("logs.level", "WARNING", "warning"),
        ("tracing.otlp_endpoint", "http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
        ("tracing.sample_ratio", "0.25", 0.25),
        ("errors.sample_rate", 1, 1.0),
        ("secret.keys", [GOOD_KEY], (SecretStr(GOOD_KEY),)),
    ],
)
def test_a_value_in_range_is_accepted(key: str, given: object, expected: object) -> None:
    assert value_of(load_settings(flags={key: given}, environ={}), key) == expected


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("server.host", "", "must not be empty"),
        ("server.host", 5, "must be a valid string"),
        ("server.port", "many", "must be a whole number"),
        ("server.port", True, "must be a whole number"),
        ("server.port", 80.5, "must be a whole number"),
        ("server.port", "", "must be a whole number"),
        ("server.port", {"a": 1}, "must be a whole number"),
        ("server.port", "-1", "must be from 0 to 65535"),
        ("server.port", 65536, "must be from 0 to 65535"),
        ("server.workers", 0, "must be from 1 to 1024"),
        ("server.request_timeout", "0s", "must be from 1ms to 1h"),
        ("server.request_timeout", True, "must be a duration such as 500ms, 10s, 1h30m or 30d"),
        ("server.max_body_bytes", 0, "must be from 1 to 1073741824"),
        ("server.public_url", "users.example", "must be empty or an http:// or https:// URL"),
        ("server.public_url", "ftp://users.example", "must be empty or an http:// or https:// URL"),
        ("server.public_url", "https://u:p@users.example", "must be empty or an http:// or https:// URL"),
        ("server.public_url", "https://users.example/?", "must be empty or an http:// or https:// URL"),
        ("server.public_url", "https://users.example\n", "must be empty or an http:// or https:// URL"),
        ("server.data_dir", 5, "is not a valid path"),
        ("tracing.otlp_endpoint", "collector:4318", "must be empty or an http:// or https:// URL"),
        ("tracing.sample_ratio", "1.5", "must be from 0.0 to 1.0"),
        ("tracing.sample_ratio", "-0.1", "must be a number such as 0.1 or 1"),
        ("tracing.sample_ratio", "nan", "must be a number such as 0.1 or 1"),
        ("errors.sentry_dsn", "https://hunter2.example/1", "must have the form https://key@host/project"),
        ("errors.environment", " ", "must not be empty"),
        ("errors.sample_rate", "10%", "must be a number such as 0.1 or 1"),
        ("database.url", "", "must start with postgresql://"),
        ("database.url", "mysql://u:hunter2@h/d", "must start with postgresql://"),
        ("database.url", "postgresql+psycopg://u:hunter2@h/d", "must start with postgresql://"),
        ("database.url", "sqlite://", "must name a file after three slashes"),
        ("database.url", "sqlite:///", "must name a file after three slashes"),
        ("database.url", "sqlite://data.db", "must name a file after three slashes"),
        ("database.url", "postgresql://", "must have the form postgresql://user:password@host"),
        (
            "database.url",
            "postgresql://u:hunter2@h:port/d",
            "must have the form postgresql://user:password@host",
        ),
        ("database.pool_size", 0, "must be from 1 to 1000"),
        ("database.allow_sqlite", "maybe", "must be true or false (also 1/0, yes/no, on/off)"),
        ("database.allow_sqlite", 2, "must be true or false (also 1/0, yes/no, on/off)"),
        ("secret.keys", 5, "must be a list"),
        ("secret.keys", '["hunter2', "starts like JSON, but is not a JSON array"),
        ("secret.keys", [GOOD_KEY, 5], "item 2 must be a valid string"),
        ("bootstrap.admin_password", 5, "must be a valid string"),
        ("passwords.bcrypt_cost", 3, "must be from 4 to 16"),
        ("passwords.bcrypt_cost", 17, "must be from 4 to 16"),
        ("passwords.min_length", 0, "must be from 1 to 64"),
        ("passwords.min_length", 65, "must be from 1 to 64"),
        ("passwords.max_length", 63, "must be from 64 to 4096"),
        ("passwords.max_length", 4097, "must be from 64 to 4096"),
        ("passwords.blocklist", "gone.txt", "cannot be read: No such file or directory"),
        ("passwords.hash_workers", -1, "must be from 0 to 1024"),
        ("passwords.hash_nice", 20, "must be from 0 to 19"),
        ("tokens.issuer", " ", "must not be empty"),
        ("tokens.algorithm", "none", "must be 'ES256', 'EdDSA', 'RS256' or 'HS256'"),
        ("tokens.access_lifetime", "0s", "must be from 1s to 15m"),
        ("tokens.access_lifetime", "15m1s", "must be from 1s to 15m"),
        ("tokens.access_lifetime", timedelta(-1), "must be from 1s to 15m"),
        ("tokens.session_lifetime", "3651d", "must be from 1ms to 3650d"),
        ("tokens.refresh_grace", "61s", "must be from 0s to 1m"),
        ("registration.mode", "invite", "must be 'open' or 'closed'"),
        ("registration.default_role", "", "must not be empty"),
        ("limits.login", "0/m", "must allow at least 1 request in a period longer than 0s"),
        ("limits.login", 20, "must be a budget such as 5/s, 20/10s, 20/m or 1000/h"),
        ("cors.origins", "https://a.example,https://b.example/", "item 2 must be * or scheme://host[:port]"),
        ("cors.origins", "https://A.example", "item 1 must be * or scheme://host[:port]"),
        ("cors.origins", "a.example", "item 1 must be * or scheme://host[:port]"),
        ("cors.origins", "null", "item 1 must be * or scheme://host[:port]"),
        ("cors.origins", "https://*.example", "item 1 must be * or scheme://host[:port]"),
        ("cors.origins", "https://u:hunter2@a.example", "item 1 must be * or scheme://host[:port]"),
        ("cors.origins", "https://a.example:443", "item 1 must leave out the port that its scheme implies"),
        ("cors.origins", "http://a.example:80", "item 1 must leave out the port that its scheme implies"),
        ("logs.format", "xml", "must be 'json' or 'pretty'"),
        ("logs.level", "loud", "must be 'debug', 'info', 'warning', 'error' or 'critical'"),
    ],
)
def test_a_value_out_of_range_is_refused(key: str, given: object, message: str) -> None:
    (problem,) = problems_of(flags={key: given})
    assert problem.key == key
    assert problem.message.startswith(message)
    assert problem.origin == f"flag --{key.partition('.')[2].replace('_', '-')}"
    assert "hunter2" not in repr(problem)


def test_a_blocklist_that_can_be_read_is_accepted() -> None:
    path = str(written("letmein\n", "blocklist.txt"))
    assert loaded(passwords__blocklist=path).passwords.blocklist == path


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"admin_username": "ada"}, "admin_email, admin_password"),
        ({"admin_username": "ada", "admin_password": "hunter2"}, "admin_email"),
        ({"admin_password": "hunter2", "admin_email": "ada@example.org"}, "admin_username"),
    ],
)
def test_the_first_administrator_is_set_wholly_or_not(given: dict[str, str], missing: str) -> None:
    environ = {f"USERMGMT_BOOTSTRAP__{name.upper()}": value for name, value in given.items()}
    (problem,) = problems_of(environ)
    assert problem.key == "bootstrap"
    assert problem.message == f"set all three keys or none; not set: {missing}"
    assert set(problem.origin.split(", ")) == {f"environment {name}" for name in environ}
    assert "hunter2" not in repr(problem)


# All problems at once


def test_all_problems_of_all_sources_are_reported_at_once_with_their_origin() -> None:
    written('[server]\nworkers = 0\nprot = 1\n[cors]\norigins = ["nowhere"]\n[quux]\na = 1\n')
    environ = {
        "USERMGMT_SERVER__PORT": "many",
        "USERMGMT_SERVER__HOTS": "::",
        "USERMGMT_TOKENS__ISSUER_FILE": "gone",
        "USERMGMT_DATABASE__URL": "mysql://u:hunter2@h/d",
        "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "ada",
    }
    problems = problems_of(environ, flags={"logs.format": "xml"})
    assert {(problem.key, problem.origin) for problem in problems} == {
        ("server.workers", "settings.toml [server] workers"),
        ("server.prot", "settings.toml [server] prot"),
        ("cors.origins", "settings.toml [cors] origins"),
        ("quux", "settings.toml [quux]"),
        ("server.port", "environment USERMGMT_SERVER__PORT"),
        ("server.hots", "environment USERMGMT_SERVER__HOTS"),
        ("tokens.issuer", "environment USERMGMT_TOKENS__ISSUER_FILE"),
        ("database.url", "environment USERMGMT_DATABASE__URL"),
        ("bootstrap", "environment USERMGMT_BOOTSTRAP__ADMIN_USERNAME"),
        ("logs.format", "flag --format"),
    }
    assert len(problems) == 10


def test_a_broken_file_does_not_hide_the_problems_of_the_environment() -> None:
    written("[server\n")
    assert len(problems_of({"USERMGMT_SERVER__PORT": "many"})) == 2


def test_the_error_has_one_line_a_problem() -> None:
    error = SettingsError(
        [
            SettingsProblem("server.port", "flag --port", "must be 1"),
            SettingsProblem("", "a.toml", "bad\nline"),
        ]
    )
    assert str(error) == "server.port: must be 1 (flag --port)\nbad\\nline (a.toml)"


# Secrets


SECRETS = ("hunter2", "topsecret-root-key")


def with_secrets() -> Settings:
    return loaded(
        {
            "USERMGMT_SECRET_KEYS": "topsecret-root-key",
            "USERMGMT_DATABASE__URL": "postgres://app:hunter2@db:5432/app?sslpassword=hunter2&ssl=on",
            "USERMGMT_BOOTSTRAP__ADMIN_USERNAME": "ada",
            "USERMGMT_BOOTSTRAP__ADMIN_EMAIL": "ada@example.org",
            "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": "hunter2",
        }
    )


def test_no_representation_shows_a_secret() -> None:  # N05
    settings = with_secrets()
    problems = production_problems(settings)
    assert problems
    surfaces = [
        settings,
        settings.origins,
        describe(settings),
        problems,
        settings.database.url,
        [*map(str, problems)],
    ]
    for surface in map(repr, surfaces):
        assert not [secret for secret in SECRETS if secret in surface], surface


def test_secrets_can_be_reached_by_who_needs_them() -> None:
    settings = with_secrets()
    assert settings.secret.keys[0].get_secret_value() == "topsecret-root-key"
    assert settings.bootstrap.admin_password.get_secret_value() == "hunter2"
    assert "app:hunter2@db" in str(settings.database.url)


def test_describe_says_that_a_secret_is_set_and_not_which() -> None:
    rows = {row.key: row for row in describe(with_secrets())}
    secrets = {"secret.keys", "bootstrap.admin_password", "metrics.token", "valkey.url", "errors.sentry_dsn"}
    assert {key for key, row in rows.items() if row.is_secret} == secrets
    assert rows["secret.keys"].value_shown == "(hidden)"
    assert rows["secret.keys"].origin == "environment USERMGMT_SECRET_KEYS"
    shown_url = rows["database.url"].value_shown
    assert shown_url == "postgresql+asyncpg://app:***@db:5432/app?sslpassword=***&ssl=on"


@pytest.mark.parametrize(
    "environ",
    [
        {"USERMGMT_SECRET_KEYS": '["topsecret-root-key"', "USERMGMT_SERVER__PORT": "x"},
        {"USERMGMT_SECRET_KEYS": '["topsecret-root-key", 5]'},
        {"USERMGMT_SECRET_KEY": "topsecret-root-key"},
        {"USERMGMT_SECRET_KEYS_FILE": "topsecret-root-key"},
        {"USERMGMT_DATABASE__URL": "topsecret-root-key://u:hunter2@h"},
        {"USERMGMT_DATABASE__URL": "postgresql://u:hunter2@h:x/d"},
        {"USERMGMT_BOOTSTRAP__ADMIN_PASSWORD": "hunter2"},
        {"USERMGMT_SERVER__PUBLIC_URL": "https://u:hunter2@h?a"},
        {"USERMGMT_SERVER__PORT": "hunter2"},
        {"USERMGMT_LOGS__LEVEL": "hunter2"},
    ],
)
def test_no_error_shows_a_secret(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ=environ)
    shown_error = f"{refused.value} {refused.value!r} {refused.value.problems!r}"
    assert not [secret for secret in SECRETS if secret in shown_error]
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p@ss:w/rd@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:p@h/d", "postgresql://:***@h/d"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql:///d?user=u&password=p&ssl=on", "postgresql:///d?user=u&password=***&ssl=on"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_masked_url_has_no_password(url: str, masked: str) -> None:
    assert masked_url(url) == masked


# settings.toml


def test_the_committed_file_is_what_the_settings_render() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render_default_toml()


def test_the_rendered_file_sets_nothing() -> None:
    settings = load_settings(config=written(render_default_toml(), "rendered.toml"), environ={})
    assert set(settings.origins.values()) == {"default"}


def test_the_rendered_file_without_its_comment_marks_has_the_defaults() -> None:
    uncommented = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", render_default_toml())
    settings = load_settings(config=written(uncommented, "rendered.toml"), environ={})
    assert settings.model_dump() == Settings().model_dump()
    unset = {key for key, origin in settings.origins.items() if origin == "default"}
    assert unset == {"secret.keys", "bootstrap.admin_password", "metrics.token", "valkey.url", "errors.sentry_dsn"}


def test_the_rendered_file_tells_where_secrets_come_from() -> None:
    rendered = render_default_toml()
    assert "USERMGMT_SECRET__KEYS_FILE" in rendered
    assert "USERMGMT_BOOTSTRAP__ADMIN_PASSWORD_FILE" in rendered
    assert not re.search(r"(?m)^(# )?(keys|admin_password) =", rendered)


def test_the_rendered_file_describes_every_key() -> None:
    rendered = render_default_toml()
    for row in describe(Settings()):
        assert row.description in rendered, row.key


# Modes


def test_development_changes_what_it_should_and_nothing_else() -> None:
    settings = load_settings(environ={}, development=True)
    before = shown(Settings())
    assert {key: value for key, value in shown(settings).items() if value != before[key]} == {
        "logs.format": "pretty",
        "docs.enabled": "true",
        "database.allow_sqlite": "true",
        "database.migrate": "true",
    }
    assert settings.origins["docs.enabled"] == "development mode"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("directory", ["data", "elsewhere"])
def test_development_reads_the_secret_that_was_generated(directory: str) -> None:
    Path(directory).mkdir()
    written(f"{GOOD_KEY}\n", f"{directory}/secret.key")
    settings = load_settings(environ={"USERMGMT_SERVER__DATA_DIR": directory}, development=True)
    assert settings.secret.keys == (SecretStr(GOOD_KEY),)
    assert settings.origins["secret.keys"] == "development mode"


def test_production_does_not_read_the_generated_secret() -> None:
    Path("data").mkdir()
    written(GOOD_KEY, "data/secret.key")
    assert load_settings(environ={}).secret.keys == ()


def test_a_given_secret_is_stronger_than_the_generated_one() -> None:
    Path("data").mkdir()
    written(GOOD_KEY, "data/secret.key")
    settings = load_settings(environ={"USERMGMT_SECRET_KEYS": OTHER_KEY}, development=True)
    assert settings.secret.keys == (SecretStr(OTHER_KEY),)


def test_a_generated_secret_that_cannot_be_read_is_a_problem() -> None:
    Path("data/secret.key").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"secret\.keys: its file cannot be read: Is a directory"):
        load_settings(environ={}, development=True)


def test_a_generated_secret_is_checked_like_any_other() -> None:
    Path("data").mkdir()
    written("short", "data/secret.key")
    (problem,) = common_problems(load_settings(environ={}, development=True))
    assert problem == SettingsProblem("secret.keys", "development mode", "key 1 is shorter than 32 bytes")


def test_development_is_fit_to_start_without_any_settings() -> None:
    assert common_problems(load_settings(environ={}, development=True)) == []


PRODUCTION = {"USERMGMT_SECRET_KEYS": f"{GOOD_KEY},{OTHER_KEY}", "USERMGMT_DATABASE__URL": POSTGRES}


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({}, None, None),
        ({"USERMGMT_DATABASE__URL": "sqlite:///a.db", "USERMGMT_DATABASE__ALLOW_SQLITE": "yes"}, None, None),
        ({"USERMGMT_CORS__ORIGINS": "*"}, None, None),
        (
            {"USERMGMT_CORS__ORIGINS": "https://a.example", "USERMGMT_CORS__CREDENTIALS": "yes"},
            None,
            None,
        ),
        ({"USERMGMT_SECRET_KEYS": ""}, "secret.keys", "must be set; generate a key"),
        ({"USERMGMT_DATABASE__URL": "sqlite:///a.db"}, "database.url", "must be PostgreSQL in production"),
        ({"USERMGMT_SERVER__WORKERS": "2"}, "server.workers", "must be 1: several workers count requests"),
        (
            {
                "USERMGMT_SERVER__WORKERS": "2",
                "USERMGMT_LIMITS__ENABLED": "no",
                "USERMGMT_DATABASE__ALLOW_SQLITE": "yes",
            }
            | {"USERMGMT_DATABASE__URL": "sqlite:///a.db"},
            "server.workers",
            "must be 1: a SQLite file has one writer",
        ),
        ({"USERMGMT_VALKEY__URL": "valkeys://u:p@v:6379/0"}, None, None),
        ({"USERMGMT_SERVER__WORKERS": "2", "USERMGMT_VALKEY__URL": "valkey://v"}, None, None),
        ({"USERMGMT_SERVER__WORKERS": "2", "USERMGMT_LIMITS__ENABLED": "no"}, None, None),
    ],
)
def test_what_production_refuses(change: dict[str, str], key: str | None, message: str | None) -> None:  # E14
    settings = loaded(PRODUCTION | change)
    found = production_problems(settings)
    assert common_problems(settings) == []
    if key is None or message is None:
        assert found == []
        return
    (problem,) = found
    assert problem.key == key
    assert problem.message.startswith(message)
    assert problem.origin == settings.origins[key]


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"USERMGMT_SECRET_KEYS": GOOD_KEY[:31]}, ["key 1 is shorter than 32 bytes"]),
        ({"USERMGMT_SECRET_KEYS": GOOD_KEY[:16] + "ä" * 7 + "öü"}, []),
        ({"USERMGMT_SECRET_KEYS": f"{GOOD_KEY},{OTHER_KEY},{GOOD_KEY}"}, ["keys 1 and 3 are the same"]),
        (
            {"USERMGMT_CORS__ORIGINS": "https://a.example,*", "USERMGMT_CORS__CREDENTIALS": "yes"},
            ["* must not be combined with cors.credentials; list the origins"],
        ),
        (
            {"USERMGMT_SERVER__MANAGEMENT_BIND": "[::1]:9100", "USERMGMT_SERVER__PORT": "9100"},
            ["must have another port than server.port, by which its requests are told apart"],
        ),
        ({"USERMGMT_SERVER__MANAGEMENT_BIND": "127.0.0.1:9100", "USERMGMT_SERVER__PORT": "910"}, []),
    ],
)
def test_what_every_mode_refuses(change: dict[str, str], messages: list[str]) -> None:
    settings = loaded(PRODUCTION | change)
    assert [problem.message for problem in common_problems(settings)] == messages
    assert production_problems(settings) == common_problems(settings)


@pytest.mark.parametrize(
    "sample",
    [
        "secret",
        "changeme",
        "change-me",
        "password",
        "a" * 64,
        "0123456789abcdef0123456789abcdef",
        "0123456789ABCDEF0123456789ABCDEF",
        "changemechangemechangemechangeme",
        "your_super_secret_key_change_in_production",
        "a-string-secret-at-least-256-bits-long",
        "django-insecure-3kf9s8df7g6h5j4k3l2m1n0b9v8c7x6z",
    ],
)
def test_a_known_sample_is_refused_as_a_secret(sample: str) -> None:
    problems = common_problems(loaded({"USERMGMT_SECRET_KEYS": sample}))
    assert "key 1 is a known sample or repeats itself; use `usermgmt secrets generate`" in [p.message for p in problems]


def test_every_reason_is_given_at_once() -> None:
    environ = {
        "USERMGMT_SECRET_KEYS": json.dumps(["short", "short"]),
        "USERMGMT_SERVER__WORKERS": "2",
        "USERMGMT_CORS__ORIGINS": "*",
        "USERMGMT_CORS__CREDENTIALS": "true",
    }
    found = production_problems(loaded(environ))
    assert [problem.key for problem in found] == [
        "database.url",
        "server.workers",
        "secret.keys",
        "secret.keys",
        "secret.keys",
        "cors.origins",
    ]
