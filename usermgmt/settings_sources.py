"""How settings are written, and the layers they are collected from.

This module knows forms (`10m`, `20/m`, a list in one variable) and layers (flags, environment, files), not
which settings exist: `usermgmt.settings` tells it. No message repeats a value: any may be a misplaced secret.
"""

import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "USERMGMT_"
CONFIG_VARIABLE = "USERMGMT_CONFIG"
DEFAULT_CONFIG = Path("settings.toml")
FILE_SUFFIX = "_FILE"

Bound = TypeVar("Bound", int, timedelta)
Known = Mapping[str, Collection[str]]
"""Which keys each section has."""

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_COUNT = "[0-9]{1,8}"  # eight digits of days still fit into a timedelta
_SECONDS = re.compile(rf"{_COUNT}(?:\.[0-9]+)?")
_DURATION = re.compile(
    rf"(?:(?P<days>{_COUNT})d)?(?:(?P<hours>{_COUNT})h)?(?:(?P<minutes>{_COUNT})m)?"
    rf"(?:(?P<seconds>{_COUNT})s)?(?:(?P<milliseconds>{_COUNT})ms)?(?:(?P<microseconds>{_COUNT})us)?"
)
_BUDGET = re.compile(r"([0-9]{1,9})/([0-9]*[a-z][0-9a-z]*)")
_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@", re.DOTALL)
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:pass|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)
_SWITCH = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


class Duration(timedelta):
    """A timedelta that is written, and shown, as `500ms`, `10m`, `1h30m`, `30d`."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """The duration written in `text`, a plain number being seconds. Raises ValueError."""
        text = text.strip()
        if _SECONDS.fullmatch(text):
            return cls(seconds=float(text))
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            raise ValueError("must be a duration such as 500ms, 10s, 1h30m or 30d")
        return cls(**{unit: int(count) for unit, count in match.groupdict().items() if count})

    @classmethod
    def read(cls, written: object) -> "Duration":
        """The duration that any source gave: text, a number of seconds or a timedelta. Raises ValueError."""
        if isinstance(written, timedelta):
            return cls(written.days, written.seconds, written.microseconds)
        return cls.parse(str(written))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.read)

    def __str__(self) -> str:
        rest: timedelta = self
        parts = []
        for unit, length in _UNITS.items():
            count, rest = divmod(rest, length)
            parts.append(f"{count}{unit}" if count else "")
        return "".join(parts) or "0s"

    def __repr__(self) -> str:
        return f"Duration('{self}')"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `count` requests a `period`; written, and shown, as `20/m`, `5/s`, `20/10s`."""

    count: int
    period: Duration

    def __post_init__(self) -> None:
        if self.count < 1 or self.period <= timedelta(0):
            raise ValueError("must allow at least 1 request in a period longer than 0s")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """The budget written in `text`. Raises ValueError."""
        match = _BUDGET.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a budget such as 5/s, 20/10s, 20/m or 1000/h")
        count, period = match.groups()
        return cls(int(count), Duration.parse(period if period[0].isdigit() else f"1{period}"))

    @classmethod
    def read(cls, written: object) -> "Budget":
        """The budget that any source gave. Raises ValueError."""
        return written if isinstance(written, cls) else cls.parse(str(written))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.read)

    def __str__(self) -> str:
        return f"{self.count}/{re.sub('^1(?=[a-z]+$)', '', str(self.period))}"


class DatabaseUrl(str):
    """A database URL with its asynchronous driver; `repr` hides the password, `str` does not."""

    __slots__ = ()

    @classmethod
    def read(cls, written: object) -> "DatabaseUrl":
        """The URL that any source gave, with the driver made explicit. Raises ValueError."""
        scheme, _, rest = str(written).strip().partition("://")
        driver = _DRIVERS.get(scheme)
        if driver is None:
            raise ValueError("must start with postgresql://, postgresql+asyncpg://, sqlite:/// or sqlite+aiosqlite:///")
        if driver.startswith("sqlite") and (not rest.startswith("/") or not rest[1:]):
            raise ValueError("must name a file after three slashes, as in sqlite:///data/usermgmt.db")
        if not _is_url(f"{driver}://{rest}"):
            raise ValueError("must have the form postgresql://user:password@host:port/database")
        return cls(f"{driver}://{rest}")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.read)

    def __repr__(self) -> str:
        return repr(masked_url(self))


def _is_url(url: str) -> bool:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    return bool(parsed.host or parsed.database or "host" in parsed.query)


def masked_url(url: str) -> str:
    """`url` with `***` for every password in it: that of the user, and those among the query's parameters."""
    return _QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", url))


