"""A list of keys as rows of a statement whose text is the same however many there are, so that it is prepared once.

PostgreSQL takes an array for each column, SQLite a JSON document of them.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import FromClause, Uuid, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY

POSTGRESQL = "postgresql"


def wanted(dialect: str, *columns: str) -> FromClause:
    """Rows of UUIDs with these columns, to be joined with; `wanted_values` binds them."""
    if dialect == POSTGRESQL:
        arrays = [bindparam(f"wanted_{name}", type_=ARRAY(Uuid)) for name in columns]
        unnested = func.unnest(*arrays).table_valued(*(column(name, Uuid) for name in columns), name="wanted")
        return unnested.render_derived()
    rows = func.json_each(bindparam("wanted_rows")).table_valued("value")
    values = [
        func.json_extract(rows.c.value, f"$[{place}]", type_=Uuid).label(name) for place, name in enumerate(columns)
    ]
    return select(*values).subquery("wanted")


def wanted_values(dialect: str, columns: Sequence[str], rows: Iterable[Sequence[UUID]]) -> dict[str, Any]:
    """The parameters of a statement that has `wanted`."""
    if dialect == POSTGRESQL:
        return {f"wanted_{name}": list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}
    return {"wanted_rows": json.dumps([[key.hex for key in row] for row in rows])}
