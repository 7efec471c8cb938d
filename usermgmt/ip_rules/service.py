"""IP rules: keeping them. How they are enforced is in `usermgmt.ip_rules.in_force`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.errors import Conflict, FieldError, NotFound, ValidationFailed
from usermgmt.identifiers import new_id
from usermgmt.ip_rules import queries
from usermgmt.ip_rules.in_force import read_book, refresh_rule_book, subjects_of
from usermgmt.ip_rules.models import IpRule
from usermgmt.permissions import RuleSet
from usermgmt.roles import queries as role_queries
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.security.rule_book import EVERYONE, Action, Mode, Subject, SubjectKind
from usermgmt.storage.faults import repeated_on_conflict

MAX_RULES = 1_000


class IpRuleNotFound(NotFound):
    """There is no IP rule with this id."""

    code = "ip_rule_not_found"
    detail = "There is no such IP rule."


class WouldLockOut(Conflict):
    """The change would refuse its author's next call from this address."""

    code = "would_lock_out"
    detail = "This would shut out your own address. Send force=true if you mean it."


class TooManyIpRules(Conflict):
    """There is a limit to how many rules every call is held against."""

    code = "too_many_ip_rules"
    detail = f"There are {MAX_RULES} IP rules already."


@dataclass(frozen=True, slots=True)
class NewRule:
    """What a rule is made from."""

    network: str
    action: Action
    subject: Subject = EVERYONE
    mode: Mode = Mode.ENFORCE
    expires_at: datetime | None = None
    note: str = ""


async def list_rules(runtime: Runtime) -> Sequence[IpRule]:
    """Every rule, newest first."""
    async with runtime.database.read() as session:
        return await queries.list_rules(session)


async def get_rule(runtime: Runtime, rule_id: UUID) -> IpRule:
    """One rule, or `IpRuleNotFound`."""
    async with runtime.database.read() as session:
        row = await queries.find_rule(session, rule_id)
    if row is None:
        raise IpRuleNotFound
    return row


@repeated_on_conflict
async def create_rule(runtime: Runtime, caller: Caller, new: NewRule, *, is_forced: bool = False) -> IpRule:
    """Add a rule. In force here at once, elsewhere within a second. Refused: `ValidationFailed` for a role or user that
    does not exist or a time that is over, `TooManyIpRules`, `WouldLockOut`.
    """
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await queries.update_version(session)
        await _check(session, new.subject, new.expires_at, now)
        if await queries.count_rules(session) >= MAX_RULES:
            raise TooManyIpRules
        values = {
            "id": new_id(),
            "network": new.network,
            "action": new.action,
            "subject_kind": new.subject.kind,
            "subject": new.subject.name,
            "mode": new.mode,
            "note": new.note,
            "expires_at": new.expires_at,
            "hits": 0,
            "created_by": caller.user_id,
            "created_at": now,
            "updated_at": now,
        }
        row = await queries.insert_rule(session, values)
        await _conclude(session, caller, row, Event.IP_RULE_CREATED, now, is_forced=is_forced)
    await refresh_rule_book(runtime)
    return row


@repeated_on_conflict
async def update_rule(
    runtime: Runtime, caller: Caller, rule_id: UUID, changes: Mapping[str, Any], *, is_forced: bool = False
) -> IpRule:
    """Set what `changes` names: fields of `NewRule`. Refused: `IpRuleNotFound`, and as `create_rule`."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await queries.update_version(session)
        subject: Subject | None = changes.get("subject")
        await _check(session, subject, changes.get("expires_at"), now)
        values = {name: value for name, value in changes.items() if name != "subject"}
        if subject is not None:
            values |= {"subject_kind": subject.kind, "subject": subject.name}
        row = await queries.update_rule(session, rule_id, {**values, "updated_at": now})
        if row is None:
            raise IpRuleNotFound
        await _conclude(session, caller, row, Event.IP_RULE_UPDATED, now, is_forced=is_forced)
    await refresh_rule_book(runtime)
    return row


@repeated_on_conflict
async def delete_rule(runtime: Runtime, caller: Caller, rule_id: UUID, *, is_forced: bool = False) -> None:
    """Remove a rule. Refused: `IpRuleNotFound`, `WouldLockOut`."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await queries.update_version(session)
        row = await queries.delete_rule(session, rule_id)
        if row is None:
            raise IpRuleNotFound
        await _conclude(session, caller, row, Event.IP_RULE_DELETED, now, is_forced=is_forced)
    await refresh_rule_book(runtime)


@repeated_on_conflict
async def suspend_rules(runtime: Runtime, caller: Caller) -> int:
    """Break the glass: every rule only reports from now on; how many decided until now."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await queries.update_version(session)
        suspended = await queries.update_modes(session, before=Mode.ENFORCE, after=Mode.REPORT, at=now)
        await audit.record(
            session,
            Event.IP_RULES_SUSPENDED,
            caller=caller,
            at=now,
            target="ip_rules",
            target_type=TargetType.IP_RULES,
            details={"rules": len(suspended)},
        )
    await refresh_rule_book(runtime)
    return len(suspended)


async def _check(session: AsyncSession, subject: Subject | None, expires_at: datetime | None, now: datetime) -> None:
    """Refuse subjects that do not exist, and times that are over."""
    errors = []
    if expires_at is not None and expires_at <= now:
        errors.append(FieldError(code="in_the_past", detail="This time is over.", pointer="/expires_at"))
    if subject is not None and not await _exists(session, subject):
        errors.append(
            FieldError(code="unknown_subject", detail=f"There is no {subject.kind} {subject.name}.", pointer="/subject")
        )
    if errors:
        raise ValidationFailed(errors)


async def _exists(session: AsyncSession, subject: Subject) -> bool:
    if subject.kind is SubjectKind.ROLE:
        return await role_queries.find_role(session, subject.name or "") is not None
    if subject.kind is SubjectKind.USER:
        return await queries.has_user(session, UUID(subject.name))
    return True


async def _conclude(
    session: AsyncSession,
    caller: Caller,
    row: IpRule,
    event: Event,
    now: datetime,
    *,
    is_forced: bool,
) -> None:
    """Refuse a change that its author would not survive; record it."""
    if caller.principal is not None and not is_forced:
        book = await read_book(session)
        own = subjects_of(caller.user_id, caller.rights)
        subjects = [EVERYONE, *own, Subject(SubjectKind.SET, RuleSet.ADMIN)]
        if not book.decide(caller.client.address, subjects, now=now).is_allowed:
            raise WouldLockOut
    await audit.record(
        session,
        event,
        caller=caller,
        at=now,
        target=str(row.id),
        target_type=TargetType.IP_RULE,
        details={
            "network": row.network,
            "action": row.action,
            "subject": str(Subject(SubjectKind(row.subject_kind), row.subject)),
            "mode": row.mode,
        },
    )
