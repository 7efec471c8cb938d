"""All settings together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import PrivateAttr
from pydantic.fields import FieldInfo

from usermgmt.settings.accounts import (
    BootstrapSettings,
    PasswordsSettings,
    RegistrationSettings,
    SecretSettings,
    TokensSettings,
)
from usermgmt.settings.clients import LimitsSettings, NetworkSettings, ThrottleSettings, ValkeySettings
from usermgmt.settings.database import DatabaseSettings
from usermgmt.settings.kinds import Section
from usermgmt.settings.records import AuditSettings, RetentionSettings
from usermgmt.settings.server import ServerSettings
from usermgmt.settings.sources import SettingsProblem
from usermgmt.settings.telemetry import ErrorsSettings, LogsSettings, MetricsSettings, TracingSettings
from usermgmt.settings.web import CorsSettings, DocsSettings, PluginsSettings


@dataclass(frozen=True, slots=True)
class Sources:
    """What is known of where values came from: the origin of each that was given, and what is warned of."""

    origins: Mapping[str, str]
    farewells: tuple[SettingsProblem, ...] = ()


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

    _sources: Sources = PrivateAttr(default=Sources({}))

    def model_post_init(self, context: object, /) -> None:
        """Take the sources, which `load_settings` passes as the context of validation."""
        if isinstance(context, Sources):
            self._sources = context

    @property
    def origins(self) -> Mapping[str, str]:
        """Where the value of each `section.key` came from."""
        return {key: self._sources.origins.get(key, "default") for key, _ in declared_fields()}

    @property
    def farewells(self) -> tuple[SettingsProblem, ...]:
        """What works in this release and no longer in the next: former names, and settings that go."""
        return self._sources.farewells


SECTIONS: dict[str, type[Section]] = {name: type(field.default) for name, field in Settings.model_fields.items()}


def declared_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every `section.key` and what is declared about it, in the order of declaration."""
    for section, kind in SECTIONS.items():
        for name, declared in kind.model_fields.items():
            yield f"{section}.{name}", declared
