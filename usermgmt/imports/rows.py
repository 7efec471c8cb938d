"""What a row of an import holds, and the checks that it shares with the requests that make accounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from usermgmt.clock import EARLIEST, LEEWAY, whole_milliseconds
from usermgmt.errors import FieldError, ValidationFailed
from usermgmt.security.foreign_hashes import HashRefused
from usermgmt.security.foreign_spellings import recognised
from usermgmt.security.names import InvalidName, canonical_email, display_name_problem, prefix_key, username_key
from usermgmt.security.password_policy import PasswordPolicy
from usermgmt.users.models import MAX_ATTRIBUTES_BYTES, MAX_ROLES, Status, are_attributes_too_long

MAX_GROUPS = 100
MAX_HASH_CHARACTERS = 4096
IGNORED = frozenset({"version", "updated_at"})
"""Fields of an exported account that a new one has of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """An account to be made. `stored_hash` is as it is kept; `password` is still to be hashed."""

    user_id: UUID | None
    username: str
    username_key: str
    email: str
    email_key: str
    display_name: str | None = None
    display_name_key: str | None = None
    stored_hash: str | None = None
    password: str | None = None
    status: str = Status.ACTIVE
    roles: Sequence[str] | None = None
    groups: Sequence[str] = ()
    attributes: Mapping[str, Any] | None = None
    is_email_verified: bool = False
    created_at: datetime | None = None
    last_login_at: datetime | None = None


def read_row(fields: Mapping[str, Any], policy: PasswordPolicy, *, now: datetime) -> Row:
    """Check a row. Raises `ValidationFailed` with every field that is wrong."""
    return _Reader(fields, policy, now).read()


class _Reader:
    """Reads the fields of one row, and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, Any], policy: PasswordPolicy, now: datetime) -> None:
        self._fields = fields
        self._policy = policy
        self._now = now
        self._errors: list[FieldError] = []

    def read(self) -> Row:
        if unknown := self._fields.keys() - _KNOWN:
            for name in sorted(unknown)[:20]:
                self._refuse(name[:100], "unknown_field", "There is no such field.")
        username, key = self._username()
        email, address_key = self._email()
        display_name = self._display_name()
        row = Row(
            user_id=self._id(),
            username=username,
            username_key=key,
            email=email,
            email_key=address_key,
            display_name=display_name,
            display_name_key=prefix_key(display_name) if display_name else None,
            stored_hash=self._stored_hash(),
            password=self._password(username, email, display_name),
            status=self._status(),
            roles=self._texts("roles", MAX_ROLES) if self._fields.get("roles") is not None else None,
            groups=self._texts("groups", MAX_GROUPS),
            attributes=self._attributes(),
            is_email_verified=self._truth("email_verified"),
            created_at=self._time("created_at"),
            last_login_at=self._time("last_login_at"),
        )
        if self._errors:
            raise ValidationFailed(self._errors)
        return row

    def _refuse(self, name: str, code: str, detail: str) -> None:
        self._errors.append(FieldError(code=code, detail=detail, pointer=f"/{name}"))

    def _text(self, name: str, *, is_required: bool = False) -> str | None:
        value = self._fields.get(name)
        if isinstance(value, str):
            return value
        if value is not None:
            self._refuse(name, "wrong_type", "This must be a string.")
        elif is_required:
            self._refuse(name, "required", "This field is required.")
        return None

    def _username(self) -> tuple[str, str]:
        if (text := self._text("username", is_required=True)) is not None:
            try:
                return text, username_key(text)
            except InvalidName as problem:
                self._refuse("username", problem.code, problem.detail)
        return "", ""

    def _email(self) -> tuple[str, str]:
        if (text := self._text("email", is_required=True)) is not None:
            try:
                found = canonical_email(text)
            except InvalidName as problem:
                self._refuse("email", problem.code, problem.detail)
            else:
                return found.address, found.key
        return "", ""

    def _display_name(self) -> str | None:
        if (text := self._text("display_name")) and (problem := display_name_problem(text)) is not None:
            self._refuse("display_name", "invalid_display_name", problem)
        return text or None

    def _id(self) -> UUID | None:
        if (text := self._text("id")) is None:
            return None
        try:
            found = UUID(text)
        except ValueError:
            found = None
        if found is None or not found.int:  # the one without a bit stands for nobody
            self._refuse("id", "invalid_format", "This is not a UUID.")
            return None
        return found

    def _stored_hash(self) -> str | None:
        value = self._fields.get("password_hash")
        if value is None:
            return None
        if self._fields.get("password") is not None:
            self._refuse("password", "not_together", "Give a password or its hash.")
        if isinstance(value, str) and len(value) > MAX_HASH_CHARACTERS:
            value = ""
        try:
            return recognised(value)
        except HashRefused as refusal:
            self._refuse("password_hash", "unknown_hash", str(refusal))
            return None

    def _password(self, *names: str | None) -> str | None:
        if (text := self._text("password")) is None:
            return None
        if (problem := self._policy.problem(text, names=[name for name in names if name])) is not None:
            self._refuse("password", problem.code, problem.detail)
        return text

    def _status(self) -> str:
        value = self._fields.get("status")
        if value is None:
            return Status.ACTIVE
        if value not in (Status.ACTIVE, Status.DISABLED):
            self._refuse("status", "not_an_option", "This is active or disabled.")
        return str(value)

    def _texts(self, name: str, most: int) -> Sequence[str]:
        value = self._fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            self._refuse(name, "wrong_type", "This must be a list of strings.")
            return ()
        if len(value) > most:
            self._refuse(name, "too_long", f"There are more than {most}.")
        return list(dict.fromkeys(value))

    def _attributes(self) -> Mapping[str, Any] | None:
        value = self._fields.get("attributes")
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse("attributes", "wrong_type", "This must be an object.")
            return None
        if are_attributes_too_long(value):
            self._refuse("attributes", "too_long", f"They are longer than {MAX_ATTRIBUTES_BYTES} bytes of JSON.")
        return value

    def _truth(self, name: str) -> bool:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            self._refuse(name, "wrong_type", "This must be true or false.")
        return value is True

    def _time(self, name: str) -> datetime | None:
        if (text := self._text(name)) is None:
            return None
        found = _time(text)
        if found is None:
            self._refuse(name, "invalid_format", "This is not a time with its zone, such as 2026-11-23T12:00:00Z.")
        elif not EARLIEST <= found <= self._now + LEEWAY:
            self._refuse(name, "out_of_range", "This time is before 1970, or has not come yet.")
        return found


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return whole_milliseconds(found.astimezone(UTC)) if found.tzinfo is not None else None
    except (ValueError, OverflowError):  # at the edges of the calendar there is no such time in UTC
        return None


_KNOWN = IGNORED | {
    "id",
    "username",
    "email",
    "display_name",
    "password",
    "password_hash",
    "status",
    "roles",
    "groups",
    "attributes",
    "email_verified",
    "created_at",
    "last_login_at",
}
