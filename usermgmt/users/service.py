"""Accounts: reading and listing them, and what registering and changing have in common.

Making them is in `usermgmt.users.registration`; changing, deleting and restoring in `usermgmt.users.changes`; their
roles in `usermgmt.users.grants`.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from usermgmt.errors import Conflict, Forbidden, UserNotFound
from usermgmt.groups import queries as group_queries
from usermgmt.permissions import Permission
from usermgmt.roles import queries as role_queries
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Renew
from usermgmt.storage.bounded_reads import find_within
from usermgmt.storage.pages import Page, Position, page_of
from usermgmt.users import lists, queries
from usermgmt.users.lists import Count, Filters, Order
from usermgmt.users.models import NameKind, User
from usermgmt.users.reads import fetch_users
from usermgmt.users.rows import AccountRow

STREAM_BATCH = 500


class UsernameTaken(Conflict):
    """Another account signs in by this name."""

    code = "username_taken"
    detail = "Another account has this username."


class EmailTaken(Conflict):
    """Another account signs in by this address."""

    code = "email_taken"
    detail = "Another account has this e-mail address."


class LastAdmin(Conflict):
    """It would leave no active account with the admin role."""

    code = "last_admin"
    detail = "This is the last active administrator."


class FieldNotPermitted(Forbidden):
    """The caller may not set one of the fields that were sent."""

    code = "field_not_permitted"
    detail = "You may not set this field."


class UserView(NamedTuple):
    """An account as its readers see it: the row, the names of the roles held over everything, the ids of its groups.
    A page has fifty; a tuple is made in a third of the time of a frozen dataclass.
    """

    user: User | AccountRow
    roles: Sequence[str]
    groups: Sequence[UUID] = ()


async def get_user(runtime: Runtime, caller: Caller, user_id: UUID) -> UserView:
    """One account, the caller's own or one that `users:read` reaches; else `UserNotFound`."""
    reach = caller.reach(Permission.USERS_READ, or_own=True)
    if not reach.is_everyone and reach.own != user_id:
        async with runtime.database.read() as session:
            if await queries.find_user(session, user_id, reach) is None:
                raise UserNotFound
    found = await runtime.database.coalesced(fetch_users, user_id)
    if found is None:
        raise UserNotFound
    return UserView(found, found.roles, found.groups)


@dataclass(frozen=True, slots=True)
class UserPage:
    """A page of accounts, and how many there are if it was asked for."""

    page: Page[UserView]
    count: int | None = None
    is_count_exact: bool = True


async def list_users(
    runtime: Runtime,
    caller: Caller,
    filters: Filters,
    *,
    order: Order,
    position: Position | None,
    limit: int,
    count: Count,
    may_lag: bool = False,
) -> UserPage:
    """A page of the accounts that `users:read` reaches; with `may_lag` as a replica sees them, where there is one.

    They are counted exactly if that is asked for and does not take longer than `database.count_timeout`, else by an
    estimate. SQLite and a distributed database, which have no statistics, are always asked for the exact count first;
    the latter is not counted at all when that takes too long.
    """
    filters = replace(filters, reach=caller.reach(Permission.USERS_READ))
    async with runtime.database.read_rows(may_lag=may_lag) as rows:
        users = await lists.list_page(rows, filters, order=order, position=position, limit=limit)
    found = page_of(users, position, limit, lambda user: (lists.sort_value(user, order), user.id))
    page = Page([UserView(user, user.roles, user.groups) for user in found.items], found.next, found.previous)
    if count is Count.NONE:
        return UserPage(page)
    return await _counted(runtime, filters, page, count)


async def stream_users(
    runtime: Runtime,
    caller: Caller,
    filters: Filters,
    *,
    order: Order,
    may_lag: bool = False,
    renew: Renew | None = None,
) -> AsyncIterator[Sequence[UserView]]:
    """Every account that `users:read` reaches, in order, in batches; no connection is held between two batches.

    `renew` tells before each further batch what the caller may see by then; what it raises ends the list.
    """
    position: Position | None = None
    while True:
        found = await list_users(
            runtime,
            caller,
            filters,
            order=order,
            position=position,
            limit=STREAM_BATCH,
            count=Count.NONE,
            may_lag=may_lag,
        )
        yield found.page.items
        position = found.page.next
        if position is None:
            return
        caller = await renew() if renew is not None else caller


async def _counted(runtime: Runtime, filters: Filters, page: Page[UserView], count: Count) -> UserPage:
    """The page with the number of all. After it, so that a count never holds the page's connection."""
    settings = runtime.settings.database
    has_statistics = not runtime.database.is_sqlite and not settings.distributed
    if count is Count.EXACT or not has_statistics:
        patience = min(settings.count_timeout, settings.statement_timeout)
        counted = await find_within(runtime.database, *lists.count_statement(filters), patience=patience)
        if counted is not None:
            return UserPage(page, counted)
    if settings.distributed:  # the node that is asked has none of the rows, and knows of no number
        return UserPage(page)
    async with runtime.database.read() as session:
        return UserPage(page, await lists.estimate_users(session, filters), is_count_exact=False)


@asynccontextmanager
async def admin_kept(session: AsyncSession, *, needed: bool = True) -> AsyncIterator[None]:
    """Let the block do what may remove an admin, one transaction at a time; undo it if it removed the last one.

    Must be entered before the transaction does anything else. Refused: `LastAdmin`.
    """
    if not needed:
        yield
        return
    await role_queries.lock_admin_role(session)
    had_admin = await queries.has_active_admin(session)
    yield
    if had_admin and not await queries.has_active_admin(session):
        raise LastAdmin


async def view_of(session: AsyncSession, user: User) -> UserView:
    """An account with its roles and groups."""
    names = await role_queries.list_role_names(session, [user.id])
    groups = await group_queries.list_group_ids(session, [user.id])
    return UserView(user, names[user.id], groups[user.id])


def login_names_of(user: User) -> dict[str, NameKind]:
    """The names that sign in to an account. A username may be the account's own address: then it is one name."""
    return {user.email_key: NameKind.EMAIL, user.username_key: NameKind.USERNAME}


async def list_taken(session: AsyncSession, names: dict[str, NameKind]) -> set[NameKind]:
    """Which of the names somebody has, before any work is spent on them. The inserts decide, this only saves a hash."""
    taken = await queries.list_taken_names(session, sorted(names))
    return {kind for name, kind in names.items() if name in taken}


async def take_names(session: AsyncSession, user_id: UUID, names: dict[str, NameKind]) -> None:
    """Take names for an account, one by one in sorted order so that crossing registrations cannot deadlock."""
    refused = {
        names[name]
        for name in sorted(names)
        if not await queries.insert_login_name(session, name, kind=names[name], user_id=user_id)
    }
    raise_taken(refused)


def raise_taken(kinds: set[NameKind]) -> None:
    """Refuse names that others have: `UsernameTaken`, `EmailTaken`."""
    if NameKind.USERNAME in kinds:
        raise UsernameTaken
    if NameKind.EMAIL in kinds:
        raise EmailTaken
