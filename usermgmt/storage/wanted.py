"""A list of keys as rows of a statement whose text is the same however many there are, so that it is prepared once.

PostgreSQL takes an array for each column, SQLite a JSON document of them. A distributed PostgreSQL asks every node for
what is joined with such rows: there each table has a condition of its own, by which the nodes are chosen.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, FromClause, Uuid, any_, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

POSTGRESQL = "postgresql"
DISTRIBUTED = "distributed"


def kind_of(connection: AsyncConnection) -> str:
    """Which kind of statement the database wants: the name of its dialect, or `DISTRIBUTED`."""
    inner = connection.sync_connection
    assert inner is not None
    return DISTRIBUTED if is_distributed(inner) else connection.dialect.name


def is_distributed(bind: Engine | Connection) -> bool:
    """Whether the tables are spread over several nodes (`database.distributed`)."""
    return bool(bind.get_execution_options().get(DISTRIBUTED))


def is_wanted(column_of: InstrumentedAttribute[UUID], name: str) -> ColumnElement[bool]:
    """Whether a column is one of the wanted values: the form for a distributed database; `wanted_values` binds them."""
    return column_of == any_(bindparam(f"wanted_{name}", type_=ARRAY(Uuid)))


def among_wanted(column_of: InstrumentedAttribute[UUID], name: str | None) -> tuple[ColumnElement[bool], ...]:
    """`is_wanted` as conditions of a statement: none without a name."""
    return () if name is None else (is_wanted(column_of, name),)


def wanted(kind: str, *columns: str) -> FromClause:
    """Rows of UUIDs with these columns, to be joined with; `wanted_values` binds them."""
    if kind == POSTGRESQL:
        arrays = [bindparam(f"wanted_{name}", type_=ARRAY(Uuid)) for name in columns]
        unnested = func.unnest(*arrays).table_valued(*(column(name, Uuid) for name in columns), name="wanted")
        return unnested.render_derived()
    rows = func.json_each(bindparam("wanted_rows")).table_valued("value")
    values = [
        func.json_extract(rows.c.value, f"$[{place}]", type_=Uuid).label(name) for place, name in enumerate(columns)
    ]
    return select(*values).subquery("wanted")


def wanted_values(kind: str, columns: Sequence[str], rows: Iterable[Sequence[UUID]]) -> dict[str, Any]:
    """The parameters of a statement that has `wanted` or `is_wanted`."""
    if kind in (POSTGRESQL, DISTRIBUTED):
        return {f"wanted_{name}": list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}
    return {"wanted_rows": json.dumps([[key.hex for key in row] for row in rows])}
