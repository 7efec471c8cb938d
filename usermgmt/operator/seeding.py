"""Making many accounts at once, for load tests: COPY on PostgreSQL, long INSERTs on SQLite.

The accounts are those that registering would have made, but for two things: they all have one password, hashed once,
and the record has one event for each batch in place of one for each account.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.identifiers import new_id
from usermgmt.permissions import EVERYTHING
from usermgmt.roles.models import RoleGrant
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.storage.bulk import Writer, writer_of
from usermgmt.storage.faults import RepeatableConflict
from usermgmt.users import queries
from usermgmt.users.models import LoginName, NameKind, Status, User

BATCH = 5_000
DOMAIN = "example.com"


@dataclass(frozen=True, slots=True)
class Seed:
    """What is made: `count` accounts called `prefix` and a number, with this stored hash and this role."""

    prefix: str
    count: int
    stored_hash: str
    role: str


@dataclass(slots=True)
class Seeded:
    """What was made so far."""

    count: int = 0
    first: str = ""
    last: str = ""


async def seed_users(runtime: Runtime, seed: Seed, progressed: Callable[[int], None]) -> Seeded:
    """Make the accounts in batches, each whole or not at all; numbers whose names are taken are left out.

    `progressed` is told the size of each batch. Memory does not grow with the count. Raises `DatabaseUnavailable`;
    what was made before stays.
    """
    made = Seeded()
    following = await _first_free(runtime, seed.prefix)
    while made.count < seed.count:
        numbers: Sequence[int] = range(following, following + min(BATCH, seed.count - made.count))
        following = numbers[-1] + 1
        try:
            await _insert_batch(runtime, seed, numbers)
        except RepeatableConflict:
            numbers = await _free_numbers(runtime, seed.prefix, numbers)
            if not numbers:
                continue
            await _insert_batch(runtime, seed, numbers)
        made.first = made.first or f"{seed.prefix}{numbers[0]}"
        made.last = f"{seed.prefix}{numbers[-1]}"
        made.count += len(numbers)
        progressed(len(numbers))
    return made


async def _first_free(runtime: Runtime, prefix: str) -> int:
    """A number to begin at: free, and the one before it is taken. Found in few steps however many are taken."""
    low, high = 0, 1
    async with runtime.database.read() as session:
        while await queries.find_login_name(session, f"{prefix}{high}") is not None:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if await queries.find_login_name(session, f"{prefix}{middle}") is not None:
                low = middle
            else:
                high = middle
    return high


async def _free_numbers(runtime: Runtime, prefix: str, numbers: Iterable[int]) -> list[int]:
    """Those of the numbers whose names nobody has."""
    names = {number: (f"{prefix}{number}", f"{prefix}{number}@{DOMAIN}") for number in numbers}
    async with runtime.database.read() as session:
        taken = await queries.list_taken_names(session, [name for both in names.values() for name in both])
    return [number for number, both in names.items() if taken.isdisjoint(both)]


async def _insert_batch(runtime: Runtime, seed: Seed, numbers: Sequence[int]) -> None:
    """Add accounts with their names, their role and one event, or nothing."""
    now = runtime.clock.now()
    async with runtime.database.begin() as session:
        await audit.record(
            session,
            Event.USERS_SEEDED,
            caller=OPERATOR,
            at=now,
            target=f"{seed.prefix}{numbers[0]}..{seed.prefix}{numbers[-1]}",
            target_type=TargetType.USERS,
            details={"count": len(numbers), "role": seed.role},
        )
        writer = await writer_of(session)
        ids = [writer.bound(User, "id", new_id()) for _ in numbers]
        accounts = [(user_id, f"{seed.prefix}{number}") for user_id, number in zip(ids, numbers, strict=True)]
        await writer.write(LoginName, _LOGIN_NAMES, _login_names(accounts))
        await writer.write(User, _USERS, _users(writer, accounts, seed, now))
        granted_at = writer.bound(RoleGrant, "granted_at", now)
        await writer.write(RoleGrant, _GRANTS, ((user_id, seed.role, EVERYTHING, granted_at) for user_id in ids))


_LOGIN_NAMES = ("name", "kind", "user_id")
_USERS = (
    "id",
    "username",
    "username_key",
    "email",
    "email_key",
    "password_hash",
    "status",
    "attributes",
    "version",
    "created_at",
    "updated_at",
    "password_changed_at",
)
_GRANTS = ("user_id", "role", "scope", "granted_at")


def _login_names(accounts: Iterable[tuple[Any, str]]) -> Iterable[tuple[Any, ...]]:
    for user_id, name in accounts:
        yield name, str(NameKind.USERNAME), user_id
        yield f"{name}@{DOMAIN}", str(NameKind.EMAIL), user_id


def _users(
    writer: "Writer", accounts: Iterable[tuple[Any, str]], seed: Seed, now: datetime
) -> Iterable[tuple[Any, ...]]:
    """Rows in the order of `_USERS`; what all have in common is bound once."""
    time = writer.bound(User, "created_at", now)
    rest = (seed.stored_hash, str(Status.ACTIVE), writer.bound(User, "attributes", {}), 1, time, time, time)
    for user_id, name in accounts:
        email = f"{name}@{DOMAIN}"
        yield user_id, name, name, email, email, *rest
