"""Verifying the record against its seals: the first thing that was changed, removed, added or reordered is named."""

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import queries
from usermgmt.audit.digests import entries_of, event_digest, personal_digest, personal_parts_of
from usermgmt.audit.events import TargetType
from usermgmt.audit.models import AuditEvent, AuditHead, AuditSeal
from usermgmt.audit.seals import (
    BEGINNING,
    FIRST_ID,
    LOOK_BACK,
    Checkpoint,
    digest_of,
    head_message,
    judge_signature,
    seal_message,
)
from usermgmt.runtime import Runtime

SEALS_AT_ONCE = 20
PLACES_AT_ONCE = 5_000


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong. Without problems the record is as it was written.

    `unsealed` events are too new to have been sealed. While `is_end_proven` is false, the root secret that signed the
    end of the chain is not configured: the record agrees with itself, but who wrote it cannot be told.
    """

    seals: int = 0
    events: int = 0
    unsealed: int = 0
    erased: int = 0
    unchecked_signatures: int = 0
    is_end_proven: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class _Broken(Exception):
    """The first thing that is wrong, after which nothing that follows can be told."""


async def verify(runtime: Runtime, *, checkpoint: Checkpoint | None = None) -> Report:
    """Walk the whole chain in bounded memory, while the server goes on. A checkpoint that was kept elsewhere must be
    part of it.

    Signatures of root secrets that are no longer configured are counted, not held against the record.
    """
    async with runtime.database.read() as session:
        while True:
            head = await queries.find_head(session)
            walk = _Walk(runtime, session, head)
            session.expunge_all()
            try:
                await walk.verify(checkpoint)
            except _Broken as problem:
                if await _is_pruned_since(session, head):  # what was to be read next was rightly gone
                    continue
                walk.report.problems.append(str(problem))
            return walk.report


async def _is_pruned_since(session: AsyncSession, head: AuditHead | None) -> bool:
    session.expunge_all()
    present = await queries.find_head(session)
    session.expunge_all()
    return head is not None and present is not None and present.pruned_seq > head.pruned_seq


class _Walk:
    """One walk along the chain, up to the end that it had when the walk began."""

    def __init__(self, runtime: Runtime, session: AsyncSession, head: AuditHead | None) -> None:
        self.report = Report()
        self._secrets = runtime.secrets
        self._now = runtime.clock.now()
        self._session = session
        self._head = head
        self._erased_accounts: set[UUID] = set()

    async def verify(self, checkpoint: Checkpoint | None) -> None:
        head = self._head
        if head is not None:
            self._check_end(head)
            await self._verify_chain(head)
            await self._verify_completeness(head)
        await self._verify_tail()
        if checkpoint is not None:
            await self._verify_checkpoint(checkpoint)

    def _check_end(self, head: AuditHead) -> None:
        message = head_message(head)
        self._check_signature(message, head.key_id, head.signature, "the end of the chain")
        self.report.is_end_proven = self.report.unchecked_signatures == 0

    async def _verify_chain(self, head: AuditHead) -> None:
        seq, digest = head.pruned_seq, head.pruned_digest
        while seq < head.seq and (
            seals := await queries.list_seals(self._session, after=seq, limit=min(SEALS_AT_ONCE, head.seq - seq))
        ):
            for seal in seals:
                if seal.seq != seq + 1:
                    raise _Broken(f"seal {seq + 1} was removed")
                self._check_seal(seal, digest)
                await self._check_events(seal)
                seq, digest = seal.seq, seal.digest
                self.report.seals += 1
            self._session.expunge_all()
        if (seq, digest) != (head.seq, head.digest):
            raise _Broken(f"the tail was cut off: the chain ends at seal {seq}, and {head.seq} were made")
        if self.report.events != head.events:
            raise _Broken(f"the seals hold {self.report.events} events, and {head.events} were sealed")

    def _check_seal(self, seal: AuditSeal, previous: str) -> None:
        if seal.digest != digest_of(seal, previous):
            raise _Broken(f"seal {seal.seq} was changed: it does not follow from the one before")
        self._check_signature(seal_message(seal.seq, seal.digest), seal.key_id, seal.signature, f"seal {seal.seq}")

    def _check_signature(self, message: bytes, key_id: str, signature: str, what: str) -> None:
        verdict = judge_signature(self._secrets, message, key_id=key_id, signature=signature)
        if verdict is None:
            self.report.unchecked_signatures += 1
        elif not verdict:
            raise _Broken(f"{what} was changed: its signature is not ours")

    async def _check_events(self, seal: AuditSeal) -> None:
        """Hold each event against its entry, in the order of the entries."""
        entries = dict(entries_of(seal.entries))
        found = await queries.list_events_by_id(self._session, list(entries), since=seal.first_at, until=seal.last_at)
        events = {event.id: event for event in found}
        for event_id, count in Counter(event.id for event in found).items():
            if count > 1:
                raise _Broken(f"event {event_id} is there {count} times: one was added (seal {seal.seq})")
        for event_id, digest in entries.items():
            event = events.get(event_id)
            if event is None:
                raise _Broken(f"event {event_id} was removed, or its time was changed (seal {seal.seq})")
            if not hmac.compare_digest(event_digest(event), digest):
                raise _Broken(f"event {event_id} of {event.at.isoformat()} was changed (seal {seal.seq})")
            await self._check_personal_data(event)
            self.report.events += 1

    async def _check_personal_data(self, event: AuditEvent) -> None:
        """What is about a person is as it was written, or was erased with the person."""
        if event.salt is not None:
            if event.personal_digest != personal_digest(event.salt, personal_parts_of(event)):
                raise _Broken(f"event {event.id} of {event.at.isoformat()} was changed: name, address or user agent")
            return
        if event.personal_digest is None:  # written before there were seals
            return
        self.report.erased += 1
        is_empty = event.actor_name is event.address is event.user_agent is None
        if not is_empty or not await self._is_erased(_person_of(event)):
            raise _Broken(f"event {event.id} of {event.at.isoformat()} lost personal data, and nobody was erased")

    async def _is_erased(self, user_id: UUID | None) -> bool:
        if user_id is None:
            return False
        if user_id not in self._erased_accounts and await queries.has_erasure(self._session, user_id):
            self._erased_accounts.add(user_id)
        return user_id in self._erased_accounts

    async def _verify_completeness(self, head: AuditHead) -> None:
        """Find an event that was slipped in before the end of the chain."""
        place, end = None, (head.sealed_until, head.sealed_until_id)
        while places := await queries.list_ids(self._session, after=place, until=end, limit=PLACES_AT_ONCE):
            await self._find_unsealed(head, places)
            place = places[-1]

    async def _find_unsealed(self, head: AuditHead, places: Sequence[tuple[datetime, UUID]]) -> None:
        since, until = places[0][0], places[-1][0]
        seals = await queries.list_entries(self._session, since=since, until=until, last_seq=head.seq)
        spans = {
            event_id: (first_at, last_at) for first_at, last_at, entries in seals for event_id, _ in entries_of(entries)
        }
        for at, event_id in places:
            first_at, last_at = spans.get(event_id, (None, None))
            if first_at is not None and last_at is not None and first_at <= at <= last_at:
                continue
            if at <= head.sealed_until - LOOK_BACK:  # a later one will be sealed with the next
                raise _Broken(f"event {event_id} of {at.isoformat()} was added after its time was sealed")
            self.report.unsealed += 1

    async def _verify_tail(self) -> None:
        """Find what stands after the end of the chain and cannot: seals that nobody made, events yet to come."""
        last_seq = await queries.find_last_seq(self._session)
        self._session.expunge_all()
        present = await queries.find_head(self._session)  # after the seals: it may have moved on, never back
        if last_seq > (present.seq if present is not None else 0):
            what = "the end of the chain was removed" if present is None else f"seal {last_seq} was added"
            raise _Broken(what)
        coming = await queries.find_event_after(self._session, self._now + LOOK_BACK)
        if coming is not None:
            raise _Broken(f"event {coming.id} was added: its time, {coming.at.isoformat()}, is yet to come")
        end = (self._head.sealed_until, self._head.sealed_until_id) if self._head is not None else (BEGINNING, FIRST_ID)
        self.report.unsealed += await queries.count_events(self._session, after=end)

    async def _verify_checkpoint(self, checkpoint: Checkpoint) -> None:
        message = seal_message(checkpoint.seq, checkpoint.digest)
        if judge_signature(self._secrets, message, key_id=checkpoint.key_id, signature=checkpoint.signature) is False:
            raise _Broken("the checkpoint is not one that this server signed")
        head = self._head
        if head is not None and checkpoint.seq < head.pruned_seq:
            return
        if head is not None and checkpoint.seq == head.pruned_seq:
            digest: str | None = head.pruned_digest
        else:
            seal = await queries.find_seal(self._session, checkpoint.seq)
            digest = seal.digest if seal is not None else None
        if digest != checkpoint.digest:
            raise _Broken(f"the chain was rewritten or cut off since the checkpoint of seal {checkpoint.seq}")


def _person_of(event: AuditEvent) -> UUID | None:
    """Whose personal data an event held: the actor's, those of whom a typed name led to, else the owner's."""
    if event.actor_id is not None:
        return event.actor_id
    if event.target_type != TargetType.LOGIN_NAME:
        return event.owner_id
    try:
        return UUID(event.target_id or "")
    except ValueError:
        return None
