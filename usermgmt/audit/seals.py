"""Sealing the record: each batch of events is chained to the one before and signed, so that a later change shows.

Requests never wait for it: recording touches neither the chain nor its end, and sealing happens behind them. Events are
sealed in the order of their time; one whose transaction took longer is found by looking back, and sealed with the next.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries
from usermgmt.audit import service as audit
from usermgmt.audit.digests import NO_DIGEST, chained, entries_of, entry
from usermgmt.audit.events import Event
from usermgmt.audit.models import AuditEvent, AuditHead, AuditSeal
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.storage.database import repeated_on_conflict

BATCH = 500
LAG = timedelta(seconds=2)
"""How long an event is left alone, so that most transactions have committed when their turn comes."""

LOOK_BACK, LOOK_BACK_INTERVAL = timedelta(minutes=2), timedelta(seconds=30)
"""Longer than a transaction can take, clocks that differ included; and how often late events are looked for."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_ID = UUID(int=0)


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
    """Seal every event that is due; how many were. Does nothing while another worker seals."""
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
    return None if seal is None else checkpoint_of(seal)


def checkpoint_of(seal: AuditSeal) -> Checkpoint:
    """The end of the chain when this seal was its last."""
    return Checkpoint(seal.seq, seal.digest, seal.key_id, seal.signature)


def seal_message(seq: int, digest: str) -> bytes:
    """What the signature of a seal is over."""
    return f"seal:{seq}:{digest}".encode()


def head_message(head: AuditHead) -> bytes:
    """What the signature of the end is over."""
    parts = (head.seq, head.digest, head.events, head.pruned_seq, head.pruned_digest)
    return ":".join(map(str, ("head", *parts))).encode()


@repeated_on_conflict
async def prune(runtime: Runtime, caller: Caller) -> int:
    """Remove the sealed events whose retention is over, whole seals at a time; how many. The rest still verifies."""
    now = runtime.clock.now()
    cutoff = now - runtime.settings.audit.retention
    total = 0
    async with runtime.database.begin() as session:
        head = await queries.lock_head(session, is_patient=True)
        if head is None:
            return 0
        for seal in await queries.list_seals(session, after=head.pruned_seq, limit=BATCH):
            if seal.last_at >= cutoff or seal.seq == head.seq:
                break
            ids = [event_id for event_id, _ in entries_of(seal.entries)]
            await queries.delete_events(session, ids, since=seal.first_at, until=seal.last_at)
            await queries.delete_seal(session, seal.seq)
            head.pruned_seq, head.pruned_digest, head.events = seal.seq, seal.digest, head.events - len(ids)
            total += len(ids)
        if total:
            await _sign_head(session, head, runtime.secrets)
            await audit.record(
                session,
                Event.AUDIT_PRUNED,
                caller=caller,
                at=now,
                target="audit",
                target_type="audit",
                details={"events": total, "until_seal": head.pruned_seq},
            )
    return total


@repeated_on_conflict
async def _seal_batch(runtime: Runtime) -> int:
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        head = await queries.lock_head(session) or await _begin_chain(session, runtime.secrets)
        if head is None:
            return 0
        place = (head.sealed_until, head.sealed_until_id)
        events = await queries.list_unsealed(session, after=place, until=now - LAG, limit=BATCH)
        is_time_to_look_back = now - head.searched_at >= LOOK_BACK_INTERVAL
        late = await _list_late(session, head) if is_time_to_look_back else []
        if is_time_to_look_back:
            head.searched_at = now
        if events:
            head.sealed_until, head.sealed_until_id = events[-1].at, events[-1].id
        if events or late:
            await _add_seal(session, head, [*late, *events], runtime.secrets, now)
    return len(events)


async def _begin_chain(session: AsyncSession, secrets: Secrets) -> AuditHead | None:
    """The end of a chain that holds nothing yet; None when another worker has it."""
    key = secrets.newest(Purpose.AUDIT_SEAL)
    head = AuditHead(seq=0, digest=NO_DIGEST, events=0, pruned_seq=0, pruned_digest=NO_DIGEST)
    values = {
        "seq": head.seq,
        "digest": head.digest,
        "events": head.events,
        "pruned_seq": head.pruned_seq,
        "pruned_digest": head.pruned_digest,
        "sealed_until": BEGINNING,
        "sealed_until_id": FIRST_ID,
        "searched_at": BEGINNING,
        "key_id": key.key_id,
        "signature": key.sign(head_message(head)).hex(),
    }
    return await queries.lock_head(session) if await queries.insert_head(session, values) else None


async def _list_late(session: AsyncSession, head: AuditHead) -> Sequence[AuditEvent]:
    """Events of the time just before the end of the chain that no seal holds: they were committed late."""
    since, until = head.sealed_until - LOOK_BACK, head.sealed_until
    places = await queries.list_ids(
        session, after=(since, FIRST_ID), until=(until, head.sealed_until_id), limit=1_000_000
    )
    sealed = ids_in(await queries.list_entries(session, since=since, until=until))
    missing = [event_id for _, event_id in places if event_id not in sealed]
    return await queries.list_events_by_id(session, missing[:BATCH], since=since, until=until) if missing else []


def ids_in(entries: Collection[bytes]) -> set[UUID]:
    """The ids of all events in some seals."""
    return {event_id for each in entries for event_id, _ in entries_of(each)}


async def _add_seal(
    session: AsyncSession, head: AuditHead, events: Sequence[AuditEvent], secrets: Secrets, now: datetime
) -> None:
    key = secrets.newest(Purpose.AUDIT_SEAL)
    entries = b"".join(map(entry, events))
    head.seq, head.events = head.seq + 1, head.events + len(events)
    head.digest = chained(head.digest, head.seq, entries)
    await queries.insert_seal(
        session,
        {
            "seq": head.seq,
            "sealed_at": now,
            "first_at": min(event.at for event in events),
            "last_at": max(event.at for event in events),
            "entries": entries,
            "digest": head.digest,
            "key_id": key.key_id,
            "signature": key.sign(seal_message(head.seq, head.digest)).hex(),
        },
    )
    await _sign_head(session, head, secrets)


async def _sign_head(session: AsyncSession, head: AuditHead, secrets: Secrets) -> None:
    key = secrets.newest(Purpose.AUDIT_SEAL)
    head.key_id, head.signature = key.key_id, key.sign(head_message(head)).hex()
    await session.flush()
