"""Doing a thing once though it is asked for twice (the Idempotency-Key header, draft-ietf-httpapi-idempotency-key).

The key is taken in the transaction that does the thing, so there is never a key without its effect or an effect
without its key. Refusals are not stored: the same request may succeed later.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.errors import Conflict, Invalid
from usermgmt.idempotency import queries
from usermgmt.runtime import Runtime
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.storage.faults import repeated_on_conflict

ANSWER_LIFETIME = timedelta(hours=24)
BATCH = 500


class IdempotencyKeyReused(Invalid):
    """The key was used for another request."""

    code = "idempotency_key_reused"
    detail = "This Idempotency-Key was used for a different request."


class RequestInProgress(Conflict):
    """A request under this key was being answered and left no answer behind."""

    code = "request_in_progress"
    detail = "A request under this Idempotency-Key has not been answered yet. Repeat it."


class AnsweredMeanwhile(Exception):
    """Another request under the same key was faster; its answer is stored now."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request under a key: who asks (an account, or an address), the key, and keyed digests of what is asked: the one
    that is stored, and those that may have been stored under other root secrets.
    """

    asker: str
    key: str
    digest: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What the first request under a key was answered."""

    status: int
    body: str


def idempotent_request(asker: str, key: str, content: bytes, *, secrets: Secrets) -> IdempotentRequest:
    """Name a request. The digest is keyed, since the content may hold a password."""
    digest = secrets.making_key(Purpose.IDEMPOTENCY).sign(content).hex()
    others = tuple(each.sign(content).hex() for each in secrets.all(Purpose.IDEMPOTENCY))
    return IdempotentRequest(asker, key, digest, others)


async def find_answer(session: AsyncSession, request: IdempotentRequest, *, now: datetime) -> StoredAnswer | None:
    """The stored answer, if this request was answered before; `IdempotencyKeyReused` if another one was."""
    found = await queries.find_answer(session, request.asker, request.key, now=now)
    if found is None:
        return None
    if found.digest not in (request.digest, *request.others):
        raise IdempotencyKeyReused
    return StoredAnswer(found.status, found.body)


async def claim_key(session: AsyncSession, request: IdempotentRequest, *, now: datetime) -> None:
    """Take the key within a transaction, or raise `AnsweredMeanwhile`."""
    claimed = await queries.insert_claim(
        session, request.asker, request.key, digest=request.digest, now=now, expires_at=now + ANSWER_LIFETIME
    )
    if not claimed:
        raise AnsweredMeanwhile


async def store_answer(session: AsyncSession, request: IdempotentRequest, *, status: int, body: str) -> None:
    """Store the answer in the same transaction."""
    await queries.update_answer(session, request.asker, request.key, status=status, body=body)


@repeated_on_conflict
async def forget_past(runtime: Runtime) -> int:
    """Delete a batch of the answers whose time is over; how many there were."""
    async with runtime.database.begin() as session:
        return await queries.delete_past(session, now=runtime.clock.now(), limit=BATCH)
