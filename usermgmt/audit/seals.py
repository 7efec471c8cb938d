"""Sealing the record: each batch of events is chained to the one before and signed, so that a later change shows.

Requests never wait for it: recording touches neither the chain nor its end, and sealing happens behind them. Events are
sealed in the order of their time; one whose transaction took longer is found by looking back, and sealed with the next.
Nothing is built on an end that is not signed by us: otherwise the next seal would vouch for what somebody changed.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries
from usermgmt.audit import service as audit
from usermgmt.audit.digests import NO_DIGEST, chained, entries_of, entry
from usermgmt.audit.events import Event, TargetType
from usermgmt.audit.models import AuditEvent, AuditHead, AuditSeal
from usermgmt.errors import DatabaseUnavailable
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR, Caller
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.storage.faults import repeated_on_conflict

BATCH = 500
SEALS_PRUNED_AT_ONCE = 10
LOGGED_EVERY = 100
"""How many seals until the log, which is not rewritten with the database, holds the next checkpoint."""

LAG = timedelta(seconds=2)
"""How long an event is left alone, so that most transactions have committed when their turn comes."""

LOOK_BACK, LOOK_BACK_INTERVAL = timedelta(minutes=2), timedelta(seconds=30)
"""Longer than a transaction can take, clocks that differ included; and how often late events are looked for."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_ID = UUID(int=0)

log = structlog.get_logger("usermgmt.audit")


class ChainBroken(Exception):
    """The chain is not as this server left it. Nothing is sealed or pruned any more, so that the traces stay."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of the chain at one moment. Kept outside the database, it shows whatever was rewritten inside."""

    seq: int
    digest: str
    key_id: str
    signature: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}:{self.key_id}:{self.signature}"


async def seal_pending(runtime: Runtime) -> int:
    """Seal every event that is due; how many were. Does nothing while another worker seals.

    Raises `ChainBroken` when the end of the chain is not one that this server signed.
    """
    total = 0
    while True:
        sealed = await _seal_batch(runtime)
        total += sealed
        if sealed < BATCH:
            return total


async def find_checkpoint(runtime: Runtime) -> Checkpoint | None:
    """The end of the chain; None before anything is sealed."""
    async with runtime.database.read() as session:
        head = await queries.find_head(session)
        seal = await queries.find_seal(session, head.seq) if head is not None else None
    return None if seal is None else Checkpoint(seal.seq, seal.digest, seal.key_id, seal.signature)


async def log_checkpoint(runtime: Runtime) -> None:
    """Leave the end of the chain in the log, if there is one and the database answers."""
    try:
        checkpoint = await find_checkpoint(runtime)
    except DatabaseUnavailable:
        return
    if checkpoint is not None:
        log.info("audit_checkpoint", checkpoint=str(checkpoint))


def seal_message(seq: int, digest: str) -> bytes:
    """What the signature of a seal is over."""
    return f"seal:{seq}:{digest}".encode()


def head_message(head: AuditHead) -> bytes:
    """What the signature of the end is over: all that sealing and pruning go on from."""
    times = (head.sealed_until.isoformat(), head.sealed_until_id, head.searched_at.isoformat())
    parts = (head.seq, head.digest, head.events, head.pruned_seq, head.pruned_digest, *times)
    return ":".join(map(str, ("head", *parts))).encode()


def judge_signature(secrets: Secrets, message: bytes, *, key_id: str, signature: str) -> bool | None:
    """Whether a signature is ours: True, False, or None when it is of a root secret that is no longer configured."""
    for key in secrets.all(Purpose.AUDIT_SEAL):
        if key.key_id == key_id:
            return hmac.compare_digest(key.sign(message).hex().encode(), signature.encode())
    return None


def ids_in(entries: Iterable[bytes]) -> set[UUID]:
    """The ids of all events in some seals."""
    return {event_id for each in entries for event_id, _ in entries_of(each)}


@repeated_on_conflict
async def adopt_chain(runtime: Runtime, caller: Caller) -> bool:
    """Go on from an end whose root secret is gone, and put that on record; whether it was so.

    An end with a wrong signature is never adopted.
    """
    async with runtime.database.begin() as session:
        head = await queries.lock_head(session, is_patient=True)
        if head is None or _judge_head(head, runtime.secrets) is not None:
            return False
        details = {"seq": head.seq, "key": head.key_id}
        await _sign_head(session, head, runtime.secrets)
        await audit.record(
            session,
            Event.AUDIT_ADOPTED,
            caller=caller,
            at=runtime.clock.now(),
            target="audit",
            target_type=TargetType.AUDIT,
            details=details,
        )
    return True


async def prune_due(runtime: Runtime) -> int:
    """Remove a batch of the events whose retention is over, as the operator; how many."""
    return await prune(runtime, OPERATOR)


@repeated_on_conflict
async def prune(runtime: Runtime, caller: Caller) -> int:
    """Remove a batch of the sealed events whose retention is over, whole seals at a time; how many. The rest still
    verifies. Raises `ChainBroken` rather than remove what was touched.
    """
    now = runtime.clock.now()
    cutoff = now - runtime.settings.audit.retention
    total = 0
    async with runtime.database.begin() as session:
        head = await queries.lock_head(session, is_patient=True)
        if head is None:
            return 0
        _require_ours(head, runtime.secrets)
        for seal in await queries.list_seals(session, after=head.pruned_seq, limit=SEALS_PRUNED_AT_ONCE):
            if seal.last_at >= cutoff or seal.seq == head.seq or total >= BATCH:
                break
            total += await _prune_seal(session, head, seal)
        if total:
            await _sign_head(session, head, runtime.secrets)
            await audit.record(
                session,
                Event.AUDIT_PRUNED,
                caller=caller,
                at=now,
                target="audit",
                target_type=TargetType.AUDIT,
                details={"events": total, "until_seal": head.pruned_seq},
            )
    return total


