"""Settings told to people: what is in force and why, and the documented file."""

import json
from dataclasses import dataclass
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from usermgmt.settings.going import Formerly, Leaving
from usermgmt.settings.kinds import Section
from usermgmt.settings.sources import variable
from usermgmt.settings.values import Between, DatabaseUrl, masked_url
from usermgmt.settings.whole import SECTIONS, Settings, declared_fields

_HEADER = """\
# The settings of usermgmt, all of them, each with its default. Nothing is set until a line loses its "# ".
# Stronger than this file, strongest first: flags, USERMGMT_SECTION__KEY, USERMGMT_SECTION__KEY_FILE (the path
# of a file with the value). Durations: 500ms, 10s, 10m, 1h30m, 30d; a plain number is seconds.
"""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as `config show` prints it; a secret is never in `value_shown`."""

    key: str
    value_shown: str
    origin: str
    description: str
    is_secret: bool


def describe(settings: Settings) -> list[SettingRow]:
    """Every setting, in the order of settings.toml."""
    return [_row(settings, key, declared=declared) for key, declared in declared_fields()]


def _row(settings: Settings, key: str, *, declared: FieldInfo) -> SettingRow:
    section, _, name = key.partition(".")
    value = getattr(getattr(settings, section), name)
    is_secret = _is_secret(declared)
    shown = ("(hidden)" if value else "(not set)") if is_secret else _shown(value)
    return SettingRow(key, shown, settings.origins[key], _documented(declared), is_secret)


def _is_secret(declared: FieldInfo) -> bool:
    return SecretStr in (declared.annotation, *get_args(declared.annotation))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return masked_url(value) if isinstance(value, DatabaseUrl) else str(value)


def _documented(declared: FieldInfo) -> str:
    """The description, with the range or the choices that the type knows, and what is going of it."""
    ranges = [f" From {limit}." for limit in declared.metadata if isinstance(limit, Between)]
    is_choice = get_origin(declared.annotation) is Literal
    choices = [f" One of {', '.join(get_args(declared.annotation))}."] if is_choice else []
    going = [f" {mark}" for mark in declared.metadata if isinstance(mark, Formerly | Leaving)]
    return "".join([declared.description or "", *ranges, *choices, *going])


def render_default_toml() -> str:
    """The whole settings.toml: every key described, every default in a comment, so that nothing is set."""
    return "\n".join([_HEADER, *(_section_toml(name, kind) for name, kind in SECTIONS.items())])


def _section_toml(section: str, kind: type[Section]) -> str:
    keys = (_key_toml(f"{section}.{name}", declared) for name, declared in kind.model_fields.items())
    return "\n".join([f"# {kind.__doc__}", f"[{section}]", *keys])


def _key_toml(key: str, declared: FieldInfo) -> str:
    name = key.rpartition(".")[2]
    if _is_secret(declared):
        place = f"Not kept here: set {variable(key)}, or {variable(key)}_FILE to the path of a file with it."
        return f"# {name}: {_documented(declared)}\n# {place}\n"
    return f"# {_documented(declared)}\n# {name} = {_toml(declared.default)}\n"


def _toml(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value))
