"""The closed vocabulary of the record: every event there is, in the past tense."""

from enum import StrEnum


class Event(StrEnum):
    """What can be recorded."""

    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REFRESH_REUSED = "session.refresh_reused"
    SESSION_REVOKED = "session.revoked"
    ACCESS_DENIED = "access.denied"
    REAUTHENTICATION_FAILED = "reauthentication.failed"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_DELETED = "user.deleted"
    USER_RESTORED = "user.restored"
    PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - an event's name
    PASSWORD_REHASHED = "user.password_rehashed"  # noqa: S105 - an event's name
    USERS_SEEDED = "users.seeded"
    ROLE_CREATED = "role.created"
    ROLE_UPDATED = "role.updated"
    ROLE_DELETED = "role.deleted"
    ROLE_GRANTED = "role.granted"
    ROLE_REVOKED = "role.revoked"
    SIGNING_KEY_CREATED = "signing_key.created"
    SIGNING_KEY_RETIRED = "signing_key.retired"


class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"
