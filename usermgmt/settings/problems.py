"""What is wrong with settings that are each right by themselves: for every mode, and for production."""

import re
import ssl
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations

from pydantic import SecretStr

from usermgmt.settings.server import ServerSettings
from usermgmt.settings.sources import SettingsProblem
from usermgmt.settings.whole import Settings

SHORTEST_KEY = 32
"""Least length of a root secret, in bytes."""
SAMPLE_KEYS = frozenset(
    {
        "secret",
        "secret-key",
        "secretkey",
        "supersecret",
        "super-secret",
        "password",
        "test",
        "dev",
        "development",
        "0123456789abcdef0123456789abcdef",
        "abcdefghijklmnopqrstuvwxyz012345",
        "abcdefghijklmnopqrstuvwxyz123456",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI's tutorial
        "a-string-secret-at-least-256-bits-long",  # jwt.io
    }
)
"""Keys known from documentation; in lower case, with - for _ and space."""
SAMPLE_MARKS = (
    "changeme",
    "change-me",
    "change-this",
    "change-in-prod",
    "replace-me",
    "replace-this",
    "your-secret",
    "your-super",
    "your-256-bit",
    "insecure",
    "supersecret",
)
"""What gives a sample away wherever it stands in a key."""


def common_problems(settings: Settings) -> list[SettingsProblem]:
    """What no mode accepts: root secrets that can be guessed, `*` with credentials, a Valkey that cannot be asked. No
    secret is shown.
    """
    problems = [("secret.keys", message) for message in _key_problems(settings.secret.keys)]
    if "*" in settings.cors.origins and settings.cors.credentials:
        problems.append(("cors.origins", "* must not be combined with cors.credentials; list the origins"))
    problems += [("server.tls_certificate", message) for message in _tls_problems(settings.server)]
    if settings.server.server == "granian" and settings.server.is_tls:
        problems.append(("server.server", "must be hypercorn for TLS; or let a proxy speak TLS"))
    if settings.metrics.enabled and not (settings.metrics.token or settings.server.management_bind):
        problems.append(("metrics.enabled", "needs metrics.token or server.management_bind, or nobody could ask"))
    if settings.server.management_bind.rpartition(":")[2] == str(settings.server.port):
        problems.append(
            ("server.management_bind", "must have another port than server.port, by which its requests are told apart")
        )
    problems += _missing_extras(settings)
    return [SettingsProblem(key, settings.origins[key], message) for key, message in problems]


def _missing_extras(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is set but needs a library that is not installed."""
    extras = (
        (settings.server.server == "granian", "server.server", "granian", "granian"),
        (settings.valkey.url, "valkey.url", "redis", "valkey"),
        (settings.tracing.otlp_endpoint, "tracing.otlp_endpoint", "opentelemetry.exporter.otlp.proto.http", "otel"),
        (settings.errors.sentry_dsn, "errors.sentry_dsn", "sentry_sdk", "sentry"),
    )
    for is_wanted, key, module, extra in extras:
        if is_wanted and not _is_installed(module):
            yield key, f"needs a library that is not installed: pip install '.[{extra}]' in the checkout"


def _is_installed(module: str) -> bool:
    """Whether a module of an extra can be imported; its packages are, the module is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def production_problems(settings: Settings) -> list[SettingsProblem]:
    """Everything for which `usermgmt serve` refuses to start in production, `common_problems` included."""
    problems = []
    if not settings.secret.keys:
        problems.append(("secret.keys", "must be set; generate a key with `usermgmt secrets generate`"))
    if settings.database.is_sqlite and not settings.database.allow_sqlite:
        problems.append(("database.url", "must be PostgreSQL in production, unless database.allow_sqlite is set"))
    if settings.server.workers > 1 and (reasons := "; ".join(_alone(settings))):
        problems.append(("server.workers", f"must be 1: {reasons}"))
    found = [SettingsProblem(key, settings.origins[key], message) for key, message in problems]
    return found + common_problems(settings)


def _alone(settings: Settings) -> Iterator[str]:
    """Why only one process may serve."""
    if settings.limits.enabled and not settings.valkey.url:
        yield "several workers count requests together only through valkey.url (or set limits.enabled = false)"
    if settings.database.is_sqlite:
        yield "a SQLite file has one writer, which is a process of its own"


def _tls_problems(server: ServerSettings) -> Iterator[str]:
    """Why connections cannot be encrypted with the files that are given."""
    if bool(server.tls_certificate) != bool(server.tls_key):
        yield "needs server.tls_key beside it, and the other way round"
    elif server.tls_certificate:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(server.tls_certificate, server.tls_key)
        except (OSError, ssl.SSLError) as error:
            yield f"and server.tls_key are no pair that can be used: {error.strerror or error}"


def _key_problems(keys: tuple[SecretStr, ...]) -> Iterator[str]:
    presented = [key.get_secret_value() for key in keys]
    for number, key in enumerate(presented, start=1):
        if len(key.encode()) < SHORTEST_KEY:
            yield f"key {number} is shorter than {SHORTEST_KEY} bytes"
        if _is_sample(key):
            yield f"key {number} is a known sample or repeats itself; use `usermgmt secrets generate`"
    for (first, one), (second, other) in combinations(enumerate(presented, start=1), 2):
        if one == other:
            yield f"keys {first} and {second} are the same"


def _is_sample(key: str) -> bool:
    """Whether the key is known from documentation or is one piece repeated, which no random key is."""
    plain = re.sub("[ _]", "-", key.strip().lower())
    is_repetition = plain in (plain + plain)[1:-1]
    return is_repetition or plain in SAMPLE_KEYS or any(mark in plain for mark in SAMPLE_MARKS)
