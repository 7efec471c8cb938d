"""Every event of the vocabulary is caused once, and tells who, what, from where, when and how it ended."""

from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import settings_for
from tests.people import PASSWORD, Person, Server
from usermgmt.audit import seals
from usermgmt.audit import service as audit
from usermgmt.audit.events import Event, TargetType
from usermgmt.audit.models import AuditEvent
from usermgmt.imports import exporting
from usermgmt.imports import service as imports
from usermgmt.imports.reading import Line
from usermgmt.ip_rules import service as ip_rules
from usermgmt.operator import seeding
from usermgmt.security.principal import OPERATOR
from usermgmt.signing_keys import service as signing_keys

ADDRESS, SENT_ADDRESS, AGENT, REQUEST_ID = "198.51.100.9", "::ffff:198.51.100.9", "a browser", "from-the-proxy-1"
LOGIN = "/api/auth/login"
NEWER_SECRET = "tests-only-newer-c3d95e2b80467f3a9c51e8d24b60a1f7"
RULE = {"network": "203.0.113.0/24", "action": "deny"}

Act = Callable[["Stage"], Awaitable[object]]


class Stage:
    """A server, somebody who may do everything, somebody who may not, and calls that can be told from all others."""

    def __init__(self, server: Server, admin: Person, ada: Person) -> None:
        self.server, self.admin, self.ada = server, admin, ada

    async def call(self, who: Person, method: str, path: str, json: Any = None) -> Any:
        """Call from the address, with the user agent and the request id that the record must hold."""
        headers = {"User-Agent": AGENT, "X-Request-ID": REQUEST_ID}
        options = {} if json is None else {"json": json}
        response = await who.call(method, path, headers=headers, scope_base={"client": (SENT_ADDRESS, 1234)}, **options)
        return await response.get_json() if response.status_code in {200, 201} else None

    async def log_in(self, password: str = PASSWORD) -> Any:
        return await self.call(self.server.nobody(), "POST", LOGIN, {"username": "ada", "password": password})

    async def refresh(self) -> None:
        await self.call(self.ada, "POST", "/api/auth/refresh", {"refresh_token": self.ada.refresh_token})

    async def of_ada(self, method: str, rest: str = "", json: Any = None) -> Any:
        return await self.call(self.admin, method, f"/api/users/{self.ada.id}{rest}", json)

    async def of_admin(self, method: str, path: str, json: Any = None) -> Any:
        return await self.call(self.admin, method, path, json)

    async def change_password(self, current: str) -> None:
        body = {"password": "a quite different passphrase", "current_password": current}
        await self.call(self.ada, "PUT", "/api/users/me", body)


async def log_in(stage: Stage) -> None:
    await stage.log_in()


async def guess(stage: Stage) -> None:
    for _ in range(3):
        await stage.log_in("wrong")


async def reuse_a_refresh_token(stage: Stage) -> None:
    await stage.refresh()
    stage.server.clock.move(timedelta(seconds=11))
    await stage.refresh()


async def guess_the_current_password(stage: Stage) -> None:
    for _ in range(3):
        await stage.change_password("wrong")


async def log_in_at_a_higher_cost(stage: Stage) -> None:
    dearer = Server(settings_for(stage.server.settings.database.url, **{"passwords.bcrypt_cost": 5}))
    async with dearer.running():
        await Stage(dearer, stage.admin, stage.ada).log_in()


async def register(stage: Stage) -> None:
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
    await stage.call(stage.server.nobody(), "POST", "/api/users", body)


async def disable_and_enable(stage: Stage) -> None:
    for status in ("disabled", "active"):
        await stage.of_ada("PUT", json={"status": status})


async def delete_and_restore(stage: Stage) -> None:
    await stage.of_ada("DELETE")
    await stage.of_ada("POST", "/restore")


async def keep_a_role(stage: Stage) -> None:
    await stage.of_admin("POST", "/api/roles", {"name": "auditor"})
    await stage.of_admin("PUT", "/api/roles/auditor", {"description": "looks on"})
    await stage.of_admin("DELETE", "/api/roles/auditor")


async def grant_and_revoke(stage: Stage) -> None:
    for method in ("PUT", "DELETE"):
        await stage.of_ada(method, "/roles/manager")


async def keep_a_group(stage: Stage) -> None:
    group = await stage.of_admin("POST", "/api/groups", {"name": "Lab"})
    path = f"/api/groups/{group['id']}"
    await stage.of_admin("PUT", path, {"name": "Laboratory"})
    for method in ("PUT", "DELETE"):
        await stage.of_admin(method, f"{path}/members/{stage.ada.id}")
    await stage.of_admin("DELETE", path)


