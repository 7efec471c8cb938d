"""The closed vocabulary of the record: every event there is, in the past tense."""

from enum import StrEnum


class Event(StrEnum):
    """What can be recorded."""

    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_FAILED = "login.failed"
    LOGIN_THROTTLED = "login.throttled"
    LOGIN_FROM_NEW_NETWORK = "login.from_new_network"
    LOGIN_FROM_NEW_DEVICE = "login.from_new_device"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REFRESH_REUSED = "session.refresh_reused"
    SESSION_REVOKED = "session.revoked"
    ACCESS_DENIED = "access.denied"
    REAUTHENTICATION_FAILED = "reauthentication.failed"
    REAUTHENTICATION_THROTTLED = "reauthentication.throttled"
    USER_CREATED = "user.created"
    USER_UPDATED = "user.updated"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_DELETED = "user.deleted"
    USER_RESTORED = "user.restored"
    USER_ERASED = "user.erased"
    USER_EXPORTED = "user.exported"
    PASSWORD_CHANGED = "user.password_changed"  # noqa: S105 - an event's name
    PASSWORD_REHASHED = "user.password_rehashed"  # noqa: S105 - an event's name
    USERS_SEEDED = "users.seeded"
    USERS_IMPORTED = "users.imported"
    USERS_EXPORTED = "users.exported"
    ROLE_CREATED = "role.created"
    ROLE_UPDATED = "role.updated"
    ROLE_DELETED = "role.deleted"
    ROLE_GRANTED = "role.granted"
    ROLE_REVOKED = "role.revoked"
    GROUP_CREATED = "group.created"
    GROUP_UPDATED = "group.updated"
    GROUP_DELETED = "group.deleted"
    GROUP_MEMBER_ADDED = "group.member_added"
    GROUP_MEMBER_REMOVED = "group.member_removed"
    IP_RULE_CREATED = "ip_rule.created"
    IP_RULE_UPDATED = "ip_rule.updated"
    IP_RULE_DELETED = "ip_rule.deleted"
    IP_RULES_SUSPENDED = "ip_rules.suspended"
    AUDIT_PRUNED = "audit.pruned"
    AUDIT_ADOPTED = "audit.adopted"
    SIGNING_KEY_CREATED = "signing_key.created"
    SIGNING_KEY_RETIRED = "signing_key.retired"
    EXTENSION_ACTED = "extension.acted"  # whatever a plugin recorded; its details say what


class TargetType(StrEnum):
    """What kind of thing it was done to."""

    USER = "user"
    USERS = "users"  # many at once
    LOGIN_NAME = "login_name"  # whatever somebody typed as a name, which leads to no account
    ROLE = "role"
    GROUP = "group"
    IP_RULE = "ip_rule"
    IP_RULES = "ip_rules"  # all at once
    SIGNING_KEY = "signing_key"
    AUDIT = "audit"
    ROUTE = "route"


class Outcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"
