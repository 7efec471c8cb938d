"""How many rows a statement would give, by the planner's statistics, without reading them. PostgreSQL only."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, Executable


class _Explain(Executable, ClauseElement):
    """EXPLAIN of a statement, its values still bound and never pasted into the text."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain)
def _explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:  # the signature that compiles() calls
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


async def estimate_rows(session: AsyncSession, statement: Select[Any], values: Mapping[str, Any]) -> int:
    """The planner's estimate of the number of rows that a statement gives with these values."""
    explained = (await session.execute(_Explain(statement), values)).scalar_one()
    plan = json.loads(explained) if isinstance(explained, str) else explained
    return int(plan[0]["Plan"]["Plan Rows"])
