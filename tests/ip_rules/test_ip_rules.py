"""IP rules through HTTP: keeping them, and being refused by them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.problems import pointers_of, problem_of
from usermgmt.ip_rules import in_force, service
from usermgmt.security.principal import OPERATOR
from usermgmt.settings import Settings

RULES = "/api/ip-rules"
HOME, STRANGE = "192.0.2.7", "198.51.100.9"


async def from_(person: Person, address: str, method: str, path: str, **options: Any) -> Response:
    """A call from an address."""
    return await person.call(method, path, scope_base={"client": (address, 1234)}, **options)


async def add(admin: Person, **body: Any) -> Response:
    """A rule that an administrator at home makes."""
    return await from_(admin, HOME, "POST", RULES, json={"action": "deny", **body})


async def test_a_rule_is_made_read_changed_and_removed(server: Server, admin: Person):
    made = await add(admin, network="198.51.100.0/24", note="a loud neighbour")
    assert made.status_code == 201
    body = await made.get_json()
    assert made.headers["Location"].endswith(f"{RULES}/{body['id']}")
    assert (body["network"], body["action"], body["subject"], body["mode"]) == (
        "198.51.100.0/24",
        "deny",
        "everyone",
        "enforce",
    )
    assert (body["hits"], body["created_by"]) == (0, admin.id)
    listed = await (await admin.get(RULES)).get_json()
    assert [rule["id"] for rule in listed["items"]] == [body["id"]]
    changed = await admin.put(f"{RULES}/{body['id']}", json={"mode": "report", "expires_at": "2100-01-01T00:00:00Z"})
    assert ((await changed.get_json())["mode"], (await changed.get_json())["note"]) == ("report", "a loud neighbour")
    assert (await admin.delete(f"{RULES}/{body['id']}")).status_code == 204
    for method in ("GET", "PUT", "DELETE"):
        gone = await admin.call(method, f"{RULES}/{body['id']}", json={} if method == "PUT" else None)
        await problem_of(gone, 404, "ip_rule_not_found")
    for name in ("ip_rule.created", "ip_rule.updated", "ip_rule.deleted"):
        (event,) = await server.events(name)
        assert (event.target_type, event.target_id) == ("ip_rule", body["id"])


@pytest.mark.parametrize(
    "network",
    ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/255.0.0.0/8", "", "x", "10.0.0.0/-1", "::1%eth0/64"],
)
async def test_what_is_no_network_is_422(admin: Person, network: str):  # D06
    body = await problem_of(await add(admin, network=network), 422, "validation_failed")
    assert pointers_of(body) == {"/network": "invalid_network"}


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"subject": "role:nosuch"}, "/subject", "unknown_subject"),
        ({"subject": "user:01900000-0000-7000-8000-000000000000"}, "/subject", "unknown_subject"),
        ({"subject": "user:root"}, "/subject", "invalid_format"),
        ({"subject": "anybody"}, "/subject", "invalid_format"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
        ({"expires_at": "tomorrow"}, "/expires_at", "invalid_time"),
        ({"mode": "log"}, "/mode", "not_an_option"),
        ({"action": "block"}, "/action", "not_an_option"),
        ({"note": "x" * 256}, "/note", "too_long"),
        ({"force": "yes"}, "/force", "wrong_type"),
        ({"hits": 5}, "/hits", "unknown_field"),
    ],
)
async def test_what_is_no_rule_is_422(admin: Person, body: dict[str, Any], pointer: str, code: str):
    refused = await problem_of(await add(admin, **{"network": "203.0.113.0/24", **body}), 422, "validation_failed")
    assert pointers_of(refused) == {pointer: code}


async def test_a_mapped_network_is_kept_as_what_it_is(admin: Person):  # D06
    body = await (await add(admin, network="::ffff:203.0.113.0/120")).get_json()
    assert body["network"] == "203.0.113.0/24"


# In force


async def test_a_denied_address_may_do_nothing_but_ask_for_health(server: Server, admin: Person, ada: Person):  # D07
    assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 200
    assert (await add(admin, network="198.51.100.0/24")).status_code == 201
    await problem_of(await from_(ada, STRANGE, "GET", "/api/users/me"), 403, "address_denied")
    body = {"refresh_token": ada.refresh_token}
    await problem_of(await from_(server.nobody(), STRANGE, "POST", "/api/auth/refresh", json=body), 403)
    login = {"username": "ada", "password": PASSWORD}
    await problem_of(await from_(server.nobody(), STRANGE, "POST", "/api/auth/login", json=login), 403)
    await problem_of(await from_(server.nobody(), STRANGE, "GET", "/nowhere"), 403, "address_denied")
    assert (await from_(server.nobody(), STRANGE, "GET", "/health/live")).status_code == 200
    assert (await from_(ada, HOME, "GET", "/api/users/me")).status_code == 200


async def test_a_rule_is_about_a_role_a_user_or_a_set(server: Server, admin: Person, ada: Person, bob: Person):
    await add(admin, network="198.51.100.0/24", subject=f"user:{bob.id}")
    await problem_of(await from_(bob, STRANGE, "GET", "/api/users/me"), 403, "address_denied")
    assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 200
    assert (await add(admin, network="192.0.2.0/24", action="allow", subject="role:admin")).status_code == 201
    await problem_of(await from_(admin, STRANGE, "GET", "/api/users/me"), 403, "address_denied")
    assert (await from_(admin, HOME, "GET", "/api/users/me")).status_code == 200
    body = {"name": "definer", "permissions": ["roles:manage", "users:read"]}
    assert (await from_(admin, HOME, "POST", "/api/roles", json=body)).status_code == 201
    second = await server.person("second", roles=["definer"])
    await add(admin, network="203.0.113.0/24", subject="set:admin")
    await problem_of(await from_(second, "203.0.113.5", "GET", "/api/roles"), 403, "address_denied")
    assert (await from_(second, "203.0.113.5", "GET", "/api/users")).status_code == 200


async def answers(person: Person, status: int) -> None:
    """Wait for a status, for as long as a worker may take to follow, of real time."""
    for _ in range(30):
        if (await from_(person, STRANGE, "GET", "/api/users/me")).status_code == status:
            return
        await asyncio.sleep(0.05)  # the rules are read anew in real time
    raise AssertionError(f"no {status} within 1.5 s")


async def test_another_worker_follows_within_a_second(server: Server, settings: Settings, admin: Person, ada: Person):
    other = Server(settings)  # L08
    async with other.running():
        elsewhere = Person(other)
        elsewhere.access_token = ada.access_token
        assert (await from_(elsewhere, STRANGE, "GET", "/api/users/me")).status_code == 200
        assert (await add(admin, network=STRANGE)).status_code == 201
        await answers(elsewhere, 403)
        await service.suspend_rules(server.runtime, OPERATOR)
        assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 200
        await answers(elsewhere, 200)


async def test_a_rule_that_only_reports_refuses_nobody_and_counts(server: Server, admin: Person, ada: Person):
    body = await (await add(admin, network="198.51.100.0/24", mode="report")).get_json()
    for _ in range(3):
        assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 200
    await in_force.store_hits(server.runtime)
    counted = await (await admin.get(f"{RULES}/{body['id']}")).get_json()
    assert counted["hits"] == 3
    assert counted["last_hit_at"] is not None


async def test_a_rule_ends_when_its_time_is_over(server: Server, admin: Person, ada: Person):
    expires_at = (server.clock.now() + timedelta(minutes=5)).isoformat()
    assert (await add(admin, network=STRANGE, expires_at=expires_at)).status_code == 201
    assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 403
    server.clock.move(timedelta(minutes=5))
    assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 200


async def test_a_rule_may_be_for_ever(server: Server, admin: Person, ada: Person):
    made = await (await add(admin, network=STRANGE, expires_at="9999-12-31T23:59:59.999999Z")).get_json()
    assert made["expires_at"] == "9999-12-31T23:59:59.999Z"
    assert await (await admin.get(f"{RULES}/{made['id']}")).get_json() == made
    assert await server.rows("SELECT id FROM ip_rules WHERE expires_at < '9999-12-31 23:59:59.9995'")
    server.clock.move(timedelta(days=30_000))
    await ada.log_in()
    assert (await from_(ada, STRANGE, "GET", "/api/users/me")).status_code == 403


# Not locking oneself out


@pytest.mark.parametrize(
    "body",
    [
        {"network": "192.0.2.0/24"},
        {"network": "0.0.0.0/0"},
        {"network": "203.0.113.0/24", "action": "allow"},
        {"network": "192.0.2.7", "subject": "role:admin"},
        {"network": "192.0.2.7", "subject": "set:admin"},
        {"network": "10.0.0.0/8", "action": "allow", "subject": "set:admin"},
    ],
)
async def test_a_rule_that_would_shut_out_its_author_is_refused_unless_forced(  # G06
    server: Server, admin: Person, body: dict[str, Any]
):
    await problem_of(await add(admin, **body), 409, "would_lock_out")
    assert await server.rows("SELECT * FROM ip_rules") == []
    assert (await from_(admin, HOME, "GET", RULES)).status_code == 200
    assert (await add(admin, **body, force=True)).status_code == 201
    assert (await from_(admin, HOME, "GET", RULES)).status_code == 403


async def test_nor_may_a_change_or_a_removal_shut_its_author_out(server: Server, admin: Person):
    wide = await (await add(admin, network="192.0.2.0/24", mode="report")).get_json()
    change = {"mode": "enforce"}
    path = f"{RULES}/{wide['id']}"
    await problem_of(await from_(admin, HOME, "PUT", path, json=change), 409, "would_lock_out")
    mine = await (await add(admin, network="192.0.2.7", action="allow")).get_json()
    assert (await from_(admin, HOME, "PUT", path, json=change)).status_code == 200
    own = f"{RULES}/{mine['id']}"
    await problem_of(await from_(admin, HOME, "DELETE", own), 409, "would_lock_out")
    assert (await from_(admin, HOME, "DELETE", f"{own}?force=true")).status_code == 204
    assert (await from_(admin, HOME, "GET", RULES)).status_code == 403


async def test_there_is_a_limit_to_the_number_of_rules(server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "MAX_RULES", 2)
    for number in range(2):
        assert (await add(admin, network=f"203.0.113.{number}")).status_code == 201
    await problem_of(await add(admin, network="203.0.113.9"), 409, "too_many_ip_rules")
