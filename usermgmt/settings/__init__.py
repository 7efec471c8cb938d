"""Every setting: typed, frozen, read once; reached through `runtime.settings`.

A setting comes from the first of: a flag, USERMGMT_SECTION__KEY, a file named by USERMGMT_SECTION__KEY_FILE,
the TOML file, development mode, its default. `settings.toml` is rendered from here and documents each one.
"""

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
from usermgmt.settings.loading import SECRET_FILE, load_settings
from usermgmt.settings.records import AuditSettings, RetentionSettings
from usermgmt.settings.server import ServerSettings
from usermgmt.settings.sources import SettingsError, SettingsProblem
from usermgmt.settings.telemetry import ErrorsSettings, LogsSettings, MetricsSettings, TracingSettings
from usermgmt.settings.web import CorsSettings, DocsSettings, PluginsSettings
from usermgmt.settings.whole import SECTIONS, Settings, declared_fields

__all__ = [
    "SECRET_FILE",
    "SECTIONS",
    "AuditSettings",
    "BootstrapSettings",
    "CorsSettings",
    "DatabaseSettings",
    "DocsSettings",
    "ErrorsSettings",
    "LimitsSettings",
    "LogsSettings",
    "MetricsSettings",
    "NetworkSettings",
    "PasswordsSettings",
    "PluginsSettings",
    "RegistrationSettings",
    "RetentionSettings",
    "SecretSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "SettingsProblem",
    "ThrottleSettings",
    "TokensSettings",
    "TracingSettings",
    "ValkeySettings",
    "declared_fields",
    "load_settings",
]
