"""What `usermgmt doctor` finds about accounts: names that lead to them, who administers, how passwords are stored.

A large table is looked at in part, the oldest and the newest accounts, unless everything is asked for.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from usermgmt.operator.console import counted
from usermgmt.operator.doctor_findings import Checklist, Finding, error, note, ok, warning
from usermgmt.operator.doctor_installation import Installation, Needs
from usermgmt.permissions import ADMIN, EVERYTHING
from usermgmt.roles.models import RoleGrant
from usermgmt.security.hashing import OWN_VERSION
from usermgmt.security.secrets import Purpose, Secrets
from usermgmt.users.models import LoginName, Status, User

BATCH = 1_000
BATCHES = 5
"""How many batches are looked at from each end."""
SHOWN = 3
HASH_START = 24
"""As many characters of a stored hash as tell its form."""

_OURS = re.compile(rf"{OWN_VERSION}\$(?P<pepper>[0-9a-f]+)\$\$2[aby]\$(?P<cost>[0-9]{{2}})\$")
_USER = select(
    User.id, User.username_key, User.email_key, func.substr(User.password_hash, 1, HASH_START).label("start")
)
_NAME = select(LoginName.name, LoginName.user_id)

Account = Any
"""A row of `_USER`."""

check = Checklist()


@check("accounts.administrator", Needs.SCHEMA)
async def somebody_administers(installation: Installation) -> AsyncIterator[Finding]:
    """At least one active account holds the admin role over everything."""
    statement = (
        select(User.id)
        .join(RoleGrant, RoleGrant.user_id == User.id)
        .where(RoleGrant.role == ADMIN, RoleGrant.scope == EVERYTHING)
        .where(User.status == Status.ACTIVE, User.deleted_at.is_(None))
        .limit(2)
    )
    async with installation.reading() as reading:
        count = len((await reading.execute(statement)).all())
    if not count:
        yield error("No active account holds the admin role.", "usermgmt admin create NAME EMAIL")
    elif count == 1:
        yield note("Only one account can administer.", "Make a second one: usermgmt admin create NAME EMAIL")
    else:
        yield ok("More than one account can administer.")


@check("accounts.names", Needs.SCHEMA)
async def accounts_have_their_names(installation: Installation) -> AsyncIterator[Finding]:
    """The names of each account lead to it, and no name leads nowhere: here no foreign key sees to it."""
    nameless: list[UUID] = []
    seen = 0
    async with installation.reading() as reading:
        async for users in _accounts(installation, reading):
            seen += len(users)
            nameless += await _nameless(reading, users)
        orphans = await _orphans(installation, reading)
    if nameless:
        yield error(
            f"Names of {counted(len(nameless), 'account')} do not lead there ({_some(nameless)}):"
            " nobody can sign in by them, and somebody else can take them.",
            "For each id: INSERT INTO login_names (name, kind, user_id) SELECT username_key, 'username', id FROM users"
            " WHERE id = …; the same with email_key and 'email'.",
        )
    if orphans:
        yield warning(
            f"{counted(len(orphans), 'login name')} without an account that has it: nobody can register that name.",
            "DELETE FROM login_names WHERE NOT EXISTS (SELECT 1 FROM users WHERE users.id = login_names.user_id"
            " AND login_names.name IN (users.username_key, users.email_key))",
        )
    if not nameless and not orphans:
        yield ok(f"The names of {_of(installation, seen)} lead there, and no name leads nowhere.")


@check("accounts.hashes", Needs.SCHEMA)
async def hashes_are_of_today(installation: Installation) -> AsyncIterator[Finding]:
    """Stored passwords are hashed at the configured cost, under a pepper that is configured."""
    settings = installation.settings
    peppers = _peppers([key.get_secret_value() for key in settings.secret.keys])
    kinds: Counter[str] = Counter()
    async with installation.reading() as reading:
        async for users in _accounts(installation, reading):
            kinds.update(_kind(user.start, peppers, settings.passwords.bcrypt_cost) for user in users if user.start)
    seen, told = kinds.total(), False
    if kinds["locked"]:
        told = True
        yield error(
            f"{kinds['locked']} of {_of(installation, seen)} have a password hashed under a pepper that no configured"
            " root secret makes: they cannot sign in.",
            "Set the root secret of that time again, behind the present one (USERMGMT_SECRET_KEYS=new,old).",
        )
    for kind, text in _KINDS.items():
        if kinds[kind]:
            told = True
            yield note(
                f"{kinds[kind]} of {_of(installation, seen)} have {text}.", "Each is replaced at its next sign-in."
            )
    if not told:
        yield ok(f"The passwords of {_of(installation, seen)} are hashed at the configured cost.")


_KINDS = {
    "other cost": "a hash of another cost than passwords.bcrypt_cost",
    "older pepper": "a hash under the pepper of an older root secret",
    "foreign": "a hash that was made elsewhere",
}


def _kind(start: str, peppers: Sequence[str], cost: int) -> str:
    """What kind of hash begins so."""
    ours = _OURS.match(start)
    if ours is None:
        return "foreign"
    if peppers and ours["pepper"] not in peppers:
        return "locked"
    if int(ours["cost"]) != cost:
        return "other cost"
    return "older pepper" if peppers and ours["pepper"] != peppers[0] else "present"


def _peppers(keys: Sequence[str]) -> list[str]:
    """The ids of the peppers that are configured, newest first."""
    return [key.key_id for key in Secrets(keys).all(Purpose.PASSWORD_PEPPER)] if keys else []


async def _accounts(installation: Installation, reading: AsyncConnection) -> AsyncIterator[Sequence[Account]]:
    """Accounts in batches: the oldest and the newest, or all of them."""
    most = None if installation.is_thorough else BATCHES
    last: UUID | None = None
    count = 0
    while most is None or count < most:
        page = _USER.order_by(User.id).limit(BATCH)
        rows = (await reading.execute(page if last is None else page.where(User.id > last))).all()
        if rows:
            yield rows
        if len(rows) < BATCH:
            return
        last, count = rows[-1].id, count + 1
    upper: UUID | None = None
    for _ in range(BATCHES):
        page = _USER.where(User.id > last).order_by(User.id.desc()).limit(BATCH)
        rows = (await reading.execute(page if upper is None else page.where(User.id < upper))).all()
        if rows:
            yield rows
        if len(rows) < BATCH:
            return
        upper = rows[-1].id


async def _nameless(reading: AsyncConnection, users: Sequence[Account]) -> list[UUID]:
    """Of these accounts, those that a name of theirs does not lead to."""
    names = {name: user.id for user in users for name in (user.username_key, user.email_key)}
    found = {row.name: row.user_id for row in await reading.execute(_NAME.where(LoginName.name.in_(names)))}
    return sorted({owner for name, owner in names.items() if found.get(name) != owner})


async def _orphans(installation: Installation, reading: AsyncConnection) -> list[str]:
    """Names that lead to no account, or to one that does not have them: of all, or of the first and the last."""
    first = [name async for name in _orphans_from(reading, None if installation.is_thorough else BATCHES)]
    if installation.is_thorough:
        return first
    last = [name async for name in _orphans_from(reading, BATCHES, is_descending=True)]
    return list(dict.fromkeys([*first, *last]))


async def _orphans_from(
    reading: AsyncConnection, most: int | None, *, is_descending: bool = False
) -> AsyncIterator[str]:
    """The orphans among the names from one end."""
    last: str | None = None
    count = 0
    while most is None or count < most:
        page = _NAME.order_by(LoginName.name.desc() if is_descending else LoginName.name).limit(BATCH)
        if last is not None:
            page = page.where(LoginName.name < last if is_descending else LoginName.name > last)
        rows = (await reading.execute(page)).all()
        owned = await reading.execute(_USER.where(User.id.in_({row.user_id for row in rows})))
        known = {(name, user.id) for user in owned for name in (user.username_key, user.email_key)}
        for row in rows:
            if (row.name, row.user_id) not in known:
                yield row.name
        if len(rows) < BATCH:
            return
        last, count = rows[-1].name, count + 1


def _some(ids: Sequence[UUID]) -> str:
    """A few of them."""
    return ", ".join([*map(str, ids[:SHOWN]), *(["…"] if len(ids) > SHOWN else [])])


def _of(installation: Installation, seen: int) -> str:
    """How many accounts were looked at."""
    is_part = not installation.is_thorough and seen >= BATCHES * BATCH
    return f"{counted(seen, 'account')}{' that were looked at' if is_part else ''}"
