"""A batch of an import: rows on their way to being accounts, whole or not at all, each with what became of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.errors import ApiError, DatabaseUnavailable, FieldError, Overloaded
from usermgmt.groups import queries as group_queries
from usermgmt.identifiers import new_id
from usermgmt.imports import queries
from usermgmt.imports.queries import NewAccount
from usermgmt.imports.rows import Row
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.roles.service import rights_of
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller
from usermgmt.storage.faults import RepeatableConflict
from usermgmt.users.service import EmailTaken, UsernameTaken

MOST_TRIES = 5
HASH_PAUSE = 0.5  # seconds
OTHER_NAMES = "The account with this id has another username or address; importing changes no account."


class RowOutcome(StrEnum):
    """What became of a row."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row's outcome: the account, or why there is none."""

    line: int
    outcome: RowOutcome
    user_id: UUID | None = None
    code: str | None = None
    detail: str | None = None
    errors: Sequence[FieldError] = ()


async def carry_out(
    runtime: Runtime, caller: Caller, rows: Sequence[tuple[int, Row | ApiError]], *, is_dry_run: bool
) -> list[RowReport]:
    """Make accounts of the rows that can be, each given with its line's number or as why it is none; what became of
    each, in order. Raises `DatabaseUnavailable`.
    """
    return await _Batch(runtime, caller, await _Allowed.read(runtime, caller), rows).carry_out(is_dry_run=is_dry_run)


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


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who has a name: an account, or the line of this batch that is to become one, with the id that it asks for."""

    user_id: UUID | None
    line: int | None = None

    def is_account(self, user_id: UUID | None) -> bool:
        """Whether it is the account with this id."""
        return user_id is not None and self.user_id == user_id


class _Batch:
    """Some rows, on their way to being accounts."""

    def __init__(
        self, runtime: Runtime, caller: Caller, allowed: _Allowed, rows: Sequence[tuple[int, Row | ApiError]]
    ) -> None:
        self._runtime = runtime
        self._caller = caller
        self._allowed = allowed
        self._reports: dict[int, RowReport] = {}
        self._rows: dict[int, Row] = {}
        for number, row in rows:
            if isinstance(row, ApiError):
                self._reports[number] = RowReport(number, RowOutcome.REFUSED, None, row.code, row.detail, row.errors)
            elif (problem := allowed.problem(row)) is not None:
                self._reports[number] = _refused(number, problem)
            else:
                self._rows[number] = row

    async def carry_out(self, *, is_dry_run: bool) -> list[RowReport]:
        for _ in range(MOST_TRIES):
            new = await self._new() if self._rows else {}
            if is_dry_run:
                self._reports |= {number: RowReport(number, RowOutcome.CREATED) for number in new}
                break
            hashes = await self._hashes(new)
            accounts = {number: self._account(row, hashes.get(number)) for number, row in new.items()}
            try:
                await self._insert(accounts)
            except RepeatableConflict:  # somebody took a name since: see which
                continue
            for number, account in accounts.items():
                self._reports[number] = RowReport(number, RowOutcome.CREATED, account.user_id)
            break
        else:
            raise DatabaseUnavailable
        return [self._reports[number] for number in sorted(self._reports)]

    async def _new(self) -> dict[int, Row]:
        """The rows that are no account yet; the others are reported."""
        names = [name for row in self._rows.values() for name in (row.username_key, row.email_key)]
        async with self._runtime.database.read() as session:
            owners = await queries.list_owners(session, names)
            ids = await queries.list_known_ids(
                session,
                [row.user_id for row in self._rows.values() if row.user_id],
                with_erased=not self._caller.is_operator,  # who may bring back what was exported
            )
        holders = {name: _Holder(user_id) for name, user_id in owners.items()}
        new: dict[int, Row] = {}
        for number, row in self._rows.items():
            by_username, by_email = holders.get(row.username_key), holders.get(row.email_key)
            if by_username is None and by_email is None and row.user_id not in ids:
                holders[row.username_key] = holders[row.email_key] = _Holder(row.user_id, number)
                if row.user_id is not None:
                    ids.add(row.user_id)
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
                target_type=TargetType.USERS,
                details={"count": len(accounts)},
            )
            await queries.insert_accounts(session, list(accounts.values()), added_by=self._caller.user_id, at=now)


def _existing(number: int, row: Row, by_username: _Holder | None, by_email: _Holder | None) -> RowReport:
    """A row whose names or id somebody has: the same account, or another one."""
    if by_username is not None and by_username == by_email and row.user_id in (None, by_username.user_id):
        return RowReport(number, RowOutcome.EXISTS, by_username.user_id)
    holders = [holder for holder in (by_username, by_email) if holder is not None]
    if holders and all(holder.is_account(row.user_id) for holder in holders):
        return _refused(number, FieldError("other_names", OTHER_NAMES, "/id"))
    if by_username is not None and not by_username.is_account(row.user_id):
        return _refused(number, FieldError(UsernameTaken.code, UsernameTaken.detail, "/username"))
    if by_email is not None and not by_email.is_account(row.user_id):
        return _refused(number, FieldError(EmailTaken.code, EmailTaken.detail, "/email"))
    return _refused(number, FieldError("id_taken", "Another account has this id.", "/id"))


def _refused(number: int, problem: FieldError) -> RowReport:
    return RowReport(number, RowOutcome.REFUSED, None, problem.code, problem.detail, (problem,))
