"""The layers that settings are collected from: flags, environment, files.

This module does not know which settings exist: `usermgmt.settings` tells it. No message repeats a value: any may be a
misplaced secret.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

PREFIX = "USERMGMT_"
CONFIG_VARIABLE = "USERMGMT_CONFIG"
DEFAULT_CONFIG = Path("settings.toml")
FILE_SUFFIX = "_FILE"

Known = Mapping[str, Collection[str]]
"""Which keys each section has."""


@dataclass(frozen=True, slots=True)
class SettingsProblem:
    """One thing wrong: the key (empty for a whole file), where its value came from, a sentence."""

    key: str
    origin: str
    message: str

    def __str__(self) -> str:
        line = f"{self.key}: {self.message} ({self.origin})" if self.key else f"{self.message} ({self.origin})"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class SettingsError(Exception):
    """The settings cannot be used; `problems` has every reason, `str` shows one a line and no secret.

    `rest` are the settings (`usermgmt.settings.Settings`) that the sources make without what has a problem, so that
    all else that is wrong with them can be told at the same time.
    """

    def __init__(self, problems: Iterable[SettingsProblem], *, rest: object = None) -> None:
        self.problems = list(problems)
        self.rest = rest
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(slots=True)
class Layers:
    """What the sources say, added from the strongest to the weakest; keys are written `section.key`."""

    known: Known
    aliases: Mapping[str, str]
    """Further variables, and the variable that each stands for."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Names that keys had before, and the key that each stands for."""
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[SettingsProblem] = field(default_factory=list)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    """Under which names the environment and the file give each key, and where the strongest of them does."""

    def offer(self, name: str, value: object, *, origin: str) -> None:
        """Take `value`, unless a stronger layer has one. An unknown name is a problem."""
        key = self.key_of(name)
        section, _, last = key.partition(".")
        if last not in self.known.get(section, ()):
            self.refuse_unknown(key, origin, nearest_key(section, last, known=self.known))
        elif key not in self.values:
            self.values[key], self.origins[key] = value, origin

    def key_of(self, name: str) -> str:
        """The key that a name stands for: itself, unless it is a former one."""
        return self.former.get(name, name)

    def note_name(self, name: str, origin: str) -> None:
        """Note that somebody wrote this name, whether or not its value is the one that counts."""
        self.names.setdefault(self.key_of(name), {}).setdefault(name, origin)

    def refuse(self, key: str, origin: str, *, message: str) -> None:
        """Note a problem."""
        self.problems.append(SettingsProblem(key, origin, message))

    def refuse_unknown(self, key: str, origin: str, meant: str | None) -> None:
        """Note that nothing is called so, and what was probably meant."""
        self.refuse(key, origin, message=f"unknown setting; did you mean {meant}?" if meant else "unknown setting")


def add_flags(layers: Layers, flags: Mapping[str, object]) -> None:
    """Add what the command line says; a flag that is None was not given."""
    for name, value in flags.items():
        if value is not None:
            origin = f"flag --{name.rpartition('.')[2].replace('_', '-')}"
            if name in layers.former:
                layers.note_name(name, origin)
            layers.offer(name, value, origin=origin)


def add_environment(layers: Layers, environ: Mapping[str, str]) -> None:
    """Add the variables that hold a value, then those that name a file with it; refuse all others of ours."""
    table = _variables(layers)
    mine = {name: value for name, value in sorted(environ.items()) if name.startswith(PREFIX)}
    for name in mine:
        if name not in table and name != CONFIG_VARIABLE:
            _refuse_variable(layers, name, table)
    for alias, name in layers.aliases.items():
        if alias in mine and name in mine:
            layers.refuse(table[name], f"environment {alias}", message=f"set {alias} or {name}, not both")
    for name, value in mine.items():
        if name in table and not name.endswith(FILE_SUFFIX):
            layers.note_name(table[name], f"environment {name}")
            layers.offer(table[name], value, origin=f"environment {name}")
    for name, value in mine.items():
        if name in table and name.endswith(FILE_SUFFIX):
            layers.note_name(table[name], f"environment {name}")
            origin = f"file {value} named by {name}"
            add_value_file(layers, table[name], path=Path(value), origin=origin, named_by=f"environment {name}")


