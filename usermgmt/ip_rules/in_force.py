"""IP rules as they are in force: in the memory of each process, held against every call.

How they decide is in `usermgmt.security.rule_book`.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.errors import Forbidden
from usermgmt.ip_rules import queries
from usermgmt.ip_rules.models import IpRule
from usermgmt.permissions import Rights
from usermgmt.roles import queries as role_queries
from usermgmt.runtime import Runtime
from usermgmt.security.address import parse_network
from usermgmt.security.principal import Caller, Client
from usermgmt.security.rule_book import EVERYONE, Action, Decision, Mode, Rule, RuleBook, Subject, SubjectKind

REFRESH_INTERVAL = timedelta(milliseconds=500)
HITS_INTERVAL = timedelta(seconds=5)


class AddressDenied(Forbidden):
    """An IP rule refuses calls from this address."""

    code = "address_denied"
    detail = "Calls from your address are not allowed here."


def refuse_client(runtime: Runtime, client: Client, rule_set: str | None) -> None:
    """Refuse, with `AddressDenied`, an address that may not call at all, or not what demands this set of rules."""
    subjects = [EVERYONE] if rule_set is None else [EVERYONE, Subject(SubjectKind.SET, rule_set)]
    _refuse(runtime, client.address, subjects)


def refuse_principal(runtime: Runtime, caller: Caller) -> None:
    """Refuse, with `AddressDenied`, an address from which this account, or a role that it holds, may not call."""
    _refuse(runtime, caller.client.address, subjects_of(caller.user_id, caller.rights))


def _refuse(runtime: Runtime, address: str | None, subjects: Sequence[Subject]) -> None:
    decision = runtime.rule_book.decide(address, subjects, now=runtime.clock.now())
    runtime.rule_hits.add(decision.deciding_rules)
    if not decision.is_allowed:
        raise AddressDenied


def subjects_of(user_id: UUID | None, rights: Rights) -> list[Subject]:
    """Whatever a rule may name an account by."""
    roles = [Subject(SubjectKind.ROLE, role) for role in sorted(rights.roles)]
    return [*roles, Subject(SubjectKind.USER, str(user_id))]


async def explain(
    runtime: Runtime, address: str, *, user_id: UUID | None = None, rule_set: str | None = None
) -> Decision:
    """What the rules as they are stored say of an address, of an account that calls from it, and of a set."""
    subjects = [EVERYONE]
    async with runtime.database.read() as session:
        if user_id is not None:
            subjects += subjects_of(user_id, await role_queries.find_rights(session, user_id))
        if rule_set is not None:
            subjects.append(Subject(SubjectKind.SET, rule_set))
        book = await read_book(session)
    return book.decide(address, subjects, now=runtime.clock.now())


async def refresh_rule_book(runtime: Runtime) -> None:
    """Read the rules again if they have changed since."""
    async with runtime.database.read() as session:
        if await queries.find_version(session) != runtime.rule_book.version:
            runtime.rule_book = await read_book(session)


async def store_hits(runtime: Runtime) -> None:
    """Write down how often each rule had a say since the last time."""
    hits = runtime.rule_hits.take()
    if hits:
        async with runtime.database.begin() as session:
            await queries.update_hits(session, hits, at=runtime.clock.now())


async def read_book(session: AsyncSession) -> RuleBook:
    """The rules as this transaction sees them. The version is read first: a change in between is seen next time."""
    version = await queries.find_version(session)
    return RuleBook(map(_rule_of, await queries.list_rules(session)), version=version)


def _rule_of(row: IpRule) -> Rule:
    return Rule(
        id=row.id,
        network=parse_network(row.network),
        action=Action(row.action),
        subject=Subject(SubjectKind(row.subject_kind), row.subject),
        mode=Mode(row.mode),
        expires_at=row.expires_at,
    )
