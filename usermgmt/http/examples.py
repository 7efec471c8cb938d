"""The examples of the specification: bodies as clients send them, and answers as they look."""

import json
from typing import Any

from usermgmt.errors import ApiError
from usermgmt.http.streams import NDJSON
from usermgmt.permissions import DESCRIPTIONS, Permission

INTRODUCTION = """
The accounts of your applications: who exists, who may sign in, who is signed in where, who may do what.

Times are RFC 3339 in UTC. Ids are UUIDs in canonical lower-case spelling; `me` stands for the caller's own. Unknown
fields and unknown query parameters are refused. A string with a format of our own says in its description what it
demands.
"""
FORMATS: dict[str, str] = {
    "username": "1 to 64 characters of one script, without white space (RFC 8265).",
    "display-name": "1 to 100 characters, without control characters.",
    "password": (
        "At least as long as the server's `passwords.min_length` (8 unless it was changed), none that everybody tries "
        "first, and not one's own name."
    ),
    "idempotency-key": "1 to 255 printable characters.",
    "group-name": "1 to 64 printable characters, without a space at its ends.",
    "ip-address": "An IPv4 or IPv6 address.",
    "ip-network": "An address or a network such as 10.0.0.0/8, without bits of a host.",
    "entity-tags": "A list of entity tags, or `*` (RFC 9110).",
}

USER: dict[str, Any] = {
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "username": "newuser",
    "email": "user@example.com",
    "display_name": "New User",
    "status": "active",
    "roles": ["user"],
    "groups": [],
    "attributes": {"department": "research"},
    "email_verified": False,
    "created_at": "2026-11-23T12:00:00.000Z",
    "updated_at": "2026-11-23T12:00:00.000Z",
    "last_login_at": None,
    "version": 1,
}
TOKENS: dict[str, Any] = {
    "access_token": "eyJhbGciOiJFUzI1NiIs…",
    "refresh_token": "umr1_AYkKXayW…",
    "token_type": "Bearer",
    "expires_in": 600,
    "refresh_expires_in": 1209600,
}
ROLE: dict[str, Any] = {
    "name": "auditor",
    "description": "Sees every account.",
    "built_in": False,
    "permissions": ["users:read"],
    "created_at": "2026-11-23T12:00:00.000Z",
    "updated_at": "2026-11-23T12:00:00.000Z",
}

SESSION: dict[str, Any] = {
    "id": "01890a5d-b1c4-7d2e-9f3a-5b6c7d8e9f01",
    "current": True,
    "created_at": "2026-11-23T12:00:00.000Z",
    "authenticated_at": "2026-11-23T12:00:00.000Z",
    "refreshed_at": "2026-11-23T12:10:00.000Z",
    "expires_at": "2026-12-23T12:00:00.000Z",
    "idle_expires_at": "2026-12-07T12:10:00.000Z",
    "address": "192.0.2.17",
    "user_agent": "curl/8.5.0",
}
GROUP: dict[str, Any] = {
    "id": "01890a5d-b7f0-7c11-8a2b-3c4d5e6f7a81",
    "name": "Research",
    "description": "The people of the laboratory.",
    "members": 12,
    "created_at": "2026-11-23T12:00:00.000Z",
    "updated_at": "2026-11-23T12:00:00.000Z",
}
GRANT: dict[str, Any] = {
    "role": "manager",
    "group": GROUP["id"],
    "granted_by": USER["id"],
    "granted_at": "2026-11-23T12:00:00.000Z",
}
IP_RULE: dict[str, Any] = {
    "id": "01890a5d-be11-7f20-9a1b-2c3d4e5f6a70",
    "network": "198.51.100.0/24",
    "action": "deny",
    "subject": "everyone",
    "mode": "enforce",
    "expires_at": None,
    "note": "a loud neighbour",
    "hits": 17,
    "last_hit_at": "2026-11-23T12:30:00.000Z",
    "created_by": USER["id"],
    "created_at": "2026-11-23T12:00:00.000Z",
    "updated_at": "2026-11-23T12:00:00.000Z",
}
EVENT: dict[str, Any] = {
    "id": "01890a5d-c4a2-7b31-8c0d-1e2f3a4b5c6d",
    "at": "2026-11-23T12:00:00.000Z",
    "event": "login.failed",
    "outcome": "failure",
    "actor": {"id": None, "name": None},
    "target": {"type": "user", "id": USER["id"]},
    "session_id": None,
    "address": "198.51.100.9",
    "user_agent": "curl/8.5.0",
    "request_id": "f2c4b1a09d8e7c6b5a493827",
    "details": {"reason": "wrong_password"},
}
SIGNING_KEY: dict[str, Any] = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "01890a5d-9e0f-7a1b-8c2d-3e4f5a6b7c8d",
    "use": "sig",
    "alg": "ES256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}

