"""The list of accounts: its filters, its orders, its pages, its count.

Most lists are one stretch of an index. The others cannot be: no index has every filter in every order, and how many
accounts a filter leaves is not known beforehand. Such a page is looked for along the order, a stretch of rows long;
then, when few accounts fit one of the filters, among these; then along a longer stretch; at last among all that fit
one filter. Only the last has no bound. `docs/decisions/0023-lists-at-a-million.md` has plans and times.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.permissions import EVERYONE, Reach
from usermgmt.storage.explain import estimate_rows
from usermgmt.storage.pages import Position
from usermgmt.storage.rows import Rows
from usermgmt.storage.wanted import DISTRIBUTED, kind_of
from usermgmt.users import list_statements as statements
from usermgmt.users.list_statements import COUNT, ELSEWHERE, NAMES, STRETCH, Shape
from usermgmt.users.models import Status
from usermgmt.users.rows import AccountRow, account_row

NEAR = 1_000
FEW = 5_000
FAR = 20_000
MANY = 100_000
SAMPLE = 10_000
LAST_CHARACTER = "\U0010ffff"


class Order(StrEnum):
    """The orders a list can have; each stands on an index."""

    CREATED = "created_at"
    CREATED_DOWN = "-created_at"
    USERNAME = "username"
    USERNAME_DOWN = "-username"
    EMAIL = "email"
    EMAIL_DOWN = "-email"

    @property
    def is_descending(self) -> bool:
        """Whether it goes from the last to the first."""
        return self.startswith("-")

    @property
    def column(self) -> str:
        """The column that it goes by: names by their canonical keys."""
        return _SORTED_BY[self.removeprefix("-")]


_SORTED_BY = {"created_at": "created_at", "username": "username_key", "email": "email_key"}


class Count(StrEnum):
    """How the whole list is counted."""

    NONE = "none"
    ESTIMATED = "estimated"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which accounts; all given conditions hold together. Texts are canonical keys."""

    prefix: str | None = None
    email_key: str | None = None
    username_key: str | None = None
    status: Status | None = None
    role: str | None = None
    group: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    reach: Reach = EVERYONE

    def values(self) -> dict[str, Any]:
        """The conditions that are given, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named["reach"] = None if self.reach.is_everyone else sorted(self.reach.groups)
        return {name: value for name, value in named.items() if value is not None}


async def list_page(
    rows: Rows, filters: Filters, *, order: Order, position: Position | None, limit: int
) -> Sequence[AccountRow]:
    """Up to `limit` + 1 accounts from `position`."""
    asked = _Asked.of(rows, filters, order, position, limit)
    if kind_of(rows.connection) == DISTRIBUTED:
        return await asked.rows(statements.straight(asked.shape), FEW)
    return await asked.found(limit)


def count_statement(filters: Filters) -> tuple[Select[Any], Mapping[str, Any]]:
    """The statement that counts them, and the values it is run with."""
    fitting = statements.fitting(frozenset(filters.values()))
    return select(func.count()).select_from(fitting.subquery()), _values(filters)


async def estimate_users(session: AsyncSession, filters: Filters) -> int:
    """About how many there are, without touching their rows: PostgreSQL's planner says so from its statistics, and on
    SQLite the oldest rows stand for all.
    """
    values = _values(filters)
    given = frozenset(filters.values())
    if not _is_sqlite(session):
        return await estimate_rows(session, statements.fitting(given), values)
    seen, fitting, rows = (await session.execute(statements.sample(given), {**values, STRETCH: SAMPLE})).one()
    return int(fitting) if seen < SAMPLE else round(rows * fitting / seen)


def sort_value(user: AccountRow, order: Order) -> str | datetime:
    """The value by which a list in this order sorts an account."""
    value: str | datetime = getattr(user, order.column)
    return value


@dataclass(frozen=True, slots=True)
class _Asked:
    """A list that somebody asked for: the shape of its statements, and the values they are run with."""

    source: Rows
    shape: Shape
    values: Mapping[str, Any]

    @classmethod
    def of(cls, source: Rows, filters: Filters, order: Order, position: Position | None, limit: int) -> "_Asked":
        shape = Shape(
            given=frozenset(filters.values()),
            column=order.column,
            is_descending=order.is_descending != (position is not None and position.backwards),
            is_from=position is not None,
            is_sqlite=source.dialect == "sqlite",
        )
        start = {"from_value": position.value, "from_id": position.row_id} if position is not None else {}
        return cls(source, shape, {**_values(filters), **start, COUNT: limit + 1})

    async def found(self, limit: int) -> Sequence[AccountRow]:
        """Up to `limit` + 1 accounts, from the stretches that hold the fewest others."""
        shape = self.shape
        for name in NAMES:
            if name in shape.given:  # one account has the name, or none
                return await self.rows(statements.gather(shape, name, is_bounded=True), FEW)
        found = await self.rows(statements.walk(shape), NEAR)
        if len(found) > limit or not shape.rest:
            return found
        size, source = await self.smallest(shape.sources, up_to=FEW)
        if size <= FEW:
            return await self.rows(statements.gather(shape, source, is_bounded=True), FEW)
        if shape.is_search and (await self.smallest((ELSEWHERE,), up_to=FEW))[0] <= FEW:
            inside = await self.rows(statements.walk(shape.within()), FAR)
            outside = await self.rows(statements.gather(shape, ELSEWHERE, is_bounded=True), FEW)
            return self.ordered([*inside, *outside])[: limit + 1]
        found = await self.rows(statements.walk(shape), FAR)
        if len(found) > limit or not await self.execute(statements.walk_end(shape), FAR):
            return found
        _, source = await self.smallest(shape.sources, up_to=MANY)
        return await self.rows(statements.gather(shape, source, is_bounded=False), FEW)

    async def execute(self, statement: Select[Any], stretch: int) -> Sequence[Sequence[Any]]:
        """What a statement of this list finds; `stretch` bounds what it reads."""
        return await self.source.fetch(statement, {**self.values, STRETCH: stretch})

    async def rows(self, statement: Select[Any], stretch: int) -> list[AccountRow]:
        """The accounts that a statement of this list finds, in order."""
        return self.ordered(map(account_row, await self.execute(statement, stretch)))

    def ordered(self, users: Iterable[AccountRow]) -> list[AccountRow]:
        """Accounts in the order of this list, which is the same here as in both databases."""
        return sorted(users, key=attrgetter(self.shape.column, "id"), reverse=self.shape.is_descending)

    async def smallest(self, sources: tuple[str, ...], *, up_to: int) -> tuple[int, str]:
        """The source with the fewest accounts, and how many; `up_to` + 1 stands for all that is more."""
        (sizes,) = await self.execute(statements.sizes(self.shape, sources), up_to + 1)
        return min(zip(sizes, sources, strict=True))


def _values(filters: Filters) -> dict[str, Any]:
    """What the statements of a list with these filters are run with."""
    values = filters.values()
    if filters.prefix is not None:
        values["prefix_end"] = filters.prefix + LAST_CHARACTER
    return {**values, "own": filters.reach.own}


def _is_sqlite(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "sqlite"
