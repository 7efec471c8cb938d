"""The first administrator: made at a start, only while there is none, and exactly once however many start."""

from dataclasses import dataclass, replace

from usermgmt.errors import ValidationFailed
from usermgmt.operator.accounts import checked_account
from usermgmt.operator.configuration import unfit
from usermgmt.operator.console import Reason
from usermgmt.operator.passwords import generated_password
from usermgmt.permissions import ADMIN
from usermgmt.roles import queries as role_queries
from usermgmt.runtime import Runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.storage.faults import repeated_on_conflict
from usermgmt.users import queries
from usermgmt.users.registration import NewUser, insert_account, new_account
from usermgmt.users.service import EmailTaken, UsernameTaken

DOMAIN = "example.com"
MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class MadeAdmin:
    """An administrator that this start made. `password` is None unless it was generated here."""

    username: str
    password: str | None = None


async def make_configured_admin(runtime: Runtime) -> MadeAdmin | None:
    """Make the administrator of `bootstrap.*` unless an active one exists; None when one does.

    Refused as configuration: names or a password that no request could set, and a name that somebody has.
    """
    wanted = runtime.settings.bootstrap
    if await has_active_admin(runtime):
        return None
    password = wanted.admin_password.get_secret_value()
    try:
        new = checked_account(runtime, username=wanted.admin_username, email=wanted.admin_email, password=password)
        made = await make_first_admin(runtime, new, await runtime.hasher.hash(password))
    except ValidationFailed as error:
        fields = [(field.pointer or "").removeprefix("/") for field in error.errors]
        raise unfit(
            Reason(field.detail, f"bootstrap.admin_{name}") for name, field in zip(fields, error.errors, strict=True)
        ) from None
    except UsernameTaken:
        raise unfit([Reason(_TAKEN.format(wanted.admin_username), "bootstrap.admin_username")]) from None
    except EmailTaken:
        raise unfit([Reason(_TAKEN.format(wanted.admin_email), "bootstrap.admin_email")]) from None
    return MadeAdmin(new.username) if made else None


async def make_generated_admin(runtime: Runtime) -> MadeAdmin | None:
    """Make an administrator with a generated password unless an active one exists; None when one does.

    It is called `admin`, or `admin2`, `admin3` and so on where somebody else is.
    """
    if await has_active_admin(runtime):
        return None
    password = generated_password(min_length=runtime.settings.passwords.min_length)
    stored = await runtime.hasher.hash(password)
    new = NewUser(username=ADMIN, email=f"{ADMIN}@{DOMAIN}", password=password)
    for number in range(2, MAX_TRIES):
        try:
            made = await make_first_admin(runtime, new, stored)
        except (UsernameTaken, EmailTaken):
            new = replace(new, username=f"{ADMIN}{number}", email=f"{ADMIN}{number}@{DOMAIN}")
        else:
            return MadeAdmin(new.username, password) if made else None
    raise UsernameTaken


@repeated_on_conflict
async def make_first_admin(runtime: Runtime, new: NewUser, stored_hash: str) -> bool:
    """Make an account with the admin role, and its record, unless an active administrator exists.

    Of several that try at once one succeeds and the others find its administrator: whoever comes second waits for the
    role's row (SQLite: for the file) and looks again. Refused: `UsernameTaken`, `EmailTaken`.
    """
    user = new_account(new, runtime.clock.now())
    user.password_hash = stored_hash
    async with runtime.database.begin() as session:
        await role_queries.lock_admin_role(session)
        if await queries.has_active_admin(session):
            return False
        await insert_account(session, OPERATOR, user, [ADMIN])
        return True


async def has_active_admin(runtime: Runtime) -> bool:
    """Whether an account that may sign in holds the admin role now."""
    async with runtime.database.read() as session:
        return await queries.has_active_admin(session)


_TAKEN = (
    "{!r} belongs to an account that is not an active administrator; choose another,"
    " or let that account in with `usermgmt admin reset-password NAME --grant-admin`"
)
