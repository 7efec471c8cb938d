"""Exporting accounts, and importing them: in batches, each whole or not at all, and every row with what became of it.

An import can be repeated: an account that is there already under the same names is left as it is, so that a run that
was cut ends where an uncut one would have. The record has one event for each batch.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from uuid import UUID

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event
from usermgmt.errors import ApiError, DatabaseUnavailable, FieldError, Malformed, Overloaded
from usermgmt.groups import queries as group_queries
from usermgmt.identifiers import new_id
from usermgmt.imports import queries
from usermgmt.imports.queries import NewAccount
from usermgmt.imports.reading import Line
from usermgmt.imports.rows import Row, read_row
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.roles.service import rights_of
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Renew
from usermgmt.storage.faults import RepeatableConflict
from usermgmt.users import queries as user_queries
from usermgmt.users import service as users
from usermgmt.users.lists import Filters, Order
from usermgmt.users.service import UserView

BATCH = 4_000
AT_ONCE = 2  # batches, while the next one is read
MOST_TRIES = 5
HASH_PAUSE = 0.5  # seconds
OTHER_NAMES = "The account with this id has another username or address; importing changes no account."


class TooManyRefused(Malformed):
    """An import was ended, since too many of its rows are refused."""

    code = "too_many_refused"
    detail = "Too many rows are refused. The accounts that were made stay; mend the file and send it again."


class Outcome(StrEnum):
    """What became of a row."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Report:
    """One row's outcome: the account, or why there is none."""

    line: int
    outcome: Outcome
    user_id: UUID | None = None
    code: str | None = None
    detail: str | None = None
    errors: Sequence[FieldError] = ()


@dataclass(slots=True)
class Totals:
    """How many rows had which outcome, and the line of the last."""

    created: int = 0
    exists: int = 0
    refused: int = 0
    last_line: int = 0

    def add(self, reports: Sequence[Report]) -> None:
        """Count more rows."""
        for report in reports:
            setattr(self, report.outcome, getattr(self, report.outcome) + 1)
            self.last_line = report.line


async def import_users(
    runtime: Runtime,
    caller: Caller,
    lines: Iterator[Line],
    *,
    renew: Renew | None = None,
    most_refused: int | None = None,
    is_dry_run: bool = False,
) -> AsyncGenerator[list[Report], None]:
    """Make the accounts that the lines describe, and report batch by batch.

    The caller must hold `users:write` over everything; `renew` asks before each batch whether that is so still. Raises
    what it and reading the lines raise, `TooManyRefused` once more than `most_refused` rows are, and
    `DatabaseUnavailable`; the batches that were reported stay.
    """
    most = 1 if runtime.database.is_sqlite else AT_ONCE
    under_way: deque[asyncio.Task[list[Report]]] = deque()
    refused = 0
    try:
        while batch := await _next_batch(runtime, lines):
            caller = await renew() if renew is not None else caller
            work = _Batch(runtime, caller, await _Allowed.read(runtime, caller), batch).carry_out(is_dry_run=is_dry_run)
            under_way.append(asyncio.create_task(work))
            if len(under_way) > most:
                reports = await under_way.popleft()
                yield reports
                refused += sum(report.outcome is Outcome.REFUSED for report in reports)
                if most_refused is not None and refused > most_refused:
                    break
        is_cut = bool(batch)
        while under_way:
            yield await under_way.popleft()
    finally:
        await asyncio.gather(*under_way, return_exceptions=True)
    if is_cut:
        raise TooManyRefused


async def export_users(
    runtime: Runtime, caller: Caller, *, with_hashes: bool
) -> AsyncGenerator[list[tuple[UserView, str | None]], None]:
    """Every account that the caller may read, batch by batch, each with what is stored for its password if asked for.

    It is on record before anything is given, since whoever stops halfway has that half.
    """
    async with runtime.database.begin() as session:
        await audit.record(
            session,
            Event.USERS_EXPORTED,
            caller=caller,
            at=runtime.clock.now(),
            target="all",
            target_type="users",
            details={"hashes": with_hashes},
        )
    async for views in users.stream_users(runtime, caller, Filters(), order=Order.CREATED):
        hashes: Mapping[UUID, str | None] = {}
        if with_hashes:
            async with runtime.database.read() as session:
                hashes = await user_queries.list_password_hashes(session, [view.user.id for view in views])
        yield [(view, hashes.get(view.user.id)) for view in views]


