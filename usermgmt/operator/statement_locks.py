"""What a statement of a migration locks on PostgreSQL, and what work it does on the rows that are there.

After the PostgreSQL manual, 13.3 (Explicit Locking), ALTER TABLE and CREATE INDEX. A test runs every statement of every
migration and compares with `pg_locks`. What is not recognised here is unknown, and never taken for harmless.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Lock(IntEnum):
    """The locks of tables that migrations take, the stronger the greater."""

    ROW_EXCLUSIVE = 1
    SHARE_UPDATE_EXCLUSIVE = 2
    SHARE = 3
    SHARE_ROW_EXCLUSIVE = 4
    ACCESS_EXCLUSIVE = 5

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    @property
    def stops(self) -> str:
        """What others cannot do meanwhile."""
        if self is Lock.ACCESS_EXCLUSIVE:
            return "no reading, no writing"
        return "no writing" if self >= Lock.SHARE else "others go on"


class Work(StrEnum):
    """What is done to the rows of the table."""

    NONE = "none"
    COLUMN_DROPPED = "column dropped"  # PostgreSQL only notes it, SQLite writes the table anew
    SCAN = "scan"
    INDEX = "index"
    INDEX_CONCURRENTLY = "index concurrently"
    WRITE = "write"
    REWRITE = "rewrite"


@dataclass(frozen=True, slots=True)
class Effect:
    """The tables a statement locks, and what it does to the rows of `table`."""

    table: str
    locks: dict[str, Lock]
    work: Work = Work.NONE
    makes_table: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference: from which columns of which table, to which."""

    table: str
    columns: frozenset[str]
    referred: str


@dataclass(slots=True)
class Catalogue:
    """What statements that came before have made: dropping it locks tables that the statement does not name."""

    indexes: dict[str, str] = field(default_factory=dict)
    constraints: set[str] = field(default_factory=set)
    foreign_keys: dict[str, ForeignKey] = field(default_factory=dict)

    def learn(self, statements: Iterable[str]) -> None:
        """Remember what statements make."""
        for statement in statements:
            sql = _plain(statement)
            if match := _CREATE_INDEX.fullmatch(sql):
                self.indexes[match["index"]] = match["table"]
            if match := re.match(rf"(?:CREATE TABLE|ALTER TABLE) (?:ONLY )?({_NAME}) ", sql, re.IGNORECASE):
                self._learn_constraints(match[1], sql)

    def referred(self, table: str) -> set[str]:
        """The tables that a table refers to."""
        return {key.referred for key in self.foreign_keys.values() if key.table == table} - {table}

    def _learn_constraints(self, table: str, sql: str) -> None:
        for name in re.findall(rf"(?<!DROP )(?<!VALIDATE )CONSTRAINT ({_NAME})", sql):
            self.constraints.add(name)
        for name, columns, referred in re.findall(
            rf"CONSTRAINT ({_NAME}) FOREIGN KEY ?\(([^)]*)\) REFERENCES ({_NAME})", sql
        ):
            self.foreign_keys[name] = ForeignKey(table, frozenset(columns.split(", ")), referred)


def effect_of(statement: str, catalogue: Catalogue) -> Effect | None:
    """What a statement does, or None where that is not known."""
    sql = _plain(statement)
    if ";" in sql:  # several at once
        return None
    for pattern, rule in _RULES:
        if match := pattern.fullmatch(sql):
            return rule(match, catalogue)
    return None


def _create_table(match: re.Match[str], _: Catalogue) -> Effect | None:
    table = match["table"]
    if re.search(r"\)\s*INHERITS\b", match["body"], re.IGNORECASE):
        return None
    referred = set(re.findall(rf"REFERENCES ({_NAME})", match["body"])) - {table}
    return Effect(table, dict.fromkeys(referred, Lock.SHARE_ROW_EXCLUSIVE), makes_table=True)


def _create_index(match: re.Match[str], _: Catalogue) -> Effect:
    if match["concurrently"]:
        return Effect(match["table"], {match["table"]: Lock.SHARE_UPDATE_EXCLUSIVE}, Work.INDEX_CONCURRENTLY)
    return Effect(match["table"], {match["table"]: Lock.SHARE}, Work.INDEX)


def _drop_index(match: re.Match[str], catalogue: Catalogue) -> Effect | None:
    table = catalogue.indexes.get(match["index"])
    if table is None:
        return None
    return Effect(table, {table: Lock.SHARE_UPDATE_EXCLUSIVE if match["concurrently"] else Lock.ACCESS_EXCLUSIVE})


def _drop_table(match: re.Match[str], catalogue: Catalogue) -> Effect:
    table = match["table"]
    return Effect(table, dict.fromkeys([table, *catalogue.referred(table)], Lock.ACCESS_EXCLUSIVE))


def _add_column(match: re.Match[str], _: Catalogue) -> Effect | None:
    rest = match["rest"]
    if re.search(r"\b(UNIQUE|PRIMARY|CHECK|REFERENCES)\b", rest, re.IGNORECASE):
        return None
    default = re.search(r"\bDEFAULT (.+?)(?: NOT NULL| NULL)?$", rest, re.IGNORECASE)
    is_computed = re.search(r"\b(\w*SERIAL|GENERATED|IDENTITY)\b", rest, re.IGNORECASE)
    is_rewritten = is_computed or (default is not None and not _CONSTANT.fullmatch(default[1]))
    return Effect(match["table"], {match["table"]: Lock.ACCESS_EXCLUSIVE}, Work.REWRITE if is_rewritten else Work.NONE)


def _drop_column(match: re.Match[str], catalogue: Catalogue) -> Effect:
    table, column = match["table"], match["column"]
    keys = [key for key in catalogue.foreign_keys.values() if key.table == table and column in key.columns]
    return Effect(
        table, dict.fromkeys([table, *(key.referred for key in keys)], Lock.ACCESS_EXCLUSIVE), Work.COLUMN_DROPPED
    )


