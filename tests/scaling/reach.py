"""Where a statement would run in the distributed database, read from SQLAlchemy's own objects, not from its text.

A distributed table is reached *by key* when its distribution column is equal to given values: only the nodes that have
these answer. Otherwise every node does: the statement fans out. What Citus refuses altogether is told apart.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Alias,
    BinaryExpression,
    BooleanClauseList,
    ColumnElement,
    CompoundSelect,
    Delete,
    FromClause,
    Insert,
    Join,
    Select,
    Subquery,
    Table,
    Update,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.expression import CTE, ClauseElement, ColumnClause, SelectBase
from sqlalchemy.sql.visitors import iterate

from tests.scaling.placement import PLACES, Distributed, Local, Place

SELF_MADE = re.compile(r"\b(random|gen_random_uuid|clock_timestamp|nextval)\b\s*\(", re.IGNORECASE)
ADVISORY = re.compile(r"\bpg_(try_)?advisory_", re.IGNORECASE)
ROW_PLACE = re.compile(r"\bctid\b", re.IGNORECASE)


@dataclass(slots=True)
class Reached:
    """What a statement reads and writes, which tables it asks every node for, and why Citus would refuse it."""

    tables: set[str] = field(default_factory=set)
    everywhere: set[str] = field(default_factory=set)
    written: str | None = None
    refusals: set[str] = field(default_factory=set)


def reach_of(statement: ClauseElement, text: str, places: Mapping[str, Place] = PLACES) -> Reached:
    """Where this statement runs; `text` is what the database is sent."""
    found = Reached()
    reader = _Reader(places, found)
    if isinstance(statement, Insert | Update | Delete):
        _read_change(statement, reader)
        if SELF_MADE.search(text):
            found.refusals.add("writes a value that the database makes up")
    else:
        reader.read(statement, outer={})
    if ROW_PLACE.search(text):
        found.refusals.add("finds rows by their place in the file (ctid)")
    if ADVISORY.search(text):
        found.refusals.add("takes an advisory lock, which only one node knows of")
    _check_families(found, places)
    return found


def text_refusals(text: str, places: Mapping[str, Place] = PLACES) -> set[str]:
    """What is wrong with a statement that is only text: nothing can be read from it, so it may name no table."""
    named = {name for name in places if re.search(rf"\b{name}\b", text)}
    refusals = {f"is mere text and names {', '.join(sorted(named))}"} if named else set[str]()
    if ADVISORY.search(text):
        refusals.add("takes an advisory lock, which only one node knows of")
    return refusals


def _check_families(found: Reached, places: Mapping[str, Place]) -> None:
    kinds = [places[name] for name in found.tables if name in places]
    families = {kind.family for kind in kinds if isinstance(kind, Distributed)}
    if len(families) > 1:
        found.refusals.add(f"joins {' with '.join(sorted(families))}, whose rows lie apart")
    if families and any(isinstance(kind, Local) for kind in kinds):
        found.refusals.add("joins a table of one node with distributed ones")
    if families and found.written is not None and not isinstance(places[found.written], Distributed):
        found.refusals.add(f"changes {found.written} by what is in distributed tables")


def _read_change(statement: Insert | Update | Delete, reader: "_Reader") -> None:
    table = statement.table
    assert isinstance(table, Table)
    place = reader.places.get(table.name)
    reader.found.written = table.name
    reader.found.tables.add(table.name)
    if isinstance(statement, Insert):
        _read_insert(statement, place, reader)
        return
    if isinstance(statement, Update) and isinstance(place, Distributed):
        values = statement._values or {}
        if place.column in {getattr(column, "key", column) for column in values}:
            reader.found.refusals.add(f"changes {table.name}.{place.column}, by which its rows are distributed")
    reader.read_scope([table], list(_parts(statement.whereclause)), outer={})


def _read_insert(statement: Insert, place: Place | None, reader: "_Reader") -> None:
    conflict = getattr(statement, "_post_values_clause", None)
    target = getattr(conflict, "inferred_target_elements", None)
    if isinstance(place, Distributed) and target is not None:
        columns = {getattr(each, "key", each) for each in target}
        if place.column not in columns:
            reader.found.refusals.add(f"ON CONFLICT without {statement.table.name}.{place.column}")
    if statement.select is not None:
        reader.read(statement.select, outer={})


class _Reader:
    """Reads a statement scope by scope."""

    def __init__(self, places: Mapping[str, Place], found: Reached) -> None:
        self.places = places
        self.found = found

    def read(self, statement: ClauseElement, *, outer: Mapping[str, FromClause]) -> None:
        """Read a SELECT, or what is made of several; `outer` are the tables it may be correlated with."""
        if isinstance(statement, CompoundSelect):
            for each in statement.selects:
                self.read(each, outer=outer)
        elif isinstance(statement, Select):
            self._read_select(statement, outer)
        else:
            for each in _selects_in(statement):
                self.read(each, outer=outer)

    def _read_select(self, statement: Select[Any], outer: Mapping[str, FromClause]) -> None:
        froms = statement.get_final_froms()
        own = [each for each in froms if _name(each) not in outer] or froms  # as SQLAlchemy correlates by itself
        parts = list(_parts(statement.whereclause))
        before = set(self.found.everywhere)
        scope = self.read_scope(own, parts, outer=outer)
        if statement._for_update_arg is not None and self.found.everywhere - before:
            self.found.refusals.add("FOR UPDATE without the key")
        for column in statement.exported_columns:
            self._read_inner(column, scope, outer)
        for column in statement._order_by_clauses:
            self._read_inner(column, scope, outer)

    def read_scope(
        self, froms: Iterable[FromClause], parts: list[ClauseElement], *, outer: Mapping[str, FromClause]
    ) -> dict[str, FromClause]:
        """Read one FROM and its conditions; what the FROM has, by name."""
        scope: dict[str, FromClause] = {}
        shared, optional = list(parts), dict[str, list[ClauseElement]]()
        for each in froms:
            for table, conditions, is_optional in _joined(each):
                scope[_name(table)] = table
                if is_optional:
                    optional[_name(table)] = conditions
                else:
                    shared += conditions
        for table in scope.values():
            if isinstance(table, Subquery | CTE | Alias) and isinstance(table.element, SelectBase):
                self.read(table.element, outer={})
        self._note_tables(scope, shared, optional)
        for part in [*shared, *(part for conditions in optional.values() for part in conditions)]:
            self._read_inner(part, scope, outer)
        return scope

    def _note_tables(
        self, scope: Mapping[str, FromClause], shared: list[ClauseElement], optional: Mapping[str, list[ClauseElement]]
    ) -> None:
        keyed = _keyed(scope, shared, self._key_column)
        for name, table in scope.items():
            base = _base(table)
            if base is None or base.name not in self.places:
                continue
            self.found.tables.add(base.name)
            if not isinstance(self.places[base.name], Distributed):
                continue
            is_keyed = name in keyed
            if name in optional:  # what a LEFT JOIN adds is found by conditions on itself alone
                is_keyed = name in _keyed({name: table}, [*optional[name], *shared], self._key_column)
            if not is_keyed:
                self.found.everywhere.add(base.name)

    def _key_column(self, table: FromClause) -> str | None:
        base = _base(table)
        place = self.places.get(base.name) if base is not None else None
        return place.column if isinstance(place, Distributed) else None

    def _read_inner(
        self, part: ClauseElement, scope: Mapping[str, FromClause], outer: Mapping[str, FromClause]
    ) -> None:
        """Read the SELECTs inside a condition or a column."""
        around = {**outer, **scope}
        for inner in _selects_in(part):
            known = set(self.found.tables)
            self.found.tables.clear()
            self.read(inner, outer=around)
            reads_distributed = any(isinstance(self.places[name], Distributed) for name in self.found.tables)
            self.found.tables |= known
            made = {name for name, table in scope.items() if isinstance(table, Subquery | CTE)}
            if made and reads_distributed and made & _names_in(inner):
                self.found.refusals.add("correlated subquery over a FROM that is a subquery itself")


def _joined(source: FromClause) -> Iterator[tuple[FromClause, list[ClauseElement], bool]]:
    """The tables of a FROM with the conditions that join them, and whether a row of theirs may be missing."""
    if not isinstance(source, Join):
        yield source, [], False
        return
    yield from _joined(source.left)
    for table, conditions, is_optional in _joined(source.right):
        yield table, [*conditions, *_parts(source.onclause)], is_optional or source.isouter


def _keyed(scope: Mapping[str, FromClause], parts: Iterable[ClauseElement], key_column: Any) -> set[str]:
    """The tables whose distribution column is equal to given values, or to that of a table where it is."""
    keyed, links = set[str](), list[set[str]]()
    for part in parts:
        if not isinstance(part, BinaryExpression) or part.operator not in (operators.eq, operators.in_op):
            continue
        sides = [_key_of(side, scope, key_column) for side in (part.left, part.right)]
        named = {side for side in sides if side is not None}
        if len(named) == 2 and part.operator is operators.eq:
            links.append(named)
        elif len(named) == 1 and _is_given(part.right if sides[0] is not None else part.left):
            keyed |= named
    while grown := {name for link in links if link & keyed for name in link} - keyed:
        keyed |= grown
    return keyed


def _key_of(side: ClauseElement, scope: Mapping[str, FromClause], key_column: Any) -> str | None:
    """The table in this scope whose distribution column this is."""
    table = getattr(side, "table", None)
    if not isinstance(side, ColumnClause) or table is None or _name(table) not in scope:
        return None
    return _name(table) if side.name == key_column(table) else None


def _is_given(side: ClauseElement) -> bool:
    """Whether the caller gives the value: neither a column nor a SELECT is in it."""
    return not any(isinstance(each, ColumnClause | SelectBase) for each in iterate(side))


def _parts(condition: ColumnElement[bool] | None) -> Iterator[ClauseElement]:
    """The conditions that must all hold."""
    if condition is None:
        return
    if isinstance(condition, Grouping):
        yield from _parts(condition.element)
    elif isinstance(condition, BooleanClauseList) and condition.operator is operators.and_:
        for each in condition.clauses:
            yield from _parts(each)
    else:
        yield condition


def _selects_in(part: ClauseElement) -> Iterator[SelectBase]:
    """The outermost SELECTs in an expression."""
    if isinstance(part, Select | CompoundSelect):
        yield part
    elif not isinstance(part, FromClause):
        for child in part.get_children():
            yield from _selects_in(child)


def _names_in(part: ClauseElement) -> set[str]:
    """The tables whose columns are named in a statement."""
    tables = (getattr(each, "table", None) for each in iterate(part) if isinstance(each, ColumnClause))
    return {_name(table) for table in tables if table is not None}


def _base(source: FromClause) -> Table | None:
    element = source.element if isinstance(source, Alias) else source
    return element if isinstance(element, Table) else None


def _name(source: FromClause) -> str:
    name: str = getattr(source, "name", "") or str(id(source))
    return name
