"""The statements of the list of accounts. Each is made once for a shape (which filters, which order) and kept: values
are bound when it is run. Limits are part of the text, so that a plan made once for all values still knows them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from usermgmt.groups.models import GroupMember
from usermgmt.groups.reach import held_groups
from usermgmt.permissions import EVERYTHING
from usermgmt.roles.held import held_roles
from usermgmt.roles.models import RoleGrant
from usermgmt.users.models import User
from usermgmt.users.rows import COLUMNS

Source = Select[Any] | CompoundSelect[Any]
Test = Callable[[Any], ColumnElement[bool]]  # of the table's columns, or of a subquery's

SHAPES = 512
ELSEWHERE = "elsewhere"
STRETCH = "stretch"
COUNT = "count"
ALONG_EVERY_ORDER = frozenset({"status"})
TIMES = frozenset({"created_after", "created_before"})
NAMES = ("email_key", "username_key")
SEARCHED = ("username_key", "email_key", "display_name_key")

_LOOKED_AT = tuple(getattr(User, name) for name in (*COLUMNS, "display_name_key", "deleted_at"))

_STRETCH = bindparam(STRETCH, type_=Integer, literal_execute=True)
_COUNT = bindparam(COUNT, type_=Integer, literal_execute=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a list that makes another statement: the names of its filters, its order, whether it begins somewhere."""

    given: frozenset[str]
    column: str
    is_descending: bool
    is_from: bool
    is_sqlite: bool

    @property
    def rest(self) -> frozenset[str]:
        """The filters that an index in this order does not have."""
        along = ALONG_EVERY_ORDER | TIMES if self.column == "created_at" else ALONG_EVERY_ORDER
        return self.given - along - {_within(self.column)}

    @property
    def sources(self) -> tuple[str, ...]:
        """The filters that have an index of their own, in any other order."""
        return tuple(sorted({"created" if name in TIMES else name for name in self.rest}))

    @property
    def is_search(self) -> bool:
        """Whether it is a search, and nothing else, in the order of a column that is searched."""
        return self.rest == {"prefix"} and self.column in SEARCHED

    def within(self) -> "Shape":
        """The list of those whose prefix is in the column that it is ordered by."""
        return replace(self, given=self.given - {"prefix"} | {_within(self.column)})


def _within(column: str) -> str:
    return f"{column}_within"


# What is asked of one account; what there is an index to find its accounts by


def _starts(row: Any, column: str) -> ColumnElement[bool]:
    """A prefix as a range; `%` and `_` mean themselves."""
    within: ColumnElement[bool] = getattr(row, column).between(
        bindparam("prefix", type_=String), bindparam("prefix_end", type_=String)
    )
    return within


def _has(found: Select[Any]) -> ColumnElement[bool]:
    """Whether there is a row. Not EXISTS: that may be answered by reading every row of the other table first."""
    return found.limit(literal_column("1")).scalar_subquery().is_not(None)


_HELD = (RoleGrant.role == bindparam("role"), RoleGrant.scope == EVERYTHING)
_IN_GROUP = GroupMember.group_id == bindparam("group")
_IN_REACH = GroupMember.group_id.in_(bindparam("reach", expanding=True))
_OWN = bindparam("own", type_=Uuid())
_PRESENT = User.deleted_at.is_(None)

_TESTS: Mapping[str, Test] = {
    "prefix": lambda row: or_(*(_starts(row, column) for column in SEARCHED)),
    **{_within(column): partial(_starts, column=column) for column in SEARCHED},
    "email_key": lambda row: row.email_key == bindparam("email_key"),
    "username_key": lambda row: row.username_key == bindparam("username_key"),
    "status": lambda row: row.status == bindparam("status"),
    "created_after": lambda row: row.created_at > bindparam("created_after"),
    "created_before": lambda row: row.created_at < bindparam("created_before"),
    "role": lambda row: _has(select(RoleGrant.user_id).where(RoleGrant.user_id == row.id, *_HELD)),
    "group": lambda row: _has(select(GroupMember.user_id).where(GroupMember.user_id == row.id, _IN_GROUP)),
    "reach": lambda row: or_(
        row.id == _OWN, _has(select(GroupMember.user_id).where(GroupMember.user_id == row.id, _IN_REACH))
    ),
}
_SOURCES: Mapping[str, Source] = {
    "prefix": union_all(*(select(User.id).where(_PRESENT, _starts(User, column)) for column in SEARCHED)),
    "email_key": select(User.id).where(_PRESENT, _TESTS["email_key"](User)),
    "username_key": select(User.id).where(_PRESENT, _TESTS["username_key"](User)),
    "role": select(RoleGrant.user_id).where(*_HELD),
    "group": select(GroupMember.user_id).where(_IN_GROUP),
    "reach": union_all(select(GroupMember.user_id).where(_IN_REACH), select(User.id).where(User.id == _OWN)),
}
_JOINED: Mapping[str, ColumnElement[bool]] = {
    "role": User.id.in_(_SOURCES["role"]),
    "group": User.id.in_(_SOURCES["group"]),
    "reach": or_(User.id == _OWN, User.id.in_(select(GroupMember.user_id).where(_IN_REACH))),
}


