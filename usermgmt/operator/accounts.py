"""Accounts as the command line names them, and the checks that a request body would go through."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from usermgmt.errors import FieldError, UserNotFound, ValidationFailed
from usermgmt.http.body import validated
from usermgmt.runtime import Runtime
from usermgmt.security.names import login_name_key
from usermgmt.users import queries
from usermgmt.users.registration import NewUser
from usermgmt.users.schemas import CreateUser
from usermgmt.users.service import UserView, view_of
from usermgmt.users.translation import new_user


async def find_account(runtime: Runtime, name: str) -> UserView:
    """The account that somebody named by username, e-mail address or id, or `UserNotFound`."""
    refuse_unstorable({"user": name})
    async with runtime.database.read() as session:
        user_id = _as_id(name)
        user = await queries.find_user(session, user_id) if user_id is not None else None
        if user is None and (key := login_name_key(name)) is not None:
            found = await queries.find_login_name(session, key)
            user = await queries.find_user(session, found.user_id) if found is not None else None
        if user is None:
            raise UserNotFound(f"There is no user {name!r}.")
        return await view_of(session, user)


def checked_account(
    runtime: Runtime,
    *,
    username: str,
    email: str,
    password: str,
    display_name: str | None = None,
    roles: Sequence[str] | None = None,
) -> NewUser:
    """A new account that passed the checks of a request, or `ValidationFailed` with every field that did not."""
    written: dict[str, Any] = {"username": username, "email": email, "password": password}
    if display_name is not None:
        written["display_name"] = display_name
    if roles is not None:
        written["roles"] = list(roles)
    refuse_unstorable(written)
    return new_user(validated(CreateUser, written, context=runtime))


def check_password(runtime: Runtime, password: str, *, names: Sequence[str | None]) -> None:
    """Refuse a password that the policy refuses, with `ValidationFailed`."""
    problem = runtime.password_policy.problem(password, names=[name for name in names if name])
    if problem is not None:
        raise ValidationFailed([FieldError(code=problem.code, detail=problem.detail, pointer="/password")])


def refuse_unstorable(written: Mapping[str, Any]) -> None:
    """Refuse text that is not Unicode, as an argument in another encoding is, with `ValidationFailed`."""
    errors = [
        FieldError(code="not_unicode", detail="This is not valid UTF-8.", pointer=f"/{name}")
        for name, value in written.items()
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)
    ]
    if errors:
        raise ValidationFailed(errors)


def _as_id(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None
