"""Calls every operation of the API in every way that makes another statement, and does every chore once."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from quart import Response

from tests.people import PASSWORD, Person, Server
from tests.scaling.recorder import Recorder
from usermgmt.audit.verification import verify
from usermgmt.chores import own_chores, shared_chores
from usermgmt.maintenance import service as maintenance

JSON_LINES = {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"}
BY_TIME = "created_after=2020-01-01T00:00:00Z&created_before=2099-01-01T00:00:00Z"
LISTS = (
    "",
    "sort=-username",
    "sort=email&status=active",
    "count=exact&role=user",
    "count=estimated",
    "role=user",
    "role=user&status=active&sort=email",
    "q=user",
    "q=user&sort=username",
    "username=ada",
    "email=ada@example.com",
    f"{BY_TIME}&q=user&role=user",
)
RECORDS = ("", "outcome=failure", "event=login.failed", "actor={id}", "target={id}", "address=192.0.2.1")


class Drive:
    """One run: the server, what is noted, and which operations were called with success."""

    def __init__(self, server: Server, recorder: Recorder) -> None:
        self.server = server
        self.recorder = recorder
        self.called: set[str] = set()
        self.ids: dict[str, str] = {}

    async def call(self, caller: Person, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        """Call an operation, which must answer with this status; its body."""
        urls = self.server.app.url_map.bind("localhost")
        rule, _ = urls.match(path.partition("?")[0], method=method, return_rule=True)
        self.recorder.during = f"{method} {rule.rule}"
        answer: Response = await caller.call(method, path, **options)
        assert answer.status_code == status, (method, path, await answer.get_data(as_text=True))
        if status < 400:
            self.called.add(self.recorder.during)
        self.recorder.during = ""
        is_json = (answer.content_type or "").startswith("application/json")
        return await answer.get_json() if is_json else await answer.get_data(as_text=True)


async def drive(server: Server, recorder: Recorder) -> set[str]:
    """Do all of it; the operations that were called with success."""
    run = Drive(server, recorder)
    admin = await server.person("root", roles=["admin"])
    for step in STEPS:
        await step(run, admin)
    await _do_chores(run, admin)
    return run.called


async def _read_pages(run: Drive, admin: Person) -> None:
    nobody = run.server.nobody()
    for path in ("/.well-known/jwks.json", "/health/live", "/health/ready", "/healthz", "/livez"):
        await run.call(nobody, "GET", path)
    await run.call(nobody, "GET", "/readyz")
    await run.call(admin, "GET", "/api/permissions")


async def _sign_in_and_out(run: Drive, admin: Person) -> None:
    nobody = run.server.nobody()
    new = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
    headers = {"Idempotency-Key": "ada-registers"}
    made = await run.call(nobody, "POST", "/api/users", status=201, json=new, headers=headers)
    await run.call(nobody, "POST", "/api/users", status=201, json=new, headers=headers)
    await run.call(nobody, "POST", "/api/users", status=409, json=new)
    run.ids["ada"] = made["id"]
    wrong = {"username": "ada", "password": "wrong"}
    await run.call(nobody, "POST", "/api/auth/login", status=401, json=wrong)
    await run.call(nobody, "POST", "/api/auth/login", status=401, json={**wrong, "username": "nobody"})
    ada = Person(run.server, username="ada", password=PASSWORD, id=made["id"])
    for _ in range(2):
        ada.keep(await run.call(nobody, "POST", "/api/auth/login", json={"username": "ada", "password": PASSWORD}))
    for path in ("/api/auth/session", "/api/users/me", "/api/users/me/sessions", "/api/users/me/activity"):
        await run.call(ada, "GET", path)
    used = ada.refresh_token
    ada.keep(await run.call(nobody, "POST", "/api/auth/refresh", json={"refresh_token": used}))
    run.server.clock.move(timedelta(minutes=1))
    await run.call(nobody, "POST", "/api/auth/refresh", status=401, json={"refresh_token": used})
    await run.call(nobody, "POST", "/api/auth/refresh", status=401, json={"refresh_token": "made-up"})
    await ada.log_in()
    others = await run.call(ada, "GET", "/api/users/me/sessions")
    other = next(each["id"] for each in others["items"] if not each["current"])
    await run.call(ada, "DELETE", f"/api/users/me/sessions/{other}", status=204)
    for scope in ("others", "this", "all"):
        await ada.log_in()
        await run.call(ada, "POST", f"/api/auth/logout?scope={scope}", status=204)
    await ada.log_in()
    await run.call(ada, "DELETE", "/api/users/me/sessions", status=204)


async def _change_accounts(run: Drive, admin: Person) -> None:
    path = f"/api/users/{run.ids['ada']}"
    ada = await Person(run.server, username="ada", password=PASSWORD, id=run.ids["ada"]).elsewhere()
    await run.call(ada, "PATCH", "/api/users/me", json={"display_name": "Ada", "attributes": {"team": "one"}})
    await run.call(ada, "PUT", "/api/users/me", json={"email": "lovelace@example.com", "current_password": PASSWORD})
    renamed = {"username": "countess", "password": "another long passphrase", "current_password": PASSWORD}
    await run.call(ada, "PATCH", "/api/users/me", status=403, json={**renamed, "current_password": "wrong"})
    await run.call(ada, "PATCH", "/api/users/me", json=renamed)
    await run.call(admin, "GET", path)
    await run.call(admin, "PATCH", path, json={"status": "disabled"})
    await run.call(admin, "PATCH", path, json={"status": "active", "username": "ada", "email": "ada@example.com"})
    await run.call(admin, "GET", f"{path}/export")
    await run.call(admin, "DELETE", path, status=204)
    await run.call(admin, "POST", f"{path}/restore")
    await run.call(admin, "DELETE", f"{path}/sessions", status=204)
    gone = await run.server.person("gone")
    await run.call(admin, "POST", f"/api/users/{gone.id}/erase", status=204)


async def _group(run: Drive, admin: Person) -> None:
    made = await run.call(admin, "POST", "/api/groups", status=201, json={"name": "Research", "description": ""})
    run.ids["group"] = made["id"]
    path = f"/api/groups/{made['id']}"
    await run.call(admin, "GET", "/api/groups")
    await run.call(admin, "GET", path)
    await run.call(admin, "PUT", path, json={"name": "Laboratory"})
    member = f"{path}/members/{run.ids['ada']}"
    await run.call(admin, "PUT", member, status=204)
    await run.call(admin, "DELETE", member, status=204)
    await run.call(admin, "PUT", member, status=204)
    await run.call(admin, "GET", f"/api/users?group={made['id']}")
    await run.call(admin, "GET", f"/api/users?group={made['id']}&sort=username&q=ada&count=exact")


async def _grant(run: Drive, admin: Person) -> None:
    role = {"name": "auditor", "description": "", "permissions": ["users:read"]}
    await run.call(admin, "POST", "/api/roles", status=201, json=role)
    await run.call(admin, "GET", "/api/roles")
    await run.call(admin, "GET", "/api/roles/auditor")
    await run.call(admin, "PUT", "/api/roles/auditor", json={"permissions": ["users:read", "audit:read"]})
    path = f"/api/users/{run.ids['ada']}/roles"
    await run.call(admin, "PUT", f"{path}/auditor", status=204)
    await run.call(admin, "GET", path)
    await run.call(admin, "DELETE", "/api/roles/auditor", status=409)
    await run.call(admin, "DELETE", f"{path}/auditor", status=204)
    await run.call(admin, "PUT", f"{path}/admin", status=204)
    await run.call(admin, "DELETE", f"{path}/admin", status=204)
    await run.call(admin, "DELETE", "/api/roles/auditor", status=204)


async def _confine(run: Drive, admin: Person) -> None:
    """Somebody whose role reaches one group only."""
    mia = await run.server.person("mia")
    group, ada = run.ids["group"], run.ids["ada"]
    await run.call(admin, "PUT", f"/api/users/{mia.id}/roles/admin?group={group}", status=204)
    for path in ("/api/users", "/api/users?q=ada&sort=username", "/api/users?count=exact", f"/api/users/{ada}"):
        await run.call(mia, "GET", path)
    for path in (f"/api/users/{ada}/sessions", f"/api/users/{ada}/activity", f"/api/users/{ada}/roles", "/api/audit"):
        await mia.get(path)  # what the role permits of these is not the question
    await run.call(mia, "PATCH", f"/api/users/{ada}", json={"display_name": "Augusta"})
    await run.call(mia, "DELETE", f"/api/users/{ada}/sessions", status=204)
    await run.call(admin, "DELETE", f"/api/groups/{group}", status=204)


async def _guard(run: Drive, admin: Person) -> None:
    rule = {"network": "203.0.113.0/24", "action": "deny", "note": ""}
    made = await run.call(admin, "POST", "/api/ip-rules", status=201, json=rule)
    named = {**rule, "network": "198.51.100.0/24", "subject": f"user:{run.ids['ada']}"}
    await run.call(admin, "POST", "/api/ip-rules", status=201, json=named)
    path = f"/api/ip-rules/{made['id']}"
    await run.call(admin, "GET", "/api/ip-rules")
    await run.call(admin, "GET", path)
    await run.call(admin, "PUT", path, json={"mode": "report"})
    await run.call(admin, "DELETE", path, status=204)


async def _read_lists(run: Drive, admin: Person) -> None:
    for number in range(3):
        await run.server.person(f"user{number}")
    for query in LISTS:
        page = await run.call(admin, "GET", f"/api/users?limit=1&{query}")
        if page["next_cursor"]:
            await run.call(admin, "GET", f"/api/users?limit=1&{query}&cursor={page['next_cursor']}")
    await run.call(admin, "GET", "/api/users", headers={"Accept": "application/x-ndjson"})
    for query in RECORDS:
        page = await run.call(admin, "GET", f"/api/audit?limit=1&{query.format(id=admin.id)}")
        if page["next_cursor"]:
            await run.call(admin, "GET", f"/api/audit?limit=1&{query.format(id=admin.id)}&cursor={page['next_cursor']}")
    await run.call(admin, "GET", "/api/audit", headers={"Accept": "application/x-ndjson"})


async def _import(run: Drive, admin: Person) -> None:
    rows = [{"username": f"new{n}", "email": f"new{n}@example.com", "roles": ["user"]} for n in range(3)]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    for _ in range(2):
        await run.call(admin, "POST", "/api/users/import", data=body, headers=JSON_LINES)


async def _do_chores(run: Drive, admin: Person) -> None:
    """Each three times, so that each has something to do: a due erasure, events to seal, and seals that are past."""
    runtime = run.server.runtime
    leaver = await run.server.person("leaver")
    await run.call(admin, "DELETE", f"/api/users/{leaver.id}", status=204)
    for wait in (runtime.settings.retention.deleted_users, timedelta(days=1), runtime.settings.audit.retention):
        run.server.clock.move(wait + timedelta(minutes=2))
        await run.server.person(f"passer-by-{wait.days}")
        for own in own_chores(run.server.settings):
            run.recorder.during = f"chore {own.name}"
            await own.do(runtime)
        for chore in shared_chores(run.server.settings):
            run.recorder.during = f"chore {chore.name}"
            assert await maintenance.run_chore(runtime, chore, "drive") is not None
            assert await maintenance.find_last_success(runtime, chore) is not None
    run.recorder.during = "audit verify"
    report = await verify(runtime)
    assert report.problems == []
    run.recorder.during = ""


STEPS: tuple[Callable[[Drive, Person], Awaitable[None]], ...] = (
    _read_pages,
    _sign_in_and_out,
    _change_accounts,
    _group,
    _grant,
    _confine,
    _guard,
    _read_lists,
    _import,
)