async def keep_a_rule(stage: Stage) -> None:
    rule = await stage.of_admin("POST", "/api/ip-rules", RULE)
    await stage.of_admin("PUT", f"/api/ip-rules/{rule['id']}", {"note": "loud"})
    await stage.of_admin("DELETE", f"/api/ip-rules/{rule['id']}")


# What only the command line does


async def suspend_the_rules(stage: Stage) -> None:
    await stage.of_admin("POST", "/api/ip-rules", RULE)
    await ip_rules.suspend_rules(stage.server.runtime, OPERATOR)


async def seed(stage: Stage) -> None:
    seed = seeding.Seed(prefix="load", count=3, stored_hash="x", role="user")
    await seeding.seed_users(stage.server.runtime, seed, lambda _: None)


async def import_accounts(stage: Stage) -> None:
    lines = iter([Line(1, {"username": "eve", "email": "eve@example.com"})])
    async for _ in imports.import_users(stage.server.runtime, OPERATOR, lines):
        pass
    async for _ in exporting.export_users(stage.server.runtime, OPERATOR, with_hashes=False):
        pass


async def keep_keys(stage: Stage) -> None:
    (first,) = await signing_keys.list_keys(stage.server.runtime)
    await signing_keys.rotate_key(stage.server.runtime, caller=OPERATOR, at_once=True)
    await signing_keys.retire_key(stage.server.runtime, first.kid, caller=OPERATOR)


async def prune(stage: Stage) -> None:
    for _ in range(2):
        await stage.log_in()
        stage.server.clock.move(timedelta(seconds=5))
        await seals.seal_pending(stage.server.runtime)
    stage.server.clock.move(timedelta(days=31))
    await seals.prune(stage.server.runtime, OPERATOR)


async def adopt(stage: Stage) -> None:
    stage.server.clock.move(timedelta(seconds=5))
    await seals.seal_pending(stage.server.runtime)
    alone = Server(settings_for(stage.server.settings.database.url, **{"secret.keys": NEWER_SECRET}))
    await seals.adopt_chain(alone.runtime, OPERATOR)
    await alone.runtime.close()


async def act_as_a_plugin(stage: Stage) -> None:
    async with stage.server.runtime.database.begin() as session:
        await audit.record(
            session,
            Event.EXTENSION_ACTED,
            caller=OPERATOR,
            at=stage.server.clock.now(),
            user_id=UUID(stage.ada.id),
            details={"action": "note.written"},
        )


ADMIN, ADA, NOBODY, BY_OPERATOR = "root", "ada", None, "operator"

