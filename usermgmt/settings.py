"""Every setting: typed, frozen, read once; reached through `runtime.settings`.

A setting comes from the first of: a flag, USERMGMT_SECTION__KEY, a file named by USERMGMT_SECTION__KEY_FILE,
the TOML file, development mode, its default. `settings.toml` is rendered from here and documents each one.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from usermgmt.settings_sources import (
    Layers,
    SettingsError,
    SettingsProblem,
    add_config,
    add_environment,
    add_flags,
    add_value_file,
    read_text,
)
from usermgmt.settings_values import (
    Between,
    Budget,
    DatabaseUrl,
    Duration,
    ReplicaUrl,
    file_of,
    read_list,
    read_share,
    read_switch,
    read_whole,
)

_PUBLIC_URL = re.compile(r"https?://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[^\s?#]*)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_VALKEY_URL = re.compile(
    r"(?:valkeys?|rediss?)://(?:[^@/?#\s]*@)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:/[0-9]*)?"
    r"(?:\?ssl_ca_certs=[^?#&\s]+)?|unix://(?:[^@/?#\s]*@)?/[^?#\s]+(?:\?db=[0-9]+)?"
)
_PLUGIN_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SENTRY_DSN = re.compile(
    r"https?://[^/@:\s]+(?::[^/@\s]*)?@(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?/(?:\S*/)?[0-9]+"
)
_IMPLIED_PORT = re.compile(r"http://.*:80|https://.*:443")
_SHORTEST_KEY_LIFETIME = Duration.parse("1h")
_SHORTEST, _LONGEST = Duration.parse("1ms"), Duration.parse("3650d")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _public_url(text: str) -> str:
    if text and not _PUBLIC_URL.fullmatch(text):
        raise ValueError("must be empty or an http:// or https:// URL without user, query and fragment")
    return text.rstrip("/")


def _cors_origin(text: str) -> str:
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise ValueError("must be * or scheme://host[:port] in lower case, without a path")
    if _IMPLIED_PORT.fullmatch(text):
        raise ValueError("must leave out the port that its scheme implies, as browsers do")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("must be an address or a network such as 10.0.0.0/8, without host bits") from None


def _valkey_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text and not _VALKEY_URL.fullmatch(text):
        raise ValueError("must have the form valkey://user:password@host:port/number (or valkeys, redis, rediss, unix)")
    return url


def _sentry_dsn(dsn: SecretStr) -> SecretStr:
    text = dsn.get_secret_value()
    if text and not _SENTRY_DSN.fullmatch(text):
        raise ValueError("must have the form https://key@host/project, the project being a number")
    return dsn


def _bind(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if text and not (separator and host and port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError("must be empty or host:port, as 127.0.0.1:9100")
    return f"{host}:{int(port)}" if text else ""


def _readable(path: str) -> str:
    if path:
        read_text(Path(path))
    return path


def _key_lifetime(lifetime: Duration) -> Duration:
    if lifetime and lifetime < _SHORTEST_KEY_LIFETIME:
        raise ValueError("must be 0 or at least 1h: other servers keep the published keys for a while")
    return lifetime


def _lowered(written: object) -> object:
    return written.lower() if isinstance(written, str) else written


def _plugin_path(text: str) -> str:
    if not _PLUGIN_PATH.fullmatch(text):
        raise ValueError("must be an import path such as package.module:blueprint")
    return text


Whole = Annotated[int, BeforeValidator(read_whole)]
Switch = Annotated[bool, BeforeValidator(read_switch)]
CorsOrigin = Annotated[str, AfterValidator(_cors_origin)]
Level = Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lowered)]
Text = Annotated[str, AfterValidator(_filled)]
PluginPath = Annotated[str, AfterValidator(_plugin_path)]
Share = Annotated[float, BeforeValidator(read_share), Between(0.0, 1.0)]
ProxyNetwork = Annotated[str, AfterValidator(_network)]
Pause = Annotated[Duration, Between(Duration(0), Duration.parse("1h"))]
Wait = Annotated[Duration, Between(_SHORTEST, Duration.parse("1h"))]
Lifetime = Annotated[Duration, Between(_SHORTEST, _LONGEST)]


class Section(BaseModel):
    """A part of the settings; frozen, and refuses keys that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServerSettings(Section):
    """How the server listens and what it takes from a client."""

    host: Text = Field(
        default="127.0.0.1",
        description="Address to listen on; 0.0.0.0 is every IPv4 address, :: every address.",
    )
    port: Annotated[Whole, Between(0, 65535)] = Field(
        default=8000, description="TCP port to listen on; 0 takes a free one."
    )
    server: Literal["hypercorn", "granian"] = Field(
        default="hypercorn", description="Which server answers: hypercorn, or granian (an extra; no TLS, no HTTP/2)."
    )
    workers: Annotated[Whole, Between(1, 1024)] = Field(default=1, description="Number of processes that serve.")
    worker_timeout: Wait = Field(
        default=Duration.parse("30s"),
        description="Duration without a sign of life after which one of several workers is replaced.",
    )
    graceful_timeout: Pause = Field(
        default=Duration.parse("30s"),
        description="Duration that running requests get to finish when the server stops.",
    )
    drain_delay: Pause = Field(
        default=Duration(0),
        description="Part of graceful_timeout in which new connections are still taken while readiness answers 503.",
    )
    request_timeout: Wait = Field(
        default=Duration.parse("15s"), description="Duration that a client has to send its request."
    )
    head_timeout: Wait = Field(
        default=Duration.parse("5s"), description="Duration that the head of a request may take once it has begun."
    )
    max_connections: Annotated[Whole, Between(1, 1_000_000)] = Field(
        default=10_000, description="Most connections at once, in number; further ones are answered 503."
    )
    max_body_bytes: Annotated[Whole, Between(1, 1 << 30)] = Field(
        default=65536, description="Longest request body, in bytes."
    )
    management_bind: Annotated[str, AfterValidator(_bind)] = Field(
        default="",
        description="Address of a second listener for /metrics and /health only, as 127.0.0.1:9100; empty: none.",
    )
    max_upload_bytes: Annotated[Whole, Between(1, 1 << 40)] = Field(
        default=64 << 20, description="Longest file of accounts that is sent to be imported, in bytes; kept on disk."
    )
    fast_path: Switch = Field(
        default=True, description="Whether requests are served at the least cost, or as the framework does."
    )
    tls_certificate: Annotated[str, AfterValidator(_readable)] = Field(
        default="", description="Path of a PEM file with the certificate and its chain; empty: no TLS here."
    )
    tls_key: Annotated[str, AfterValidator(_readable)] = Field(
        default="", description="Path of a PEM file with the certificate's private key."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] = Field(
        default="", description="URL under which clients reach the server; empty: made from the request."
    )
    data_dir: Path = Field(default=Path("data"), description="Directory for what the server keeps in files.")

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted by this server itself."""
        return bool(self.tls_certificate)


class DatabaseSettings(Section):
    """Where the data is, and how long to wait for it."""

    url: DatabaseUrl = Field(
        default=DatabaseUrl("sqlite+aiosqlite:///data/usermgmt.db"),
        description="URL of the database, sqlite:///path or postgresql://user:password@host/name.",
    )
    read_url: ReplicaUrl = Field(
        default=ReplicaUrl(""),
        description="URL of a replica for lists, which may be a moment behind; empty: the database itself.",
    )
    pooler: Literal["none", "transaction"] = Field(
        default="none", description="Whether a pooler such as pgbouncer shares connections between transactions."
    )
    distributed: Switch = Field(
        default=False, description="Whether PostgreSQL is a cluster with Citus (deploy/citus.sql), true or false."
    )
    pool_size: Annotated[Whole, Between(1, 1000)] = Field(
        default=10,
        description="Most connections held, in number; on PostgreSQL one more watches the server.",
    )
    pool_timeout: Wait = Field(default=Duration.parse("2s"), description="Duration to wait for a free connection.")
    statement_timeout: Wait = Field(
        default=Duration.parse("5s"), description="Duration after which a statement is given up."
    )
    count_timeout: Wait = Field(
        default=Duration.parse("1s"),
        description="Duration after which an exact count of a list is given up and estimated.",
    )
    connect_timeout: Wait = Field(default=Duration.parse("2s"), description="Duration to wait for a new connection.")
    start_timeout: Pause = Field(
        default=Duration.parse("30s"), description="Duration to wait for the database when the server starts."
    )
    allow_sqlite: Switch = Field(default=False, description="Whether SQLite may be used in production, true or false.")
    migrate: Switch = Field(
        default=False, description="Whether migrations are applied when the server starts, true or false."
    )

    @property
    def is_sqlite(self) -> bool:
        """Whether the data is in a SQLite file."""
        return self.url.startswith("sqlite")

    @property
    def sqlite_file(self) -> Path:
        """The file of a SQLite database."""
        return file_of(self.url)


class SecretSettings(Section):
    """The root secrets, from which the keys of tokens and digests are derived."""

    keys: Annotated[tuple[SecretStr, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Root secrets, newest first, each of at least 32 bytes."
    )
    rollout: Annotated[Duration, Between(Duration(0), Duration.parse("30d"))] = Field(
        default=Duration.parse("10m"),
        description="Duration in which a new root secret only verifies, until every process has been started with it.",
    )


class BootstrapSettings(Section):
    """The first administrator; used only while there is none. All three are set, or none."""

    admin_username: str = Field(default="", description="Username of the first administrator.")
    admin_email: str = Field(default="", description="E-mail address of the first administrator.")
    admin_password: SecretStr = Field(default=SecretStr(""), description="Password of the first administrator.")

    @model_validator(mode="after")
    def _is_whole(self) -> "BootstrapSettings":
        missing = [name for name, value in self if not value]
        if missing and len(missing) < len(type(self).model_fields):
            raise ValueError(f"set all three keys or none; not set: {', '.join(missing)}")
        return self


class PasswordsSettings(Section):
    """Which passwords are accepted, and what hashing them may cost."""

    bcrypt_cost: Annotated[Whole, Between(4, 16)] = Field(
        default=12, description="Cost of bcrypt; each step doubles the work."
    )
    min_length: Annotated[Whole, Between(1, 64)] = Field(default=8, description="Shortest password, in characters.")
    max_length: Annotated[Whole, Between(64, 4096)] = Field(
        default=1024, description="Longest password, in characters."
    )
    blocklist: Annotated[str, AfterValidator(_readable)] = Field(
        default="",
        description="Path of a UTF-8 file with further refused passwords, one a line; empty: none.",
    )
    hash_workers: Annotated[Whole, Between(0, 1024)] = Field(
        default=0, description="Number of threads that hash; 0: one per processor that the process may use."
    )
    hash_queue: Wait = Field(
        default=Duration.parse("2500ms"), description="Longest duration that a hash waits for its start."
    )
    hash_nice: Annotated[Whole, Between(0, 19)] = Field(
        default=12, description="Niceness of the threads that hash; 12 leaves reads nine tenths of a processor."
    )


class TokensSettings(Section):
    """Access tokens, refresh tokens and the sessions they belong to."""

    issuer: Text = Field(default="usermgmt", description="Name of this server in its tokens (iss).")
    audience: Text = Field(default="usermgmt", description="Name of whom the tokens are for (aud).")
    algorithm: Literal["ES256", "EdDSA", "RS256", "HS256"] = Field(
        default="ES256", description="Signature algorithm of tokens."
    )
    access_lifetime: Annotated[Duration, Between(Duration.parse("1s"), Duration.parse("15m"))] = Field(
        default=Duration.parse("10m"), description="Duration for which an access token is valid."
    )
    session_idle_lifetime: Lifetime = Field(
        default=Duration.parse("14d"),
        description="Duration after which a session that is not refreshed ends.",
    )
    session_lifetime: Lifetime = Field(
        default=Duration.parse("30d"), description="Duration after which a session ends anyway."
    )
    key_lifetime: Annotated[Duration, Between(Duration(0), _LONGEST), AfterValidator(_key_lifetime)] = Field(
        default=Duration.parse("90d"),
        description="Duration after which the key that signs is replaced; 0: never by itself.",
    )
    refresh_grace: Annotated[Duration, Between(Duration(0), Duration.parse("60s"))] = Field(
        default=Duration.parse("10s"), description="Duration in which a used refresh token may be sent again."
    )
    fresh_lifetime: Annotated[Duration, Between(Duration(0), _LONGEST)] = Field(
        default=Duration.parse("15m"), description="Duration for which a sign-in counts as recent."
    )
    max_sessions: Annotated[Whole, Between(1, 10_000)] = Field(
        default=100, description="Most live sessions of one account; a new one ends the oldest, in number."
    )
    transport: Literal["body", "cookie"] = Field(
        default="body", description="Where refresh tokens travel: in JSON bodies, or in a cookie for browser clients."
    )


class RegistrationSettings(Section):
    """Who may make an account."""

    mode: Literal["open", "closed"] = Field(default="open", description="Whether anybody may register.")
    default_role: Text = Field(default="user", description="Name of the role that a new account holds.")


with warnings.catch_warnings():
    # Classes have ABCMeta.register, which pydantic takes for a shadowed attribute; instances do not have it.
    warnings.filterwarnings("ignore", message='Field name "register"')

    class LimitsSettings(Section):
        """Budgets of requests, for each caller: a count and a period, such as 20/m or 5/10s."""

        enabled: Switch = Field(default=True, description="Whether budgets are enforced, true or false.")
        login: Budget = Field(default=Budget.parse("300/m"), description="Sign-ins, as a count a period.")
        register: Budget = Field(default=Budget.parse("300/m"), description="Registrations, as a count a period.")
        refresh: Budget = Field(default=Budget.parse("600/m"), description="Refreshed sessions, as a count a period.")
        read: Budget = Field(default=Budget.parse("6000/m"), description="Requests that read, as a count a period.")
        write: Budget = Field(default=Budget.parse("1200/m"), description="Requests that write, as a count a period.")
        admin: Budget = Field(
            default=Budget.parse("1200/m"), description="Requests for administrators, as a count a period."
        )
        unknown: Budget = Field(
            default=Budget.parse("300/m"), description="Requests for paths and methods that do not exist."
        )


class NetworkSettings(Section):
    """How the address of a client is found."""

    trusted_proxies: Annotated[tuple[ProxyNetwork, ...], BeforeValidator(read_list)] = Field(
        default=(),
        description="Networks of the proxies whose forwarding header is believed, such as 10.0.0.0/8; empty: none.",
    )
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = Field(
        default="X-Forwarded-For", description="The header in which the trusted proxies tell the client's address."
    )


class ThrottleSettings(Section):
    """How many wrong guesses of a secret are taken, as a count a period."""

    enabled: Switch = Field(default=True, description="Whether guesses are counted, true or false.")
    account: Budget = Field(
        default=Budget.parse("10/15m"),
        description="Failed sign-ins to one account; each network that signed in to it before has its own.",
    )
    network: Budget = Field(
        default=Budget.parse("100/15m"), description="Failed sign-ins from one IPv4 address or one IPv6 /64."
    )
    session: Budget = Field(default=Budget.parse("10/15m"), description="Wrong current passwords within one session.")
    refresh: Budget = Field(
        default=Budget.parse("100/15m"), description="Refresh tokens that were never issued, from one network."
    )


class ValkeySettings(Section):
    """A Valkey or Redis server in which several workers count requests together."""

    url: Annotated[SecretStr, AfterValidator(_valkey_url)] = Field(
        default=SecretStr(""), description="URL, as in valkey://:password@host:6379/0; empty: each worker counts alone."
    )
    timeout: Annotated[Duration, Between(_SHORTEST, Duration.parse("1s"))] = Field(
        default=Duration.parse("50ms"), description="Duration to wait for an answer before counting alone."
    )


class AuditSettings(Section):
    """The record of who did what."""

    retention: Annotated[Duration, Between(Duration.parse("1d"), _LONGEST)] = Field(
        default=Duration.parse("3650d"), description="Duration for which events are kept."
    )
    seal_interval: Annotated[Duration, Between(Duration.parse("100ms"), Duration.parse("1h"))] = Field(
        default=Duration.parse("5s"), description="Duration between two seals."
    )


class RetentionSettings(Section):
    """How long what is over is kept."""

    deleted_users: Lifetime = Field(
        default=Duration.parse("30d"), description="Duration after which a deleted account is erased."
    )
    sessions: Lifetime = Field(
        default=Duration.parse("90d"),
        description="Duration after which a session that was ended, or reached its end, leaves the record.",
    )


class CorsSettings(Section):
    """Which web pages of other origins may call."""

    origins: Annotated[tuple[CorsOrigin, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Allowed origins, scheme://host[:port] each, or *; empty: none."
    )
    credentials: Switch = Field(default=False, description="Whether pages may send credentials, true or false.")


class LogsSettings(Section):
    """The log on the standard output."""

    format: Literal["json", "pretty"] = Field(
        default="json", description="Form of a record: JSON, or for people to read."
    )
    level: Level = Field(default="info", description="Least level that is logged.")


class MetricsSettings(Section):
    """What the server counts, for Prometheus to read at /metrics."""

    enabled: Switch = Field(default=False, description="Whether requests are counted and /metrics answers.")
    token: SecretStr = Field(
        default=SecretStr(""),
        description="Bearer token that /metrics demands; empty: it answers on server.management_bind only.",
    )


class TracingSettings(Section):
    """Traces by OpenTelemetry, an extra."""

    otlp_endpoint: Annotated[str, AfterValidator(_public_url)] = Field(
        default="", description="URL of a collector that takes OTLP/HTTP, as http://127.0.0.1:4318; empty: no traces."
    )
    sample_ratio: Share = Field(
        default=0.1, description="Share of the requests that are traced, where the caller has not decided it."
    )


class ErrorsSettings(Section):
    """Faults told to Sentry or to what speaks its protocol, an extra."""

    sentry_dsn: Annotated[SecretStr, AfterValidator(_sentry_dsn)] = Field(
        default=SecretStr(""), description="DSN, as in https://key@host/project; empty: faults are in the log only."
    )
    environment: Text = Field(default="production", description="Name of this installation, told with each fault.")
    sample_rate: Share = Field(default=1.0, description="Share of the faults that are told.")


class DocsSettings(Section):
    """The documentation page of the API."""

    enabled: Switch = Field(default=False, description="Whether the page is served, true or false.")


class PluginsSettings(Section):
    """Further routes, from packages that are installed beside this one."""

    blueprints: Annotated[tuple[PluginPath, ...], BeforeValidator(read_list)] = Field(
        default=(), description="Import paths of blueprints, package.module:attribute each; they obey the same marks."
    )


class Settings(Section):
    """All settings of a process."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    secret: SecretSettings = SecretSettings()
    bootstrap: BootstrapSettings = BootstrapSettings()
    passwords: PasswordsSettings = PasswordsSettings()
    tokens: TokensSettings = TokensSettings()
    registration: RegistrationSettings = RegistrationSettings()
    limits: LimitsSettings = LimitsSettings()
    network: NetworkSettings = NetworkSettings()
    throttle: ThrottleSettings = ThrottleSettings()
    valkey: ValkeySettings = ValkeySettings()
    audit: AuditSettings = AuditSettings()
    retention: RetentionSettings = RetentionSettings()
    cors: CorsSettings = CorsSettings()
    logs: LogsSettings = LogsSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    errors: ErrorsSettings = ErrorsSettings()
    docs: DocsSettings = DocsSettings()
    plugins: PluginsSettings = PluginsSettings()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: object, /) -> None:
        """Take the origins, which `load_settings` passes as the context of validation."""
        if isinstance(context, dict):
            self._origins.update(context)

    @property
    def origins(self) -> Mapping[str, str]:
        """Where the value of each `section.key` came from."""
        return {key: self._origins.get(key, "default") for key, _ in declared_fields()}


