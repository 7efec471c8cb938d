"""What `usermgmt doctor` finds in the settings: what is wrong, what is risky, and who can read the secrets."""

import re
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from usermgmt.operator.console import counted
from usermgmt.operator.doctor_findings import Checklist, Finding, Severity, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation
from usermgmt.operator.startup import plugin_reasons
from usermgmt.settings import SECRET_FILE, Settings, declared_fields
from usermgmt.settings.problems import SHORTEST_KEY
from usermgmt.settings.sources import SettingsProblem
from usermgmt.settings.values import DatabaseUrl, masked_url

SHORTEST_PASSWORD = 8  # NIST SP 800-63B, section 5.1.1.1
SHORTEST_TOKEN = 16
MOST_GUESSES = 100
OTHERS = stat.S_IROTH | stat.S_IWOTH
ELSEWHERE = ("secret.keys", "server.workers")
"""Settings whose problems a check of their own tells."""

_NAMED_FILE = re.compile(r"file (.+) named by \S+")
_IN_CONFIG = re.compile(r"(.+) \[\w+\] \w+")

check = Checklist()


@check("settings.valid")
async def settings_are_valid(installation: Installation) -> AsyncIterator[Finding]:
    """Every setting is known, and has a value that the server starts with."""
    problems = [problem for problem in installation.problems if problem.key not in ELSEWHERE]
    for problem in problems:
        yield error(str(problem), "Correct it where it comes from; the server does not start with it.")
    if not problems:
        used = f"with {installation.config}" if installation.config.exists() else "without a settings file"
        mode = ", those of development mode" if installation.is_development else ""
        yield ok(f"Nothing is wrong with the settings ({used}{mode}).")


@check("settings.going")
async def settings_outlive_this_release(installation: Installation) -> AsyncIterator[Finding]:
    """No setting is given under a former name, and none is used that the next release no longer has."""
    farewells = installation.settings.farewells
    for farewell in farewells:
        yield warning(str(farewell), "Change it where it comes from, before the next release.")
    if not farewells:
        yield ok("Every setting is given under the name that it keeps.")


@check("settings.plugins")
async def plugins_can_be_served(installation: Installation) -> AsyncIterator[Finding]:
    """Every plugin can be imported, and obeys what it must."""
    reasons = plugin_reasons(installation.settings)
    for reason in reasons:
        yield error(str(reason), "Install or mend the plugin, or take it out of plugins.blueprints.")
    if not reasons:
        yield ok(f"{counted(len(installation.settings.plugins.blueprints), 'plugin')}.")


@check("settings.secret")
async def root_secret_is_strong(installation: Installation) -> AsyncIterator[Finding]:
    """The root secret is set, long, and none that others know."""
    problems = problems_of(installation, "secret.keys")
    for problem in problems:
        yield error(str(problem), "Make one with `usermgmt secrets generate` and set it in USERMGMT_SECRET_KEYS.")
    keys = installation.settings.secret.keys
    if len(keys) > 1:
        yield note(
            f"{counted(len(keys) - 1, 'older root secret')} can still be used.",
            "Take each away once nothing that was made with it is alive (tokens.session_lifetime after its successor).",
        )
    if keys and not problems:
        yield ok(f"The root secret has at least {SHORTEST_KEY} bytes and is no known sample.")


@dataclass(frozen=True, slots=True)
class Risk:
    """A value that may be meant, and what it means."""

    key: str
    is_taken: Callable[[Settings], bool]
    severity: Severity
    found: str
    mend: str


