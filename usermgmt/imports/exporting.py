"""Exporting accounts, in the form that importing reads."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from uuid import UUID

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.imports.reading import UNMARKED
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.users import queries as user_queries
from usermgmt.users import service as users
from usermgmt.users.lists import Filters, Order
from usermgmt.users.service import UserView


async def export_users(
    runtime: Runtime, caller: Caller, *, with_hashes: bool
) -> AsyncGenerator[list[tuple[UserView, str | None]], None]:
    """Every account that the caller may read, batch by batch, each with what is stored for its password if asked for.

    It is on record before anything is given, since whoever stops halfway has that half.
    """
    async with runtime.database.begin() as session:
        await audit.record(
            session,
            Event.USERS_EXPORTED,
            caller=caller,
            at=runtime.clock.now(),
            target="all",
            target_type=TargetType.USERS,
            details={"hashes": with_hashes},
        )
    async for views in users.stream_users(runtime, caller, Filters(), order=Order.CREATED):
        hashes: Mapping[UUID, str | None] = {}
        if with_hashes:
            async with runtime.database.read() as session:
                hashes = await user_queries.list_password_hashes(session, [view.user.id for view in views])
        yield [(view, hashes.get(view.user.id)) for view in views]


def write_cells(document: Mapping[str, Any], columns: list[str]) -> list[str]:
    """A row of CSV. What a spreadsheet would take for a formula, also one that separates by semicolons, gets an
    apostrophe in front, which reading takes away; whatever has apostrophes there already gets one more.
    """
    return [_written(document.get(column)) for column in columns]


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False).replace(";", r"\u003b") if value else ""
    return UNMARKED.sub("'", str(value))
