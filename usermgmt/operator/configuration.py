"""Which settings a command works with, and how what is wrong with them is told."""

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog

from usermgmt.operator.console import Console, Exit, Reason, Refusal
from usermgmt.settings import SECRET_FILE, Settings, load_settings
from usermgmt.settings.problems import production_problems
from usermgmt.settings.sources import SettingsError, SettingsProblem

SECRET_BYTES = 48

log = structlog.get_logger("usermgmt.start")


def new_secret() -> str:
    """A root secret that nobody has."""
    return secrets.token_urlsafe(SECRET_BYTES)


def operator_settings(console: Console, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings of the server that a command administers; refused with every problem at once.

    Where no secret is set but development mode left one in the data directory, development mode's settings.
    """
    try:
        settings = load_settings(config=console.config, flags=flags)
        if was_development(settings):
            settings = load_settings(config=console.config, flags=flags, development=True)
    except SettingsError as error:
        raise unusable(error.problems) from None
    tell_farewells(console, settings)
    return settings


def was_development(settings: Settings) -> bool:
    """Whether no secret is set, but development mode left one in the data directory: it is its installation then."""
    return not settings.secret.keys and os.path.exists(settings.server.data_dir / SECRET_FILE)  # noqa: PTH110 - never raises


def tell_farewells(console: Console, settings: Settings) -> None:
    """Warn of what the next release no longer understands."""
    for farewell in settings.farewells:
        console.note(f"Warning: {farewell}")


def log_farewells(settings: Settings) -> None:
    """Warn of what the next release no longer understands, in the log."""
    for farewell in settings.farewells:
        log.warning("setting_is_going", setting=farewell.key, reason=farewell.message, origin=farewell.origin)


def production_settings(
    flags: Mapping[str, object] | None = None, config: Path | None = None
) -> tuple[Settings | None, list[Reason]]:
    """The settings of all sources, as far as they can be used, and every reason not to start with them."""
    settings: Settings | None
    try:
        settings, problems = load_settings(flags=flags, config=config), []
    except SettingsError as error:
        settings = error.rest if isinstance(error.rest, Settings) else None
        problems = error.problems
    refused = {problem.key for problem in problems}
    more = production_problems(settings) if settings is not None else []
    return settings, [reason_of(problem) for problem in (*problems, *(p for p in more if p.key not in refused))]


def require_secret(settings: Settings) -> None:
    """Refuse to do without a root secret what needs one."""
    if not settings.secret.keys:
        raise unusable(
            [
                SettingsProblem(
                    "secret.keys",
                    settings.origins["secret.keys"],
                    "must be set, in USERMGMT_SECRET_KEYS or as a file named by USERMGMT_SECRET_KEYS_FILE"
                    f" (no {settings.server.data_dir / SECRET_FILE} here: for a first look run this where"
                    " `usermgmt serve --dev` ran, or set USERMGMT_SERVER__DATA_DIR to its data directory)",
                )
            ]
        )


def unusable(problems: Iterable[SettingsProblem]) -> Refusal:
    """The refusal that lists problems of settings."""
    return unfit(reason_of(problem) for problem in problems)


def unfit(reasons: Iterable[Reason]) -> Refusal:
    """The refusal that lists everything for which a server does not start."""
    found = list(reasons)
    count = "a problem" if len(found) == 1 else f"{len(found)} problems"
    return Refusal(f"The configuration has {count}:", reasons=found, code="configuration", exit_code=Exit.CONFIGURATION)


def reason_of(problem: SettingsProblem) -> Reason:
    """A problem of settings as one line."""
    return Reason(f"{problem.message} ({problem.origin})", problem.key)
