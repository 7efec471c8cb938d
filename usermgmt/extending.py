"""What a plugin may use, in one place: this module's names stay as they are within a compatible series of releases.

`docs/extending.md` shows how. Whatever else a plugin imports from `usermgmt` may change with any release.
"""

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unavailable,
    UserNotFound,
    ValidationFailed,
)
from usermgmt.http.access import answers, authenticated, emits, limited, public, refuses, require, unlimited
from usermgmt.http.answers import Timestamp, answer, no_content, timestamp
from usermgmt.http.context import caller, client, principal, runtime
from usermgmt.http.fields import RequestModel
from usermgmt.identifiers import new_id
from usermgmt.permissions import Permission

__all__ = (
    "RECORDED",
    "Conflict",
    "FieldError",
    "Forbidden",
    "Invalid",
    "NotFound",
    "Permission",
    "RequestModel",
    "Timestamp",
    "TooMany",
    "Unavailable",
    "UserNotFound",
    "ValidationFailed",
    "answer",
    "answers",
    "authenticated",
    "begin",
    "caller",
    "client",
    "emits",
    "limited",
    "new_id",
    "no_content",
    "now",
    "principal",
    "public",
    "read",
    "record",
    "refuses",
    "require",
    "runtime",
    "timestamp",
    "unlimited",
)

RECORDED = Event.EXTENSION_ACTED
"""The event of whatever plugins put on record; for the mark `@emits(RECORDED)`."""


def now() -> datetime:
    """The present time, aware, in UTC."""
    return runtime().clock.now()


def begin() -> AbstractAsyncContextManager[AsyncSession]:
    """A write transaction: committed when the block is left, rolled back when it raises.

    Keep it short, and raise refusals after it, so that what it recorded stays.
    """
    return runtime().database.begin()


def read() -> AbstractAsyncContextManager[AsyncSession]:
    """A connection for reading."""
    return runtime().database.read()


async def record(
    session: AsyncSession, action: str, *, user_id: UUID | None = None, details: dict[str, Any] | None = None
) -> None:
    """Put on record, in the same transaction, that the caller did something: `action` is yours, as `note.changed`.

    `user_id` is the account that it was done to. No secret, no name and no address belongs into `details`.
    """
    await audit.record(
        session,
        RECORDED,
        caller=caller(),
        at=now(),
        user_id=user_id,
        details={"action": action, **(details or {})},
    )