async def _prune_seal(session: AsyncSession, head: AuditHead, seal: AuditSeal) -> int:
    if seal.seq != head.pruned_seq + 1 or seal.digest != digest_of(seal, head.pruned_digest):
        raise ChainBroken(f"seal {seal.seq} does not follow from the one before")
    ids = [event_id for event_id, _ in entries_of(seal.entries)]
    await queries.delete_events(session, ids, since=seal.first_at, until=seal.last_at)
    await queries.delete_seal(session, seal.seq)
    head.pruned_seq, head.pruned_digest, head.events = seal.seq, seal.digest, head.events - len(ids)
    return len(ids)


def digest_of(seal: AuditSeal, previous: str) -> str:
    """What the digest of a stored seal must be after the one before."""
    return chained(previous, seal.seq, first_at=seal.first_at, last_at=seal.last_at, entries=seal.entries)


@repeated_on_conflict
async def _seal_batch(runtime: Runtime) -> int:
    now, made = runtime.clock.now(), None
    async with runtime.database.begin() as session:
        head = await queries.lock_head(session) or await _begin_chain(session, runtime.secrets)
        if head is None:
            return 0
        _require_ours(head, runtime.secrets)
        place = (head.sealed_until, head.sealed_until_id)
        events = await queries.list_unsealed(session, after=place, until=now - LAG, limit=BATCH)
        is_time_to_look_back = now - head.searched_at >= LOOK_BACK_INTERVAL
        late = await _list_late(session, head) if is_time_to_look_back else []
        if is_time_to_look_back:
            head.searched_at = now
        if events:
            head.sealed_until, head.sealed_until_id = events[-1].at, events[-1].id
        if events or late:
            made = await _add_seal(session, head, [*late, *events], runtime.secrets, now)
        is_newest_key = head.key_id == runtime.secrets.making_key(Purpose.AUDIT_SEAL).key_id
        if events or is_time_to_look_back or not is_newest_key:
            await _sign_head(session, head, runtime.secrets)
    if made is not None and made.seq % LOGGED_EVERY == 0:
        log.info("audit_checkpoint", checkpoint=str(made))
    return len(events)


async def _begin_chain(session: AsyncSession, secrets: Secrets) -> AuditHead | None:
    """The end of a chain that holds nothing yet; None when another worker has it."""
    key = secrets.making_key(Purpose.AUDIT_SEAL)
    values = {
        "seq": 0,
        "digest": NO_DIGEST,
        "events": 0,
        "pruned_seq": 0,
        "pruned_digest": NO_DIGEST,
        "sealed_until": BEGINNING,
        "sealed_until_id": FIRST_ID,
        "searched_at": BEGINNING,
    }
    signature = key.sign(head_message(AuditHead(**values))).hex()
    if not await queries.insert_head(session, {**values, "key_id": key.key_id, "signature": signature}):
        return None
    if await queries.find_last_seq(session):
        raise ChainBroken("the end of the chain was removed")
    return await queries.lock_head(session)


async def _list_late(session: AsyncSession, head: AuditHead) -> Sequence[AuditEvent]:
    """Events of the time just before the end of the chain that no seal holds: they were committed late."""
    since, until = head.sealed_until - LOOK_BACK, head.sealed_until
    places = await queries.list_ids(
        session, after=(since, FIRST_ID), until=(until, head.sealed_until_id), limit=1_000_000
    )
    sealed = ids_in(
        entries for *_, entries in await queries.list_entries(session, since=since, until=until, last_seq=head.seq)
    )
    missing = [event_id for _, event_id in places if event_id not in sealed]
    return await queries.list_events_by_id(session, missing[:BATCH], since=since, until=until) if missing else []


async def _add_seal(
    session: AsyncSession, head: AuditHead, events: Sequence[AuditEvent], secrets: Secrets, now: datetime
) -> Checkpoint:
    key = secrets.making_key(Purpose.AUDIT_SEAL)
    entries = b"".join(map(entry, events))
    first_at, last_at = min(event.at for event in events), max(event.at for event in events)
    head.seq, head.events = head.seq + 1, head.events + len(events)
    head.digest = chained(head.digest, head.seq, first_at=first_at, last_at=last_at, entries=entries)
    signature = key.sign(seal_message(head.seq, head.digest)).hex()
    await queries.insert_seal(
        session,
        {
            "seq": head.seq,
            "sealed_at": now,
            "first_at": first_at,
            "last_at": last_at,
            "entries": entries,
            "digest": head.digest,
            "key_id": key.key_id,
            "signature": signature,
        },
    )
    return Checkpoint(head.seq, head.digest, key.key_id, signature)


async def _sign_head(session: AsyncSession, head: AuditHead, secrets: Secrets) -> None:
    key = secrets.making_key(Purpose.AUDIT_SEAL)
    head.key_id, head.signature = key.key_id, key.sign(head_message(head)).hex()
    await session.flush()


def _judge_head(head: AuditHead, secrets: Secrets) -> bool | None:
    return judge_signature(secrets, head_message(head), key_id=head.key_id, signature=head.signature)


def _require_ours(head: AuditHead, secrets: Secrets) -> None:
    verdict = _judge_head(head, secrets)
    if verdict is None:
        raise ChainBroken(f"the end of the chain is signed by {head.key_id}, of a root secret that is not configured")
    if not verdict:
        raise ChainBroken("the end of the chain was changed: its signature is not ours")
