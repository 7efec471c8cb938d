"""Keeping the key ring: loading it, making the first key, rotating with overlap, retiring.

A new key is published at once and signs only after every worker has had time to read it; the old one verifies until
the last token it signed has expired. So a rotation signs nobody out. Stored keys are sealed under the root secret that
makes, so that an older one can be taken away.
"""

import os
import secrets as random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.errors import Conflict, NotFound
from usermgmt.runtime import Runtime
from usermgmt.security.keys import NONCE_BYTES, KeyRing, KeyUnreadable, RingKey, generate, seal, sealing_key_id, unseal
from usermgmt.security.principal import OPERATOR, Caller
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.signing_keys import queries
from usermgmt.signing_keys.models import SigningKey
from usermgmt.storage.faults import repeated_on_conflict

RELOAD_INTERVAL = timedelta(seconds=10)
PUBLICATION_TIME = timedelta(seconds=60)  # several reloads, and caches of the published set
CLOCK_MARGIN = timedelta(seconds=60)
KEPT_RETIRED = timedelta(days=1)
"""How long a key that verifies nothing any more is still listed."""


class NoSuchKey(NotFound):
    """There is no signing key with this kid."""

    code = "signing_key_not_found"
    detail = "There is no such signing key."


class LastSigningKey(Conflict):
    """Retiring this key would leave nothing to sign with."""

    code = "last_signing_key"
    detail = "This key signs now. Rotate first, then retire it."


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new key, and from when it signs."""

    kid: str
    activated_at: datetime


@dataclass(frozen=True, slots=True)
class Period:
    """The time in which a key signs; without an end while it does."""

    kid: str
    since: datetime
    until: datetime | None


async def load_ring(runtime: Runtime) -> KeyRing:
    """Read the ring. A key that no configured root secret opens is left out: tokens it signed are refused."""
    async with runtime.database.read() as session:
        rows = await queries.list_keys(session)
    return KeyRing(key for key in (_ring_key(row, runtime.secrets) for row in rows) if key is not None)


async def refresh_ring(runtime: Runtime) -> None:
    """Read the ring again, so that a rotation elsewhere is known here before it signs."""
    runtime.ring = await load_ring(runtime)


async def prepare_ring(runtime: Runtime) -> KeyRing:
    """Read the ring, and make the first key when none of the configured algorithm signs yet.

    Two processes that start at once may each make one; both are published and either signs.
    """
    ring = await load_ring(runtime)
    algorithm, now = runtime.settings.tokens.algorithm, runtime.clock.now()
    if ring.signing_key(algorithm, now) is None:
        key = _generated(runtime, activated_at=now)
        async with runtime.database.begin() as session:
            await _insert(runtime, session, key, caller=OPERATOR)
        ring = await load_ring(runtime)
    return ring


async def rotate_key(runtime: Runtime, *, caller: Caller, at_once: bool = False) -> Rotation:
    """Make a new key that signs after `PUBLICATION_TIME` (or `at_once`), and let the present ones run out after it."""
    now = runtime.clock.now()
    key = _generated(runtime, activated_at=now if at_once else now + PUBLICATION_TIME)
    async with runtime.database.begin() as session:
        await _replace(runtime, session, await queries.list_keys_for_update(session), key, caller=caller)
    return Rotation(key.kid, key.activated_at)


async def tend_keys(runtime: Runtime) -> int:
    """Replace the signing key when it is old, seal under the root secret that makes what is sealed under another one,
    and remove keys that were retired a while ago; how many keys were touched.
    """
    now = runtime.clock.now()
    keys = await list_keys(runtime)
    touched = int(_is_due(runtime, keys, now) and await _rotate_if_due(runtime))
    for key in keys:
        touched += await _seal_anew(runtime, key)
    if any(key.retired_at is not None and key.retired_at < now - KEPT_RETIRED for key in keys):
        async with runtime.database.begin() as session:
            touched += await queries.delete_retired(session, before=now - KEPT_RETIRED)
    return touched


async def retire_key(runtime: Runtime, kid: str, *, caller: Caller) -> None:
    """Stop trusting a key now: every token it signed is refused as soon as the workers reload (10 s).

    Refused with `LastSigningKey` when no other key signs now.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        keys = await queries.list_keys_for_update(session)  # or two retirements at once would leave no key
        if all(key.kid != kid for key in keys):
            raise NoSuchKey
        usable = [k for k in keys if k.algorithm == runtime.settings.tokens.algorithm and k.activated_at <= now]
        if [k.kid for k in usable if k.retired_at is None or k.retired_at > now] == [kid]:
            raise LastSigningKey
        if await queries.update_retirement(session, kid, retired_at=now):
            await audit.record(
                session,
                Event.SIGNING_KEY_RETIRED,
                caller=caller,
                at=now,
                target=kid,
                target_type=TargetType.SIGNING_KEY,
            )


