"""Verifying the record against its seals: the first thing that was changed, removed, added or reordered is named."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries
from usermgmt.audit.digests import chained, entries_of, event_digest, personal_digest, personal_parts_of
from usermgmt.audit.models import AuditEvent, AuditHead, AuditSeal
from usermgmt.audit.seals import FIRST_ID, LOOK_BACK, Checkpoint, head_message, ids_in, seal_message
from usermgmt.runtime import Runtime
from usermgmt.security.secrets import Purpose, Secrets

SEALS_AT_ONCE = 20
PLACES_AT_ONCE = 5_000


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong. Without problems the record is as it was written."""

    seals: int = 0
    events: int = 0
    erased: int = 0
    unchecked_signatures: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class _Broken(Exception):
    """The first thing that is wrong, after which nothing that follows can be told."""


async def verify(runtime: Runtime, *, checkpoint: Checkpoint | None = None) -> Report:
    """Walk the whole chain in bounded memory. A checkpoint that was kept elsewhere must be part of it.

    Signatures of root secrets that are no longer configured are counted, not held against the record.
    """
    report = Report()
    async with runtime.database.read() as session:
        head = await queries.find_head(session)
        try:
            if head is not None:
                await _verify_chain(session, runtime.secrets, head, report)
                await _verify_completeness(session, head)
            if checkpoint is not None:
                await _verify_checkpoint(session, runtime.secrets, head, checkpoint)
        except _Broken as problem:
            report.problems.append(str(problem))
    return report


async def _verify_chain(session: AsyncSession, secrets: Secrets, head: AuditHead, report: Report) -> None:
    _check_signature(secrets, head_message(head), head.key_id, head.signature, "the end of the chain", report)
    seq, digest = head.pruned_seq, head.pruned_digest
    while seals := await queries.list_seals(session, after=seq, limit=SEALS_AT_ONCE):
        for seal in seals:
            if seal.seq != seq + 1:
                raise _Broken(f"seal {seq + 1} was removed")
            _check_seal(secrets, seal, digest, report)
            await _check_events(session, seal, report)
            seq, digest = seal.seq, seal.digest
            report.seals += 1
        session.expunge_all()
    if (seq, digest) != (head.seq, head.digest):
        raise _Broken(f"the tail was cut off: the chain ends at seal {seq}, and {head.seq} were made")


def _check_seal(secrets: Secrets, seal: AuditSeal, previous: str, report: Report) -> None:
    if seal.digest != chained(previous, seal.seq, seal.entries):
        raise _Broken(f"seal {seal.seq} was changed: it does not follow from the one before")
    message = seal_message(seal.seq, seal.digest)
    _check_signature(secrets, message, seal.key_id, seal.signature, f"seal {seal.seq}", report)


def _check_signature(secrets: Secrets, message: bytes, key_id: str, signature: str, what: str, report: Report) -> None:
    keys = [key for key in secrets.all(Purpose.AUDIT_SEAL) if key.key_id == key_id]
    if not keys:
        report.unchecked_signatures += 1
    elif not hmac.compare_digest(keys[0].sign(message).hex(), signature):
        raise _Broken(f"{what} was changed: its signature is not ours")


async def _check_events(session: AsyncSession, seal: AuditSeal, report: Report) -> None:
    """Hold each event against its entry, in the order of the entries."""
    entries = dict(entries_of(seal.entries))
    found = await queries.list_events_by_id(session, list(entries), since=seal.first_at, until=seal.last_at)
    events: Mapping[UUID, AuditEvent] = {event.id: event for event in found}
    for event_id, digest in entries.items():
        event = events.get(event_id)
        if event is None:
            raise _Broken(f"event {event_id} was removed, or its time was changed (seal {seal.seq})")
        if not hmac.compare_digest(event_digest(event), digest):
            raise _Broken(f"event {event_id} of {event.at.isoformat()} was changed (seal {seal.seq})")
        await _check_personal_data(session, event, report)
        report.events += 1


async def _check_personal_data(session: AsyncSession, event: AuditEvent, report: Report) -> None:
    """What is about a person is as it was written, or was erased with the person."""
    parts = personal_parts_of(event)
    if event.salt is not None:
        if event.personal_digest != personal_digest(event.salt, parts):
            raise _Broken(f"event {event.id} of {event.at.isoformat()} was changed: name, address or user agent")
        return
    if event.personal_digest is None:  # written before there were seals
        return
    report.erased += 1
    owners = [user_id for user_id in (event.owner_id, event.actor_id) if user_id is not None]
    is_typed_name = event.target_type == "login_name"
    if any(parts) or not (is_typed_name or await queries.has_erasure(session, owners)):
        raise _Broken(f"event {event.id} of {event.at.isoformat()} lost personal data, and nobody was erased")


async def _verify_completeness(session: AsyncSession, head: AuditHead) -> None:
    """Find an event that was slipped in before the end of the chain."""
    end = (head.sealed_until, head.sealed_until_id)
    if await queries.count_events(session, until=end) == head.events:
        return
    place = (datetime.min.replace(year=1970, tzinfo=head.sealed_until.tzinfo), FIRST_ID)
    while places := await queries.list_ids(session, after=place, until=end, limit=PLACES_AT_ONCE):
        await _find_unsealed(session, head, places)
        place = places[-1]


async def _find_unsealed(session: AsyncSession, head: AuditHead, places: Sequence[tuple[datetime, UUID]]) -> None:
    sealed = ids_in(await queries.list_entries(session, since=places[0][0], until=places[-1][0]))
    for at, event_id in places:
        is_late = at > head.sealed_until - LOOK_BACK  # and will be sealed with the next
        if event_id not in sealed and not is_late:
            raise _Broken(f"event {event_id} of {at.isoformat()} was added after its time was sealed")


async def _verify_checkpoint(
    session: AsyncSession, secrets: Secrets, head: AuditHead | None, checkpoint: Checkpoint
) -> None:
    keys = [key for key in secrets.all(Purpose.AUDIT_SEAL) if key.key_id == checkpoint.key_id]
    signature = keys[0].sign(seal_message(checkpoint.seq, checkpoint.digest)).hex() if keys else None
    if signature is not None and not hmac.compare_digest(signature, checkpoint.signature):
        raise _Broken("the checkpoint is not one that this server signed")
    if head is not None and checkpoint.seq <= head.pruned_seq:
        return
    seal = await queries.find_seal(session, checkpoint.seq)
    if seal is None or seal.digest != checkpoint.digest:
        raise _Broken(f"the chain was rewritten or cut off since the checkpoint of seal {checkpoint.seq}")