RISKS = (
    Risk(
        "limits.enabled",
        lambda all_: not all_.limits.enabled,
        Severity.WARNING,
        "is false: nothing bounds how much one caller asks for.",
        "Set it to true, and raise the budgets that are too small.",
    ),
    Risk(
        "throttle.enabled",
        lambda all_: not all_.throttle.enabled,
        Severity.ERROR,
        "is false: passwords can be guessed without end.",
        "Set it to true.",
    ),
    Risk(
        "throttle.account",
        lambda all_: all_.throttle.enabled and all_.throttle.account.count > MOST_GUESSES,
        Severity.WARNING,
        f"allows more than {MOST_GUESSES} guesses at one account.",
        "Ten in a quarter of an hour are usual: 10/15m.",
    ),
    Risk(
        "passwords.min_length",
        lambda all_: all_.passwords.min_length < SHORTEST_PASSWORD,
        Severity.WARNING,
        f"is below {SHORTEST_PASSWORD} characters.",
        f"Set it to {SHORTEST_PASSWORD} or more; passwords that exist are not affected.",
    ),
    Risk(
        "cors.origins",
        lambda all_: "*" in all_.cors.origins,
        Severity.WARNING,
        "is *: pages of every origin may call.",
        "List the origins of your own pages.",
    ),
    Risk(
        "docs.enabled",
        lambda all_: all_.docs.enabled,
        Severity.NOTE,
        "is true: anybody can read how the API works.",
        "Set it to false unless that is meant.",
    ),
    Risk(
        "registration.mode",
        lambda all_: all_.registration.mode == "open",
        Severity.NOTE,
        "is open: anybody can make an account.",
        "Set it to closed where administrators make the accounts.",
    ),
    Risk(
        "tokens.algorithm",
        lambda all_: all_.tokens.algorithm == "HS256",
        Severity.NOTE,
        "is HS256: nobody else can verify a token without being able to make one.",
        "ES256 and EdDSA publish a key that only verifies.",
    ),
    Risk(
        "metrics.token",
        lambda all_: 0 < len(all_.metrics.token.get_secret_value()) < SHORTEST_TOKEN,
        Severity.WARNING,
        f"is shorter than {SHORTEST_TOKEN} characters.",
        "Make a longer one with `usermgmt secrets generate`.",
    ),
    Risk(
        "logs.level",
        lambda all_: all_.logs.level not in ("debug", "info", "warning"),
        Severity.NOTE,
        "leaves warnings out of the log.",
        "Set it to info or warning.",
    ),
    Risk(
        "bootstrap.admin_password",
        lambda all_: bool(all_.bootstrap.admin_password.get_secret_value()),
        Severity.NOTE,
        "is still set; it is used only while there is no administrator.",
        "Take bootstrap.* away once the first administrator has signed in and changed the password.",
    ),
)
DEVELOPMENT = ("docs.enabled", "registration.mode")
"""What is meant in development mode."""


@check("settings.risks")
async def settings_are_not_risky(installation: Installation) -> AsyncIterator[Finding]:
    """No protection is switched off or weakened."""
    meant = DEVELOPMENT if installation.is_development else ()
    taken = [risk for risk in RISKS if risk.key not in meant and risk.is_taken(installation.settings)]
    for risk in taken:
        origin = installation.settings.origins[risk.key]
        yield Finding(risk.severity, f"{risk.key} {risk.found} ({origin})", risk.mend)
    if not taken:
        yield ok("No protection is switched off or weakened.")


@check("settings.files")
async def secrets_are_private(installation: Installation) -> AsyncIterator[Finding]:
    """Files with secrets can be read by their owner and its group only."""
    files = dict(secret_files(installation))
    told = False
    for path, keys in files.items():
        mode = mode_of(path)
        if mode is not None and mode & OTHERS and not _is_shut(path.resolve().parent):
            told = True
            verb = "changed" if mode & stat.S_IWOTH else "read"
            yield warning(
                f"{path}, which holds {', '.join(keys)}, can be {verb} by everybody on this machine (mode {mode:04o}).",
                f"chmod {mode & ~0o7:o} {path} (in a container: mount it with that mode).",
            )
    if not told:
        yield ok(f"{counted(len(files), 'file')} with secrets, readable by none but owner and group.")


def secret_files(installation: Installation) -> Iterator[tuple[Path, list[str]]]:
    """The files that secrets come from, each with the settings that it holds."""
    settings, found = installation.settings, dict[Path, list[str]]()
    for key, _ in declared_fields():
        section, _, name = key.partition(".")
        if is_secret(getattr(getattr(settings, section), name)):
            path = _file_of(settings.origins[key])
            if path is not None:
                found.setdefault(path, []).append(key)
    if installation.is_development:
        found.setdefault(settings.server.data_dir / SECRET_FILE, []).append("secret.keys")
    if settings.server.tls_key:
        found.setdefault(Path(settings.server.tls_key), []).append("server.tls_key")
    yield from found.items()


def is_secret(value: Any) -> bool:  # whatever a setting holds
    """Whether a setting holds a secret now: one that is marked so, or an address with a password."""
    match value:
        case SecretStr():
            return bool(value.get_secret_value())
        case tuple():
            return any(map(is_secret, value))
        case DatabaseUrl():
            return masked_url(value) != str(value)
    return False


def problems_of(installation: Installation, key: str) -> list[SettingsProblem]:
    """What is wrong with one setting."""
    return [problem for problem in installation.problems if problem.key == key]


def mode_of(path: Path) -> int | None:
    """The permissions of a file; None when it cannot be looked at."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _is_shut(folder: Path) -> bool:
    """Whether others cannot reach what is in a folder, whatever its mode."""
    mode = mode_of(folder)
    return mode is not None and not mode & stat.S_IXOTH


def _file_of(origin: str) -> Path | None:
    """The file that a value came from."""
    match = _NAMED_FILE.fullmatch(origin) or _IN_CONFIG.fullmatch(origin)
    return Path(match.group(1)) if match else None
