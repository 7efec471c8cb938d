"""What the server tells about itself: the log, metrics, traces and faults."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from usermgmt.settings.kinds import HttpUrl, Section, Share, Switch, Text

_SENTRY_DSN = re.compile(
    r"https?://[^/@:\s]+(?::[^/@\s]*)?@(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?/(?:\S*/)?[0-9]+"
)


def _sentry_dsn(dsn: SecretStr) -> SecretStr:
    text = dsn.get_secret_value()
    if text and not _SENTRY_DSN.fullmatch(text):
        raise ValueError("must have the form https://key@host/project, the project being a number")
    return dsn


def _lowered(written: object) -> object:
    return written.lower() if isinstance(written, str) else written


Level = Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(_lowered)]


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

    otlp_endpoint: HttpUrl = Field(
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
