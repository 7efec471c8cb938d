"""How settings are written: `10m`, `20/m`, a database's address, a list in one variable.

No message repeats a value: any may be a misplaced secret.
"""

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

Bound = TypeVar("Bound", int, float, timedelta)

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


class ReplicaUrl(DatabaseUrl):
    """The URL of a streaming replica, or nothing."""

    __slots__ = ()

    @classmethod
    def read(cls, written: object) -> "ReplicaUrl":
        """The URL that any source gave, empty for none. Raises ValueError."""
        if not str(written).strip():
            return cls("")
        url = super().read(written)
        if not url.startswith("postgresql"):
            raise ValueError("must be a PostgreSQL server; SQLite has no replicas")
        return cls(url)


def _is_url(url: str) -> bool:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return False
    return bool(parsed.host or parsed.database or "host" in parsed.query)


def file_of(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(make_url(url).database or "")


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


def read_share(written: object) -> object:
    """A number with or without decimals. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", str(written).strip()):
        raise ValueError("must be a number such as 0.1 or 1")
    return float(str(written))
