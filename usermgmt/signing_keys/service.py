"""Keeping the key ring: loading it, making the first key, rotating with overlap, retiring.

A new key is published at once and signs only after every worker has had time to read it; the old one verifies until
the last token it signed has expired. So a rotation signs nobody out.
"""

import os
import secrets as random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.errors import Conflict, NotFound
from usermgmt.runtime import Runtime
from usermgmt.security.keys import NONCE_BYTES, KeyRing, KeyUnreadable, RingKey, generate, seal, unseal
from usermgmt.security.principal import OPERATOR, Caller
from usermgmt.security.secrets import Secrets
from usermgmt.signing_keys import queries
from usermgmt.signing_keys.models import SigningKey

RELOAD_INTERVAL = timedelta(seconds=10)
PUBLICATION_TIME = timedelta(seconds=60)  # several reloads, and caches of the published set
CLOCK_MARGIN = timedelta(seconds=60)


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
        await _create_key(runtime, activated_at=now, caller=OPERATOR)
        ring = await load_ring(runtime)
    return ring


async def rotate_key(runtime: Runtime, *, caller: Caller, at_once: bool = False) -> Rotation:
    """Make a new key that signs after `PUBLICATION_TIME` (or `at_once`), and let the present ones run out after it."""
    now = runtime.clock.now()
    activated_at = now if at_once else now + PUBLICATION_TIME
    present = [key for key in await list_keys(runtime) if key.retired_at is None]
    kid = await _create_key(runtime, activated_at=activated_at, caller=caller)
    retired_at = activated_at + runtime.settings.tokens.access_lifetime + CLOCK_MARGIN
    async with runtime.database.begin() as session:
        for key in present:
            await queries.update_retirement(session, key.kid, retired_at=retired_at)
    return Rotation(kid, activated_at)


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
                session, Event.SIGNING_KEY_RETIRED, caller=caller, at=now, target=kid, target_type="signing_key"
            )


async def list_keys(runtime: Runtime) -> Sequence[SigningKey]:
    """Every key on record, oldest first."""
    async with runtime.database.read() as session:
        return await queries.list_keys(session)


async def _create_key(runtime: Runtime, *, activated_at: datetime, caller: Caller) -> str:
    algorithm, now = runtime.settings.tokens.algorithm, runtime.clock.now()
    kid = random.token_hex(8)
    sealed = seal(generate(algorithm), kid, secrets=runtime.secrets, nonce=os.urandom(NONCE_BYTES))
    async with runtime.database.begin() as session:
        await queries.insert_key(
            session, kid=kid, algorithm=algorithm, private_key=sealed, created_at=now, activated_at=activated_at
        )
        await audit.record(
            session,
            Event.SIGNING_KEY_CREATED,
            caller=caller,
            at=now,
            target=kid,
            target_type="signing_key",
            details={"algorithm": algorithm},
        )
    return kid


def _ring_key(row: SigningKey, secrets: Secrets) -> RingKey | None:
    try:
        private = unseal(row.private_key, row.kid, row.algorithm, secrets=secrets)
    except KeyUnreadable:
        return None
    return RingKey(row.kid, row.algorithm, row.created_at, row.activated_at, row.retired_at, private)