# event: (what causes it, who did it, to what kind of thing, was it a success)
VOCABULARY: dict[Event, tuple[Act, str | None, str, bool]] = {
    Event.LOGIN_SUCCEEDED: (log_in, NOBODY, "user", True),
    Event.LOGIN_FROM_NEW_NETWORK: (log_in, NOBODY, "user", True),
    Event.LOGIN_FROM_NEW_DEVICE: (log_in, NOBODY, "user", True),
    Event.LOGIN_FAILED: (lambda stage: stage.log_in("wrong"), NOBODY, "user", False),
    Event.LOGIN_THROTTLED: (guess, NOBODY, "user", False),
    Event.SESSION_REFRESHED: (Stage.refresh, NOBODY, "user", True),
    Event.SESSION_REFRESH_REUSED: (reuse_a_refresh_token, NOBODY, "user", False),
    Event.SESSION_REVOKED: (lambda stage: stage.call(stage.ada, "POST", "/api/auth/logout"), ADA, "user", True),
    Event.ACCESS_DENIED: (lambda stage: stage.call(stage.ada, "GET", "/api/roles"), ADA, "route", False),
    Event.REAUTHENTICATION_FAILED: (lambda stage: stage.change_password("wrong"), ADA, "user", False),
    Event.REAUTHENTICATION_THROTTLED: (guess_the_current_password, ADA, "user", False),
    Event.USER_CREATED: (register, NOBODY, "user", True),
    Event.USER_UPDATED: (lambda stage: stage.of_ada("PUT", json={"display_name": "Ada"}), ADMIN, "user", True),
    Event.USER_DISABLED: (disable_and_enable, ADMIN, "user", True),
    Event.USER_ENABLED: (disable_and_enable, ADMIN, "user", True),
    Event.USER_DELETED: (delete_and_restore, ADMIN, "user", True),
    Event.USER_RESTORED: (delete_and_restore, ADMIN, "user", True),
    Event.USER_ERASED: (lambda stage: stage.of_ada("POST", "/erase"), ADMIN, "user", True),
    Event.USER_EXPORTED: (lambda stage: stage.of_ada("GET", "/export"), ADMIN, "user", True),
    Event.PASSWORD_CHANGED: (lambda stage: stage.change_password(PASSWORD), ADA, "user", True),
    Event.PASSWORD_REHASHED: (log_in_at_a_higher_cost, NOBODY, "user", True),
    Event.USERS_SEEDED: (seed, BY_OPERATOR, "users", True),
    Event.USERS_IMPORTED: (import_accounts, BY_OPERATOR, "users", True),
    Event.USERS_EXPORTED: (import_accounts, BY_OPERATOR, "users", True),
    Event.ROLE_CREATED: (keep_a_role, ADMIN, "role", True),
    Event.ROLE_UPDATED: (keep_a_role, ADMIN, "role", True),
    Event.ROLE_DELETED: (keep_a_role, ADMIN, "role", True),
    Event.ROLE_GRANTED: (grant_and_revoke, ADMIN, "user", True),
    Event.ROLE_REVOKED: (grant_and_revoke, ADMIN, "user", True),
    Event.GROUP_CREATED: (keep_a_group, ADMIN, "group", True),
    Event.GROUP_UPDATED: (keep_a_group, ADMIN, "group", True),
    Event.GROUP_DELETED: (keep_a_group, ADMIN, "group", True),
    Event.GROUP_MEMBER_ADDED: (keep_a_group, ADMIN, "user", True),
    Event.GROUP_MEMBER_REMOVED: (keep_a_group, ADMIN, "user", True),
    Event.IP_RULE_CREATED: (keep_a_rule, ADMIN, "ip_rule", True),
    Event.IP_RULE_UPDATED: (keep_a_rule, ADMIN, "ip_rule", True),
    Event.IP_RULE_DELETED: (keep_a_rule, ADMIN, "ip_rule", True),
    Event.IP_RULES_SUSPENDED: (suspend_the_rules, BY_OPERATOR, "ip_rules", True),
    Event.AUDIT_PRUNED: (prune, BY_OPERATOR, "audit", True),
    Event.EXTENSION_ACTED: (act_as_a_plugin, BY_OPERATOR, "user", True),
    Event.AUDIT_ADOPTED: (adopt, BY_OPERATOR, "audit", True),
    Event.SIGNING_KEY_CREATED: (keep_keys, BY_OPERATOR, "signing_key", True),
    Event.SIGNING_KEY_RETIRED: (keep_keys, BY_OPERATOR, "signing_key", True),
}


@pytest.fixture
def flags() -> dict[str, Any]:
    return {"throttle.account": "3/15m", "throttle.session": "3/15m", "audit.retention": "30d"}


@pytest.fixture
async def stage(server: Server, admin: Person, ada: Person) -> Stage:
    return Stage(server, admin, ada)


def test_the_whole_vocabulary_is_here():
    assert set(VOCABULARY) == set(Event)
    # what leads to no account stands in tests/auth/test_login.py
    assert {target_type for _, _, target_type, _ in VOCABULARY.values()} == {*TargetType} - {TargetType.LOGIN_NAME}


@pytest.mark.parametrize("event", VOCABULARY)
async def test_each_event_tells_who_what_where_when_and_how_it_ended(stage: Stage, event: Event):  # K01
    act, who, target_type, is_success = VOCABULARY[event]
    before = len(await stage.server.events(event))
    began = stage.server.clock.now()
    await act(stage)
    (row,) = (await stage.server.events(event))[before:]
    assert (row.actor_name, row.target_type, row.outcome) == (who, target_type, "success" if is_success else "failure")
    assert row.target_id
    assert row.at.tzinfo is UTC
    assert began <= row.at <= stage.server.clock.now()
    _check_origin(stage, row, who)


def _check_origin(stage: Stage, row: AuditEvent, who: str | None) -> None:
    """Where it came from is told, in the one spelling of an address; the operator comes from nowhere."""
    if who == BY_OPERATOR:
        assert (row.actor_id, row.address, row.session_id) == (None, None, None)
        return
    assert (row.address, row.user_agent, row.request_id) == (ADDRESS, AGENT, REQUEST_ID)
    actors = {ADMIN: stage.admin.id, ADA: stage.ada.id, NOBODY: None}
    assert (str(row.actor_id) if row.actor_id else None) == actors[who]