BODIES: dict[str, dict[str, Any]] = {
    "CreateUser": {"username": "newuser", "email": "user@example.com", "password": "secure_password"},
    "LogIn": {"username": "newuser", "password": "secure_password"},
    "Refresh": {"refresh_token": TOKENS["refresh_token"]},
    "LogOut": {"refresh_token": TOKENS["refresh_token"]},
    "UpdateUser": {"display_name": "New User", "attributes": {"department": "research"}},
    "PatchUser": {"display_name": None, "attributes": {"department": None}},
    "DeleteUser": {"current_password": "secure_password"},
    "CreateRole": {"name": "auditor", "description": "Sees every account.", "permissions": ["users:read"]},
    "UpdateRole": {"permissions": ["users:read", "users:write"]},
    "CreateGroup": {"name": "Research", "description": "The people of the laboratory."},
    "CreateIpRule": {"network": "198.51.100.0/24", "action": "deny", "note": "a loud neighbour"},
    "UpdateIpRule": {"mode": "report"},
    "UpdateGroup": {"description": "The people of the laboratory, guests included."},
}
ANSWERS: dict[str, dict[str, Any]] = {
    "UserOut": USER,
    "UserPageOut": {"items": [USER], "next_cursor": None, "prev_cursor": None},
    "TokensOut": TOKENS,
    "SignedInOut": {**TOKENS, "user": USER},
    "RoleOut": ROLE,
    "RolesOut": {"items": [ROLE]},
    "PermissionsOut": {"items": [{"name": Permission.USERS_READ, "description": DESCRIPTIONS[Permission.USERS_READ]}]},
    "CurrentSessionOut": {
        "session": SESSION,
        "user": USER,
        "roles": ["user"],
        "permissions": [],
        "group_permissions": {},
    },
    "SessionsOut": {"items": [SESSION]},
    "GrantsOut": {"items": [GRANT]},
    "ExportOut": {
        "user": USER,
        "roles": [GRANT],
        "groups": [{"id": GROUP["id"], "name": GROUP["name"]}],
        "sessions": [{**SESSION, "current": False, "revoked_at": None, "revoked_reason": None}],
        "activity": [EVENT],
    },
    "GroupOut": GROUP,
    "IpRuleOut": IP_RULE,
    "IpRulesOut": {"items": [IP_RULE]},
    "EventPageOut": {"items": [EVENT], "next_cursor": None, "prev_cursor": None},
    "GroupsOut": {"items": [GROUP]},
    "KeySetOut": {"keys": [SIGNING_KEY]},
    "LiveOut": {"status": "ok"},
    "ReadyOut": {"status": "ok", "checks": {"accepting": True, "database": True, "signing_key": True}},
}
FILES: dict[str, str] = {
    NDJSON: '{"username": "newuser", "email": "user@example.com", "roles": ["user"]}\n',
    "text/csv": "username,email,display_name\nnewuser,user@example.com,New User\n",
}
LINES: dict[str, str] = {
    "ImportOut": (
        f'{{"line": 1, "outcome": "created", "id": "{USER["id"]}"}}\n'
        '{"line": 2, "outcome": "refused", "code": "username_taken", "detail": "Another account has this username."}\n'
        '{"created": 1, "exists": 0, "refused": 1, "dry_run": false}\n'
    ),
}


def stream(page: dict[str, Any]) -> str:
    """The items of a page as a stream: a document a line."""
    return "".join(json.dumps(item) + "\n" for item in page["items"])


def problem(error: type[ApiError]) -> dict[str, Any]:
    """What a client is told of an error."""
    told: dict[str, Any] = {
        "type": f"/problems/{error.code.replace('_', '-')}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "request_id": "f2c4b1a09d8e7c6b5a493827",
    }
    if error.status == 422 and error.code == "validation_failed":
        told["errors"] = [{"pointer": "/email", "code": "invalid_email", "detail": "This is not an e-mail address."}]
    return told