SECTIONS: dict[str, type[Section]] = {name: type(field.default) for name, field in Settings.model_fields.items()}
ALIASES = {
    "USERMGMT_SECRET_KEYS": "USERMGMT_SECRET__KEYS",
    "USERMGMT_SECRET_KEYS_FILE": "USERMGMT_SECRET__KEYS_FILE",
}
DEVELOPMENT: dict[str, object] = {
    "logs.format": "pretty",
    "docs.enabled": True,
    "database.allow_sqlite": True,
    "database.migrate": True,
}


def declared_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every `section.key` and what is declared about it, in the order of declaration."""
    for section, kind in SECTIONS.items():
        for name, declared in kind.model_fields.items():
            yield f"{section}.{name}", declared


def load_settings(
    *,
    flags: Mapping[str, object] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    development: bool = False,
) -> Settings:
    """The settings that all sources together make, each value with its origin.

    `flags` are keyed `section.key`; None stands for a flag that was not given. Without `environ`, that of the
    process is read. Writes nothing. Raises SettingsError with every problem of every source at once.
    """
    environ = os.environ if environ is None else environ
    layers = Layers(known={name: list(kind.model_fields) for name, kind in SECTIONS.items()}, aliases=ALIASES)
    add_flags(layers, flags or {})
    add_environment(layers, environ)
    add_config(layers, config, environ=environ)
    if development:
        _add_development(layers)
    settings, problems = _validated(layers)
    if settings is None or problems:
        raise SettingsError(problems, rest=settings or _validated_rest(layers, problems))
    return settings


def _add_development(layers: Layers) -> None:
    origin = "development mode"
    for key, value in DEVELOPMENT.items():
        layers.offer(key, value, origin=origin)
    directory = Path(str(layers.values.get("server.data_dir", Settings().server.data_dir)))
    if "server.data_dir" in layers.values:
        layers.offer("database.url", f"sqlite+aiosqlite:///{directory / 'usermgmt.db'}", origin=origin)
    add_value_file(layers, "secret.keys", path=directory / "secret.key", origin=origin)


def _validated(layers: Layers) -> tuple[Settings | None, list[SettingsProblem]]:
    """The settings, or None, and all problems; pydantic's own error ends here, as it carries the values."""
    written: dict[str, dict[str, object]] = {section: {} for section in layers.known}
    for key, value in layers.values.items():
        section, _, name = key.partition(".")
        written[section][name] = value
    try:
        return Settings.model_validate(written, context=layers.origins), layers.problems
    except ValidationError as error:
        return None, [*layers.problems, *(_problem(layers, details) for details in error.errors())]


def _validated_rest(layers: Layers, problems: list[SettingsProblem]) -> Settings | None:
    """The settings without every key, and every section, that has a problem."""
    refused = {problem.key for problem in problems}
    kept = {key: value for key, value in layers.values.items() if not {key, key.partition(".")[0]} & refused}
    return _validated(replace(layers, values=kept, problems=[]))[0]


def _problem(layers: Layers, details: ErrorDetails) -> SettingsProblem:
    """What pydantic found, in our words: the key, the position in a list, the origin."""
    key = ".".join(str(part) for part in details["loc"][:2])
    item = f"item {int(details['loc'][2]) + 1} " if len(details["loc"]) > 2 else ""
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "must")
    origins = [origin for name, origin in layers.origins.items() if f"{name}.".startswith(f"{key}.")]
    return SettingsProblem(key, ", ".join(origins), item + message.removeprefix("Input "))