def add_value_file(layers: Layers, name: str, *, path: Path, origin: str, named_by: str = "") -> None:
    """Add the content of a file without its trailing line break, unless a stronger layer has the key.

    A file that nothing named may be missing. A problem tells `named_by`, not the path, which may be a secret.
    """
    if layers.key_of(name) in layers.values:
        return
    try:
        layers.offer(name, read_text(path).rstrip("\r\n"), origin=origin)
    except ValueError as error:
        if named_by or not _is_missing(error):
            layers.refuse(layers.key_of(name), named_by or origin, message=f"its file {error}")


def add_config(layers: Layers, config: Path | None, *, environ: Mapping[str, str]) -> None:
    """Add the TOML file: `config`, else the one USERMGMT_CONFIG names, else ./settings.toml if it exists."""
    named = environ.get(CONFIG_VARIABLE, "")
    path = config or Path(named or DEFAULT_CONFIG)
    origin = "flag --config" if config else f"environment {CONFIG_VARIABLE}" if named else "working directory"
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        layers.refuse("", str(path), message=f"not valid TOML: {error}")
    except ValueError as error:
        if config or named or not _is_missing(error):
            layers.refuse("", origin, message=f"{path} {error}")
    else:
        _add_document(layers, document, path=path)


def _add_document(layers: Layers, document: Mapping[str, object], *, path: Path) -> None:
    sections = {*layers.known, *(name.partition(".")[0] for name in layers.former)}
    for section, content in document.items():
        origin = f"{path} [{section}]"
        if section in sections and not isinstance(content, dict):
            layers.refuse(section, str(path), message=f"must be a section, [{section}]")
        elif not isinstance(content, dict):
            layers.refuse_unknown(section, str(path), nearest_key("", section, known=layers.known))
        elif section not in sections:
            near = get_close_matches(section, layers.known, n=1)
            layers.refuse_unknown(section, origin, f"[{near[0]}]" if near else None)
        else:
            for key, value in content.items():
                layers.note_name(f"{section}.{key}", f"{origin} {key}")
                layers.offer(f"{section}.{key}", value, origin=f"{origin} {key}")


def read_text(path: Path) -> str:
    """The text of a file. Raises ValueError that says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("cannot be read: it is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _is_missing(error: ValueError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def variable(key: str) -> str:
    """The environment variable of `section.key`."""
    return PREFIX + key.replace(".", "__").upper()


def nearest_key(section: str, name: str, *, known: Known) -> str | None:
    """The known `section.key` that was probably meant: spelled alike, or of that name in another section."""
    near = get_close_matches(section, known, n=1)
    alike = get_close_matches(name, known[near[0]], n=1) if near else []
    if alike:
        return f"{near[0]}.{alike[0]}"
    return next((f"{other}.{name}" for other in known if name in known[other]), None)


def _variables(layers: Layers) -> dict[str, str]:
    """Every variable that may be set, and the name it stands for."""
    keys = [f"{section}.{name}" for section in layers.known for name in layers.known[section]]
    table = {variable(name): name for name in (*keys, *layers.former)}
    table |= {name + FILE_SUFFIX: key for name, key in table.items()}
    return table | {alias: table[name] for alias, name in layers.aliases.items()}


def _refuse_variable(layers: Layers, name: str, table: Mapping[str, str]) -> None:
    plain = name.removesuffix(FILE_SUFFIX)
    section, _, key = plain.removeprefix(PREFIX).lower().partition("__")
    meant = nearest_key(section if key else "", key or section, known=layers.known)
    alike = get_close_matches(name, [*table, CONFIG_VARIABLE], n=1, cutoff=0.85)
    near = [variable(meant) + name[len(plain) :]] if meant else alike
    shown = f"{section}.{key}" if key else name
    layers.refuse_unknown(shown, f"environment {name}", near[0] if near else None)
