"""Statements on stored answers."""

from datetime import datetime

from sqlalchemy import delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.idempotency.models import IdempotencyKey
from usermgmt.storage.inserts import insert_if_absent


async def find_answer(session: AsyncSession, asker: str, key: str, *, now: datetime) -> IdempotencyKey | None:
    """The answer stored under a caller's key, unless its time is over."""
    found = await session.scalars(
        select(IdempotencyKey).where(
            IdempotencyKey.asker == asker, IdempotencyKey.key == key, IdempotencyKey.expires_at > now
        )
    )
    return found.one_or_none()


async def insert_claim(
    session: AsyncSession, asker: str, key: str, *, digest: str, now: datetime, expires_at: datetime
) -> bool:
    """Take the key for this transaction; False when another request has it, whose end is waited for."""
    await session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.asker == asker, IdempotencyKey.key == key, IdempotencyKey.expires_at <= now
        )
    )
    values = {
        "principal": asker,
        "key": key,
        "digest": digest,
        "status": 0,
        "body": "",
        "created_at": now,
        "expires_at": expires_at,
    }
    return await insert_if_absent(session, IdempotencyKey, values)


async def delete_past(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Forget answers whose time is over, up to a number of them; how many."""
    past = (
        select(IdempotencyKey.asker, IdempotencyKey.key)
        .where(IdempotencyKey.expires_at <= now)
        .order_by(IdempotencyKey.expires_at)
        .limit(limit)
    )
    gone = await session.execute(
        delete(IdempotencyKey)
        .where(tuple_(IdempotencyKey.asker, IdempotencyKey.key).in_(past), IdempotencyKey.expires_at <= now)
        .returning(IdempotencyKey.key)
    )
    return len(gone.all())


async def update_answer(session: AsyncSession, asker: str, key: str, *, status: int, body: str) -> None:
    """Store the answer under the key that this transaction took."""
    await session.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.asker == asker, IdempotencyKey.key == key)
        .values(status=status, body=body)
    )