def _add_foreign_key(match: re.Match[str], _: Catalogue) -> Effect:
    locks = dict.fromkeys([match["table"], match["referred"]], Lock.SHARE_ROW_EXCLUSIVE)
    return Effect(match["table"], locks, Work.NONE if match["unchecked"] else Work.SCAN)


def _drop_constraint(match: re.Match[str], catalogue: Catalogue) -> Effect | None:
    if match["name"] not in catalogue.constraints:
        return None
    tables = [match["table"]]
    if key := catalogue.foreign_keys.get(match["name"]):
        tables.append(key.referred)
    return Effect(match["table"], dict.fromkeys(tables, Lock.ACCESS_EXCLUSIVE))


def _locks(lock: Lock, work: Work = Work.NONE) -> "Rule":
    """The rule of statements that lock the table they name and nothing else."""
    return lambda match, _: Effect(match["table"], {match["table"]: lock}, work)


def _add_check(match: re.Match[str], _: Catalogue) -> Effect:
    return Effect(
        match["table"],
        {match["table"]: Lock.ACCESS_EXCLUSIVE},
        Work.NONE if match["unchecked"] else Work.SCAN,
    )


Rule = Callable[[re.Match[str], Catalogue], Effect | None]

_NAME = r"[a-z_][a-z0-9_]*"
_ALTER = rf"ALTER TABLE (?:ONLY )?(?P<table>{_NAME})"
_ACCESS = _locks(Lock.ACCESS_EXCLUSIVE)
_NESTED = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_WORDS = rf"(?:[^(),]|{_NESTED})+"
_COLUMN = rf"{_ALTER} ALTER COLUMN {_NAME}"
_REFERENCE = rf"?\([^)]*\) REFERENCES (?P<referred>{_NAME}) ?\([^)]*\)(?: ON DELETE (?:CASCADE|RESTRICT|SET NULL))?"
_NOT_VALID = "(?P<unchecked> NOT VALID)?"
_CONSTANT = re.compile(
    r"'(?:[^']|'')*'(?:::[a-z ]+)?|-?[0-9.]+|true|false|null|now\(\)|current_timestamp", re.IGNORECASE
)  # what every row that is there has in common is noted once
_CREATE_INDEX = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX (?P<concurrently>CONCURRENTLY )?(?:IF NOT EXISTS )?(?P<index>{_NAME})"
    rf" ON (?P<table>{_NAME}) .+",
    re.IGNORECASE,
)
_PATTERNS: tuple[tuple[str, Rule], ...] = (
    (rf"CREATE TABLE (?:IF NOT EXISTS )?(?P<table>{_NAME}) \((?P<body>.*)\)", _create_table),
    (rf"DROP INDEX (?P<concurrently>CONCURRENTLY )?(?:IF EXISTS )?(?P<index>{_NAME})", _drop_index),
    (rf"DROP TABLE (?:IF EXISTS )?(?P<table>{_NAME})", _drop_table),
    (rf"{_ALTER} ADD COLUMN (?:IF NOT EXISTS )?{_NAME} (?P<rest>{_WORDS})", _add_column),
    (rf"{_ALTER} DROP COLUMN (?:IF EXISTS )?(?P<column>{_NAME})", _drop_column),
    (rf"{_COLUMN} SET NOT NULL", _locks(Lock.ACCESS_EXCLUSIVE, Work.SCAN)),
    (rf"{_COLUMN} DROP (?:NOT NULL|DEFAULT)", _ACCESS),
    (rf"{_COLUMN} SET DEFAULT {_WORDS}", _ACCESS),
    (rf"{_COLUMN} (?:SET DATA )?TYPE {_WORDS}", _locks(Lock.ACCESS_EXCLUSIVE, Work.REWRITE)),
    (rf"{_ALTER} RENAME (?:(?:COLUMN |CONSTRAINT )?{_NAME} )?TO {_NAME}", _ACCESS),
    (rf"{_ALTER} ADD CONSTRAINT {_NAME} CHECK {_NESTED}{_NOT_VALID}", _add_check),
    (rf"{_ALTER} ADD CONSTRAINT {_NAME} FOREIGN KEY {_REFERENCE}{_NOT_VALID}", _add_foreign_key),
    (rf"{_ALTER} ADD CONSTRAINT {_NAME} (?:UNIQUE|PRIMARY KEY) ?\([^)]*\)", _locks(Lock.ACCESS_EXCLUSIVE, Work.INDEX)),
    (rf"{_ALTER} DROP CONSTRAINT (?:IF EXISTS )?(?P<name>{_NAME})", _drop_constraint),
    (rf"{_ALTER} VALIDATE CONSTRAINT {_NAME}", _locks(Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN)),
    (rf"INSERT +INTO (?P<table>{_NAME}) \([^)]*\) VALUES .*", _locks(Lock.ROW_EXCLUSIVE)),  # noqa: S608 - a pattern
    (rf"UPDATE +(?P<table>{_NAME}) SET .*", _locks(Lock.ROW_EXCLUSIVE, Work.WRITE)),  # noqa: S608 - a pattern
    (rf"DELETE +FROM (?P<table>{_NAME})(?: WHERE .*)?", _locks(Lock.ROW_EXCLUSIVE, Work.WRITE)),
)
_RULES = [(_CREATE_INDEX, _create_index), *((re.compile(pattern, re.IGNORECASE), rule) for pattern, rule in _PATTERNS)]


def _plain(statement: str) -> str:
    """A statement on one line, without the quotes of names."""
    return " ".join(statement.replace('"', "").split()).removesuffix(";").rstrip()
