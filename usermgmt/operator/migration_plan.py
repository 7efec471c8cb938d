"""What migrations are going to lock, and for how long: each statement, and what is held until its transaction ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from usermgmt.operator.migration_rates import seconds_of
from usermgmt.operator.migration_sql import BASE, HEAD, Migration, migrations_between
from usermgmt.operator.statement_locks import Catalogue, Effect, Lock, Work, effect_of


@dataclass(frozen=True, slots=True)
class Operation:
    """One statement: what it does (None: unknown), to how many rows, and for how long."""

    sql: str
    transaction: int | None
    effect: Effect | None
    rows: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that others feel, from the statement that takes it to the end of its transaction."""

    table: str
    lock: Lock
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one migration is going to do. `seconds` leaves out what is unknown."""

    migration: Migration
    operations: Sequence[Operation]
    held: Sequence[Held]

    @property
    def seconds(self) -> float:
        """How long all that is known takes."""
        return sum(operation.seconds or 0 for operation in self.operations)

    @property
    def unknown(self) -> int:
        """How many statements are unknown."""
        return sum(operation.effect is None for operation in self.operations)


def planned(start: str | None, end: str, rows: Mapping[str, int], *, is_sqlite: bool) -> list[Plan]:
    """The plans of the migrations from one revision to another, for tables of so many rows (those not named: none)."""
    catalogue = full_catalogue(is_sqlite=is_sqlite)
    return [
        _plan(migration, catalogue, rows, is_sqlite=is_sqlite)
        for migration in migrations_between(start, end, is_sqlite=is_sqlite)
    ]


def full_catalogue(*, is_sqlite: bool) -> Catalogue:
    """Everything that any migration makes, on its way up or down."""
    catalogue = Catalogue()
    for ends in ((BASE, HEAD), (HEAD, BASE)):
        for migration in migrations_between(*ends, is_sqlite=is_sqlite):
            catalogue.learn(statement.sql for statement in migration.statements)
    return catalogue


def _plan(migration: Migration, catalogue: Catalogue, rows: Mapping[str, int], *, is_sqlite: bool) -> Plan:
    operations = []
    for statement in migration.statements:
        effect = effect_of(statement.sql, catalogue)
        count = rows.get(effect.table, 0) if effect is not None and effect.work is not Work.NONE else 0
        seconds = seconds_of(effect.work, count, is_sqlite=is_sqlite) if effect is not None else None
        operations.append(Operation(statement.sql, statement.transaction, effect, count, seconds))
    return Plan(migration, operations, _held(operations))


def _held(operations: Sequence[Operation]) -> list[Held]:
    """The locks that stop others, each with the time from its statement to the end of the transaction."""
    new = {each.effect.table for each in operations if each.effect is not None and each.effect.makes_table}
    longest: dict[tuple[str, Lock], float] = {}
    for place, operation in enumerate(operations):
        if operation.effect is None:
            continue
        rest = _until_end(operations[place:])
        for table, lock in operation.effect.locks.items():
            if table not in new and lock >= Lock.SHARE:
                longest[table, lock] = max(rest, longest.get((table, lock), 0.0))
    return [
        Held(table, lock, seconds)
        for (table, lock), seconds in longest.items()
        if not any(
            other == table and stronger > lock and longer >= seconds for (other, stronger), longer in longest.items()
        )
    ]


def _until_end(operations: Sequence[Operation]) -> float:
    """How long the first of these and all that follow in its transaction take."""
    first, *others = operations
    same = [each for each in others if first.transaction is not None and each.transaction == first.transaction]
    return sum(each.seconds or 0 for each in (first, *same))