@dataclass(frozen=True, slots=True)
class Between(Generic[Bound]):
    """The range of a setting, both ends allowed; it is also what the documentation shows."""

    low: Bound
    high: Bound

    def check(self, value: Bound) -> Bound:
        """`value`, if it lies within. Raises ValueError."""
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self}")
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


def read_list(written: object) -> object:
    """The items of a list that is written as an array, as JSON, or separated by commas or line breaks.

    Raises ValueError if it is none of these. What the items are is for the field to check.
    """
    match written:
        case list() | tuple():
            return tuple(written)
        case str():
            return _items(written)
    raise ValueError("must be a list")


def _items(text: str) -> tuple[object, ...]:
    if not text.lstrip().startswith("["):
        return tuple(item.strip() for item in re.split("[,\n]", text) if item.strip())
    try:
        return tuple(json.loads(text))
    except ValueError:
        raise ValueError("starts like JSON, but is not a JSON array") from None


def read_switch(written: object) -> object:
    """A boolean, or the word or digit for one. Raises ValueError."""
    try:
        return _SWITCH[str(written).strip().lower()]
    except KeyError:
        raise ValueError("must be true or false (also 1/0, yes/no, on/off)") from None


def read_whole(written: object) -> object:
    """A whole number, or the decimal digits of one. Raises ValueError; a boolean or a fraction is none."""
    if not re.fullmatch("-?[0-9]{1,18}", str(written).strip()):
        raise ValueError("must be a whole number")
    return int(str(written))


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
    """The settings cannot be used; `problems` has every reason, `str` shows one a line and no secret."""

    def __init__(self, problems: Iterable[SettingsProblem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(slots=True)
class Layers:
    """What the sources say, added from the strongest to the weakest; keys are written `section.key`."""

    known: Known
    aliases: Mapping[str, str]
    """Further variables, and the variable that each stands for."""
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[SettingsProblem] = field(default_factory=list)

    def offer(self, key: str, value: object, *, origin: str) -> None:
        """Take `value`, unless a stronger layer has one. An unknown key is a problem."""
        section, _, name = key.partition(".")
        if name not in self.known.get(section, ()):
            self.refuse_unknown(key, origin, nearest_key(section, name, known=self.known))
        elif key not in self.values:
            self.values[key], self.origins[key] = value, origin

    def refuse(self, key: str, origin: str, *, message: str) -> None:
        """Note a problem."""
        self.problems.append(SettingsProblem(key, origin, message))

    def refuse_unknown(self, key: str, origin: str, meant: str | None) -> None:
        """Note that nothing is called so, and what was probably meant."""
        self.refuse(key, origin, message=f"unknown setting; did you mean {meant}?" if meant else "unknown setting")


def add_flags(layers: Layers, flags: Mapping[str, object]) -> None:
    """Add what the command line says; a flag that is None was not given."""
    for key, value in flags.items():
        if value is not None:
            layers.offer(key, value, origin=f"flag --{key.rpartition('.')[2].replace('_', '-')}")


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
            layers.offer(table[name], value, origin=f"environment {name}")
    for name, value in mine.items():
        if name in table and name.endswith(FILE_SUFFIX):
            origin = f"file {value} named by {name}"
            add_value_file(layers, table[name], path=Path(value), origin=origin, named_by=f"environment {name}")


def add_value_file(layers: Layers, key: str, *, path: Path, origin: str, named_by: str = "") -> None:
    """Add the content of a file without its trailing line break, unless a stronger layer has the key.

    A file that nothing named may be missing. A problem tells `named_by`, not the path, which may be a secret.
    """
    if key in layers.values:
        return
    try:
        layers.offer(key, read_text(path).rstrip("\r\n"), origin=origin)
    except ValueError as error:
        if named_by or not _is_missing(error):
            layers.refuse(key, named_by or origin, message=f"its file {error}")


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
    for section, content in document.items():
        origin = f"{path} [{section}]"
        if section in layers.known and not isinstance(content, dict):
            layers.refuse(section, str(path), message=f"must be a section, [{section}]")
        elif not isinstance(content, dict):
            layers.refuse_unknown(section, str(path), nearest_key("", section, known=layers.known))
        elif section not in layers.known:
            near = get_close_matches(section, layers.known, n=1)
            layers.refuse_unknown(section, origin, f"[{near[0]}]" if near else None)
        else:
            for key, value in content.items():
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
    """Every variable that may be set, and the key it belongs to."""
    table = {
        variable(f"{section}.{name}"): f"{section}.{name}" for section in layers.known for name in layers.known[section]
    }
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