async def _next_batch(runtime: Runtime, lines: Iterator[Line]) -> list[tuple[int, Row | ApiError]]:
    """The next rows, checked. One import of the process at a time has its turn: each thread that checks rows slows
    down whatever else the process answers.
    """
    async with runtime.import_turn:
        return await asyncio.to_thread(_read_batch, runtime, lines)


def _read_batch(runtime: Runtime, lines: Iterator[Line]) -> list[tuple[int, Row | ApiError]]:
    """The next rows, checked; beside the event loop, since a thousand of them take a while."""
    found: list[tuple[int, Row | ApiError]] = []
    for line in islice(lines, BATCH):
        checked: Row | ApiError | None = line.problem
        if checked is None:
            try:
                checked = read_row(line.fields, runtime.password_policy)
            except ApiError as problem:
                checked = problem
        if isinstance(checked, ApiError):
            checked.__traceback__ = checked.__context__ = checked.__cause__ = None  # which keep all that was read
        found.append((line.number, checked))
    return found


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What rows may name: the roles that the caller may give, and the groups."""

    roles: Mapping[str, bool]
    groups: Mapping[str, UUID]
    may_grant: bool
    may_group: bool

    @classmethod
    async def read(cls, runtime: Runtime, caller: Caller) -> "_Allowed":
        async with runtime.database.read() as session:
            roles = await role_queries.list_roles(session)
            groups = await group_queries.list_groups(session)
        return cls(
            roles={role.name: caller.covers(rights_of(role)) for role in roles},
            groups={name: group.id for group in groups for name in (group.name, str(group.id))},
            may_grant=caller.reach(Permission.ROLES_GRANT).is_everyone,
            may_group=caller.has(Permission.GROUPS_MANAGE),
        )

    def problem(self, row: Row) -> FieldError | None:
        """Why a row may not have the roles or the groups that it names."""
        for index, name in enumerate(row.roles or ()):
            if name not in self.roles:
                return FieldError("unknown_role", "There is no such role.", f"/roles/{index}")
            if not (self.may_grant and self.roles[name]):
                return FieldError("exceeds_own_rights", "You may not give this role.", f"/roles/{index}")
        for index, name in enumerate(row.groups):
            if name not in self.groups:
                return FieldError("unknown_group", "There is no such group.", f"/groups/{index}")
            if not self.may_group:
                return FieldError("exceeds_own_rights", "You may not manage groups.", f"/groups/{index}")
        return None


class _Batch:
    """Some rows, on their way to being accounts."""

    def __init__(
        self, runtime: Runtime, caller: Caller, allowed: _Allowed, rows: list[tuple[int, Row | ApiError]]
    ) -> None:
        self._runtime = runtime
        self._caller = caller
        self._allowed = allowed
        self._reports: dict[int, Report] = {}
        self._rows: dict[int, Row] = {}
        for number, row in rows:
            if isinstance(row, ApiError):
                self._reports[number] = Report(number, Outcome.REFUSED, None, row.code, row.detail, row.errors)
            elif (problem := allowed.problem(row)) is not None:
                self._reports[number] = _refused(number, problem.code, problem)
            else:
                self._rows[number] = row

    async def carry_out(self, *, is_dry_run: bool) -> list[Report]:
        """Make accounts of the rows that can be; what became of each, in order."""
        for _ in range(MOST_TRIES):
            new = await self._new() if self._rows else {}
            if is_dry_run:
                self._reports |= {number: Report(number, Outcome.CREATED) for number in new}
                break
            hashes = await self._hashes(new)
            accounts = {number: self._account(row, hashes.get(number)) for number, row in new.items()}
            try:
                await self._insert(accounts)
            except RepeatableConflict:  # somebody took a name since: see which
                continue
            for number, account in accounts.items():
                self._reports[number] = Report(number, Outcome.CREATED, account.user_id)
            break
        else:
            raise DatabaseUnavailable
        return [self._reports[number] for number in sorted(self._reports)]

    async def _new(self) -> dict[int, Row]:
        """The rows that are no account yet; the others are reported."""
        names = [name for row in self._rows.values() for name in (row.username_key, row.email_key)]
        async with self._runtime.database.read() as session:
            owners: dict[str, object] = dict(await queries.list_owners(session, names))
            ids: set[object] = set(
                await queries.list_known_ids(
                    session,
                    [row.user_id for row in self._rows.values() if row.user_id],
                    with_erased=not self._caller.is_operator,  # who may bring back what was exported
                )
            )
        new: dict[int, Row] = {}
        for number, row in self._rows.items():
            by_username, by_email = owners.get(row.username_key), owners.get(row.email_key)
            if by_username is None and by_email is None and row.user_id not in ids:
                owners[row.username_key] = owners[row.email_key] = row.user_id or number
                ids |= {row.user_id} - {None}
                new[number] = row
            else:
                self._reports[number] = _existing(number, row, by_username, by_email)
        return new

    async def _hashes(self, rows: Mapping[int, Row]) -> dict[int, str]:
        """What is stored for the passwords of rows that give one; as many at a time as there are threads for it."""
        hasher = self._runtime.hasher
        turn = asyncio.Semaphore(hasher.workers)

        async def hashed(password: str) -> str:
            async with turn:
                while True:
                    try:
                        return await hasher.hash(password)
                    except Overloaded:  # whoever signs in goes first
                        await asyncio.sleep(HASH_PAUSE)

        given = {number: row.password for number, row in rows.items() if row.password is not None}
        return dict(zip(given, await asyncio.gather(*map(hashed, given.values())), strict=True))

    def _account(self, row: Row, hashed: str | None) -> NewAccount:
        default = self._runtime.settings.registration.default_role
        return NewAccount(
            user_id=row.user_id or new_id(),
            row=row,
            stored_hash=hashed or row.stored_hash,
            roles=row.roles if row.roles is not None else (default,),
            groups=list({self._allowed.groups[name]: None for name in row.groups}),
        )

    async def _insert(self, accounts: Mapping[int, NewAccount]) -> None:
        if not accounts:
            return
        now = self._runtime.clock.now()
        async with self._runtime.database.begin() as session:
            await audit.record(
                session,
                Event.USERS_IMPORTED,
                caller=self._caller,
                at=now,
                target=f"lines {min(accounts)} to {max(accounts)}",
                target_type="users",
                details={"count": len(accounts)},
            )
            await queries.insert_accounts(session, list(accounts.values()), added_by=self._caller.user_id, at=now)


def _existing(number: int, row: Row, by_username: object, by_email: object) -> Report:
    """A row whose names or id somebody has: the same account, or another one."""
    is_same = by_username == by_email and by_username is not None and row.user_id in (None, by_username)
    if is_same:
        return Report(number, Outcome.EXISTS, by_username if isinstance(by_username, UUID) else None)
    taken = {by_username, by_email} - {None}
    if taken == {row.user_id}:
        return _refused(number, "other_names", FieldError("other_names", OTHER_NAMES, "/id"))
    if by_username is not None and by_username != row.user_id:
        return _refused(number, "username_taken", FieldError("username_taken", "This username is taken.", "/username"))
    if by_email is not None and by_email != row.user_id:
        return _refused(number, "email_taken", FieldError("email_taken", "This address is taken.", "/email"))
    return _refused(number, "id_taken", FieldError("id_taken", "Another account has this id.", "/id"))


def _refused(number: int, code: str, problem: FieldError) -> Report:
    return Report(number, Outcome.REFUSED, None, code, problem.detail, (problem,))
