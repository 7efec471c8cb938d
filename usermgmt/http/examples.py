"""The examples of the specification: the bodies of the user's own document, and answers as they look."""

from typing import Any

from usermgmt.errors import ApiError

INTRODUCTION = """
The accounts of your applications: who exists, who may sign in, who is signed in where, who may do what.

Times are RFC 3339 in UTC. Ids are UUIDs in canonical lower-case spelling; `me` stands for the caller's own. Unknown
fields and unknown query parameters are refused.

Strings with a format of our own: `username` is 1 to 64 characters of one script without white space (RFC 8265);
`display-name` is 1 to 100 characters without control characters; `password` has at least `passwords.min_length`
characters and is none that everybody tries first; an `idempotency-key` is printable;
`entity-tags` is a list of entity tags or `*` (RFC 9110).
"""

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
}
ANSWERS: dict[str, dict[str, Any]] = {
    "UserOut": USER,
    "UserPageOut": {"items": [USER], "next_cursor": None, "prev_cursor": None},
    "TokensOut": TOKENS,
    "SignedInOut": {**TOKENS, "user": USER},
    "RoleOut": ROLE,
    "RolesOut": {"items": [ROLE]},
}


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
