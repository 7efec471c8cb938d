"""How settings are read: from all their sources, once, with every problem at the same time."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from usermgmt.settings.going import clashes, farewells, former_names
from usermgmt.settings.sources import (
    Layers,
    SettingsError,
    SettingsProblem,
    add_config,
    add_environment,
    add_flags,
    add_value_file,
)
from usermgmt.settings.whole import SECTIONS, Settings, Sources, declared_fields

ALIASES = {
    "USERMGMT_SECRET_KEYS": "USERMGMT_SECRET__KEYS",
    "USERMGMT_SECRET_KEYS_FILE": "USERMGMT_SECRET__KEYS_FILE",
}
SECRET_FILE = "secret.key"  # noqa: S105 - the name of a file
"""Where development mode keeps its root secret, in `server.data_dir`."""
DEVELOPMENT: dict[str, object] = {
    "logs.format": "pretty",
    "docs.enabled": True,
    "database.allow_sqlite": True,
    "database.migrate": True,
}


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
    known = {name: list(kind.model_fields) for name, kind in SECTIONS.items()}
    layers = Layers(known, ALIASES, former_names(declared_fields()))
    add_flags(layers, flags or {})
    add_environment(layers, environ)
    add_config(layers, config, environ=environ)
    if development:
        _add_development(layers)
    layers.problems += clashes(layers)
    settings, problems = _validated(layers)
    if settings is None or problems:
        raise SettingsError(problems, rest=settings or _validated_rest(layers, problems))
    return settings


def _add_development(layers: Layers) -> None:
    origin = "development mode"
    for key, value in DEVELOPMENT.items():
        layers.offer(key, value, origin=origin)
    directory = Path(str(layers.values.get("server.data_dir", Settings().server.data_dir)))
    if directory.exists() and not directory.is_dir():
        place = layers.origins.get("server.data_dir", origin)
        layers.refuse("server.data_dir", place, message=f"{directory} is not a directory")
        return
    if "server.data_dir" in layers.values:
        layers.offer("database.url", f"sqlite+aiosqlite:///{directory / 'usermgmt.db'}", origin=origin)
    add_value_file(layers, "secret.keys", path=directory / SECRET_FILE, origin=origin)


def _validated(layers: Layers) -> tuple[Settings | None, list[SettingsProblem]]:
    """The settings, or None, and all problems; pydantic's own error ends here, as it carries the values."""
    written: dict[str, dict[str, object]] = {section: {} for section in layers.known}
    for key, value in layers.values.items():
        section, _, name = key.partition(".")
        written[section][name] = value
    try:
        context = Sources(layers.origins, tuple(farewells(layers, declared_fields())))
        return Settings.model_validate(written, context=context), layers.problems
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