async def list_keys(runtime: Runtime) -> Sequence[SigningKey]:
    """Every key on record, oldest first."""
    async with runtime.database.read() as session:
        return await queries.list_keys(session)


async def list_live_keys(runtime: Runtime) -> Sequence[SigningKey]:
    """The keys that sign, will sign, or verify, oldest first."""
    now = runtime.clock.now()
    return [key for key in await list_keys(runtime) if key.retired_at is None or key.retired_at > now]


async def list_periods(runtime: Runtime) -> Sequence[Period]:
    """When each key of the configured algorithm signed, signs or will sign, oldest first."""
    keys = sorted(await list_keys(runtime), key=lambda key: key.activated_at)
    ours = [key for key in keys if key.algorithm == runtime.settings.tokens.algorithm]
    ends = [*(key.activated_at for key in ours[1:]), None]
    return [Period(key.kid, key.activated_at, end) for key, end in zip(ours, ends, strict=True)]


@repeated_on_conflict
async def _rotate_if_due(runtime: Runtime) -> bool:
    """Rotate unless another process did meanwhile."""
    now = runtime.clock.now()
    key = _generated(runtime, activated_at=now + PUBLICATION_TIME)
    async with runtime.database.begin() as session:
        present = await queries.list_keys_for_update(session)
        if not _is_due(runtime, present, now):
            return False
        await _replace(runtime, session, present, key, caller=OPERATOR)
    return True


def _is_due(runtime: Runtime, keys: Sequence[SigningKey], now: datetime) -> bool:
    """Whether the newest key that signs or will sign is older than a key shall become."""
    tokens = runtime.settings.tokens
    good = [k.activated_at for k in keys if k.algorithm == tokens.algorithm and (k.retired_at or now) >= now]
    return bool(tokens.key_lifetime and good) and max(good) <= now - tokens.key_lifetime


async def _replace(
    runtime: Runtime, session: AsyncSession, present: Sequence[SigningKey], key: RingKey, *, caller: Caller
) -> None:
    """Add a key, and let those before it run out when the last token that they can sign has expired."""
    await _insert(runtime, session, key, caller=caller)
    retired_at = key.activated_at + runtime.settings.tokens.access_lifetime + CLOCK_MARGIN
    for each in present:
        if each.retired_at is None:
            await queries.update_retirement(session, each.kid, retired_at=retired_at)


async def _seal_anew(runtime: Runtime, row: SigningKey) -> bool:
    """Seal a key under the root secret that makes, unless it is, or cannot be opened, or was changed meanwhile."""
    is_retired = row.retired_at is not None and row.retired_at <= runtime.clock.now()
    newest = runtime.secrets.making_key(Purpose.SIGNING_KEY_ENCRYPTION)
    key = _ring_key(row, runtime.secrets)
    if is_retired or key is None or sealing_key_id(row.private_key) == newest.key_id:
        return False
    sealed = _sealed(runtime, key)
    async with runtime.database.begin() as session:
        return await queries.update_private_key(session, row.kid, seen=row.private_key, sealed=sealed)


def _generated(runtime: Runtime, *, activated_at: datetime) -> RingKey:
    """A fresh key, made before a transaction begins: it may take a second."""
    algorithm, now = runtime.settings.tokens.algorithm, runtime.clock.now()
    return RingKey(random.token_hex(8), algorithm, now, activated_at, None, generate(algorithm))


def _sealed(runtime: Runtime, key: RingKey) -> str:
    return seal(key.private, key.kid, secrets=runtime.secrets, nonce=os.urandom(NONCE_BYTES))


async def _insert(runtime: Runtime, session: AsyncSession, key: RingKey, *, caller: Caller) -> None:
    await queries.insert_key(
        session,
        kid=key.kid,
        algorithm=key.algorithm,
        private_key=_sealed(runtime, key),
        created_at=key.created_at,
        activated_at=key.activated_at,
    )
    await audit.record(
        session,
        Event.SIGNING_KEY_CREATED,
        caller=caller,
        at=key.created_at,
        target=key.kid,
        target_type=TargetType.SIGNING_KEY,
        details={"algorithm": key.algorithm},
    )


def _ring_key(row: SigningKey, secrets: Secrets) -> RingKey | None:
    try:
        private = unseal(row.private_key, row.kid, row.algorithm, secrets=secrets)
    except KeyUnreadable:
        return None
    return RingKey(row.kid, row.algorithm, row.created_at, row.activated_at, row.retired_at, private)
