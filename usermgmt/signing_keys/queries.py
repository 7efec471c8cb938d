"""Statements on the signing keys."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.signing_keys.models import SigningKey


async def list_keys(session: AsyncSession) -> Sequence[SigningKey]:
    """Every key, retired ones included, oldest first."""
    return (await session.scalars(select(SigningKey).order_by(SigningKey.created_at, SigningKey.kid))).all()


async def list_keys_for_update(session: AsyncSession) -> Sequence[SigningKey]:
    """Every key, held until the transaction ends."""
    return (await session.scalars(select(SigningKey).order_by(SigningKey.kid).with_for_update())).all()


async def insert_key(
    session: AsyncSession,
    *,
    kid: str,
    algorithm: str,
    private_key: str,
    created_at: datetime,
    activated_at: datetime,
) -> None:
    """Add a key."""
    await session.execute(
        insert(SigningKey).values(
            kid=kid,
            algorithm=algorithm,
            private_key=private_key,
            created_at=created_at,
            activated_at=activated_at,
            retired_at=None,
        )
    )


async def update_retirement(session: AsyncSession, kid: str, *, retired_at: datetime) -> bool:
    """Bring a key's retirement forward to `retired_at`; False when there is no such key or it retires earlier."""
    changed = await session.execute(
        update(SigningKey)
        .where(SigningKey.kid == kid, (SigningKey.retired_at.is_(None)) | (SigningKey.retired_at > retired_at))
        .values(retired_at=retired_at)
        .returning(SigningKey.kid)
    )
    return changed.one_or_none() is not None


async def update_private_key(session: AsyncSession, kid: str, *, seen: str, sealed: str) -> bool:
    """Store a private key as it was sealed anew; False when it is no longer stored as it was seen."""
    changed = await session.execute(
        update(SigningKey)
        .where(SigningKey.kid == kid, SigningKey.private_key == seen)
        .values(private_key=sealed)
        .returning(SigningKey.kid)
    )
    return changed.one_or_none() is not None


async def delete_retired(session: AsyncSession, *, before: datetime) -> int:
    """Remove the keys that were retired before a time; how many."""
    gone = await session.execute(delete(SigningKey).where(SigningKey.retired_at < before).returning(SigningKey.kid))
    return len(gone.all())
