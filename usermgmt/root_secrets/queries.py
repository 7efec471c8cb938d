"""Statements on the root secrets."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.root_secrets.models import RootSecret
from usermgmt.storage.inserts import insert_if_absent


async def list_roots(session: AsyncSession) -> dict[str, datetime]:
    """When each root secret was first seen."""
    return {root.key_id: root.first_seen_at for root in await session.scalars(select(RootSecret))}


async def insert_root(session: AsyncSession, key_id: str, *, first_seen_at: datetime) -> None:
    """Note a root secret, unless another process did."""
    await insert_if_absent(session, RootSecret, {"key_id": key_id, "first_seen_at": first_seen_at})