@lru_cache(SHAPES)
def walk(shape: Shape) -> Select[Any]:
    """Up to `count` accounts, found along the order; where that leaves filters to test, within `stretch` rows."""
    if not shape.rest:
        return _shown(_along(shape).limit(_COUNT))
    stretch = _along(shape).limit(_STRETCH).subquery()
    found = select(stretch).where(*_tests(stretch.c, shape.rest)).limit(_COUNT)
    # SQLite keeps the order of what it only tests; told to, it would read the whole stretch to sort what is sorted
    return _shown(found if shape.is_sqlite else _ordered(found, stretch.c, shape))


@lru_cache(SHAPES)
def straight(shape: Shape) -> Select[Any]:
    """Up to `count` accounts in order, by one condition a filter: the form that a distributed database takes.

    Every node walks or sorts its own part of it. Nothing bounds how much that is where no index has all filters.
    """
    joined = shape.given & set(_JOINED)
    found = select(*(getattr(User, name) for name in COLUMNS), held_roles(User.id), held_groups(User.id)).where(
        _PRESENT,
        *_tests(User, shape.given - joined),
        *(_JOINED[name] for name in sorted(joined)),
        *_beyond(User, shape),
    )
    return _ordered(found, User, shape).limit(_COUNT)


@lru_cache(SHAPES)
def walk_end(shape: Shape) -> Select[Any]:
    """A row if the order goes on after `stretch` rows."""
    return _along(shape, User.id).limit(literal_column("1")).offset(_STRETCH)


@lru_cache(SHAPES)
def gather(shape: Shape, source: str, *, is_bounded: bool) -> Select[Any]:
    """Up to `count` accounts, found by one filter (at most `stretch` if bounded) and then sorted."""
    ids = _source(shape, source)
    stretch = select(*_LOOKED_AT).where(User.id.in_(ids.limit(_STRETCH) if is_bounded else ids))
    # a limit keeps the conditions outside from choosing another index than the filter's
    fenced = (stretch.limit(_STRETCH) if is_bounded else stretch.offset(literal_column("0"))).subquery()
    left = shape.given - {"created": TIMES, ELSEWHERE: {"prefix"}}.get(source, {source})
    found = select(fenced).where(fenced.c.deleted_at.is_(None), *_tests(fenced.c, left), *_beyond(fenced.c, shape))
    return _shown(_ordered(found, fenced.c, shape).limit(_COUNT))


@lru_cache(SHAPES)
def sizes(shape: Shape, sources: tuple[str, ...]) -> Select[Any]:
    """How many accounts each source has, counted up to `stretch`."""
    bounded = (_source(shape, name).limit(_STRETCH).subquery() for name in sources)
    return select(*(select(func.count()).select_from(each).scalar_subquery() for each in bounded))


@lru_cache(SHAPES)
def fitting(given: frozenset[str]) -> Select[Any]:
    """The id of each account that fits the filters."""
    joined = given & {"role", "group", "reach"}
    found = select(User.id).where(_PRESENT, *_tests(User, given - joined))
    return found.where(*(User.id.in_(_SOURCES[name]) for name in sorted(joined)))


@lru_cache(SHAPES)
def sample(given: frozenset[str]) -> Select[Any]:
    """How many accounts the first `stretch` rows hold, how many of these fit, and about how many rows there are.

    SQLite only: it has no statistics, but numbers its rows.
    """
    rows = select(*_LOOKED_AT).where(_PRESENT).limit(_STRETCH).subquery()
    fits = case((and_(true(), *_tests(rows.c, given)), 1), else_=0)
    last = select(func.max(literal_column("rowid"))).select_from(User).scalar_subquery()
    return select(func.count(), func.coalesce(func.sum(fits), 0), func.coalesce(last, 0)).select_from(rows)


def _source(shape: Shape, name: str) -> Source:
    """The ids of the accounts that a filter leaves; `elsewhere`: of those with the prefix in other columns alone."""
    if name == "created":
        return select(User.id).where(_PRESENT, *_tests(User, shape.given & TIMES))
    if name != ELSEWHERE:
        return _SOURCES[name]
    missed = (_PRESENT, not_(_starts(User, shape.column)), *_beyond(User, shape))
    others = (column for column in SEARCHED if column != shape.column)
    return union_all(*(select(User.id).where(_starts(User, column), *missed) for column in others))


def _along(shape: Shape, *columns: Any) -> Select[Any]:
    """The accounts in their order, from the position on, by the filters that the order's index has."""
    found = select(*(columns or _LOOKED_AT)).where(_PRESENT, *_tests(User, shape.given - shape.rest))
    return _ordered(found.where(*_beyond(User, shape)), User, shape)


def _tests(row: Any, names: Iterable[str]) -> list[ColumnElement[bool]]:
    return [_TESTS[name](row) for name in sorted(names)]


def _beyond(row: Any, shape: Shape) -> list[ColumnElement[bool]]:
    """That a row comes after the position. As a row value, which an index on both columns answers."""
    if not shape.is_from:
        return []
    column = getattr(row, shape.column)
    here: ColumnElement[Any] = tuple_(column, row.id)
    there = tuple_(bindparam("from_value", type_=column.type), bindparam("from_id", type_=Uuid()))
    return [here < there if shape.is_descending else here > there]


def _ordered(statement: Select[Any], row: Any, shape: Shape) -> Select[Any]:
    columns = (getattr(row, shape.column), row.id)
    return statement.order_by(*(column.desc() if shape.is_descending else column.asc() for column in columns))


def _shown(found: Select[Any]) -> Select[Any]:
    """The accounts found, with their roles and groups, in whatever order."""
    row = found.subquery().c
    return select(*(row[name] for name in COLUMNS), held_roles(row.id), held_groups(row.id))
