"""What the tests of accounts and roles look at: what is stored, whether it is whole, and how a refusal reads."""

from collections.abc import Mapping
from typing import Any

from quart import Response

from tests.people import Person, Server
from tests.problems import pointers_of, problem_of

SEED = {"username": "newuser", "email": "user@example.com", "password": "secure_password"}
FIELDS = {
    "id",
    "username",
    "email",
    "display_name",
    "status",
    "roles",
    "groups",
    "attributes",
    "email_verified",
    "created_at",
    "updated_at",
    "last_login_at",
    "version",
}
TABLES = ("users", "login_names", "role_grants", "roles", "role_permissions", "sessions", "idempotency_keys")

# G04: what an account must not be able to write about itself, with a value that would do harm
UNKNOWN_FIELDS: Mapping[str, Any] = {
    "id": "01890000-0000-7000-8000-000000000000",
    "role": "admin",
    "permissions": ["users:delete"],
    "is_admin": True,
    "is_active": True,
    "email_verified": True,
    "email_verified_at": "2026-01-01T00:00:00Z",
    "password_hash": "$2b$04$abcdefghijklmnopqrstuuKQbM4bBHHOE5rBhuXfIoZg4cMwvcTrC",
    "password_changed_at": None,
    "created_at": "2000-01-01T00:00:00Z",
    "updated_at": "2000-01-01T00:00:00Z",
    "deleted_at": None,
    "last_login_at": None,
    "failed_attempts": 0,
    "locked_until": None,
    "token_version": 7,
    "version": 7,
    "tenant": "other",
    "groups": ["staff"],
    "username_key": "root",
}
RESERVED_FIELDS: Mapping[str, Any] = {"roles": ["admin"], "status": "active"}


async def refusal(response: Response) -> tuple[int, str]:
    """The status and the code of a problem, after every check that all errors share."""
    return response.status_code, (await problem_of(response, response.status_code))["code"]


async def field_errors(response: Response) -> set[tuple[str, str]]:
    """Where a request is invalid, and how."""
    problem = await response.get_json()
    assert (response.status_code, problem.get("code")) == (422, "validation_failed"), problem
    return set(pointers_of(problem).items())


async def user_of(response: Response, status: int = 200) -> dict[str, Any]:
    """The user in an answer."""
    body: dict[str, Any] = await response.get_json()
    assert response.status_code == status, body
    assert body.keys() == FIELDS
    return body


async def stored(server: Server) -> dict[str, list[Any]]:
    """Everything that is stored, except the record: what a refusal must not change ("NSC")."""
    return {table: sorted(await server.rows(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


async def assert_whole(server: Server) -> None:
    """Every account has its names, a role and one record of its making; and nothing of these is without account."""
    users = await server.rows("SELECT id, username_key, email_key FROM users")
    ids = sorted(str(row.id) for row in users)
    names = {(str(row.user_id), row.name) for row in await server.rows("SELECT user_id, name FROM login_names")}
    assert names == {(str(row.id), key) for row in users for key in (row.username_key, row.email_key)}
    assert sorted({str(row.user_id) for row in await server.rows("SELECT user_id FROM role_grants")}) == ids
    made = await server.rows("SELECT owner_id FROM audit_events WHERE event = 'user.created'")
    assert sorted(str(row.owner_id) for row in made) == ids


def through(server: Server, person: Person) -> Person:
    """The same person with the same tokens, calling another instance of the application."""
    other = Person(server, username=person.username, password=person.password, id=person.id)
    other.access_token, other.refresh_token = person.access_token, person.refresh_token
    return other
