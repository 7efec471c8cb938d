"""Reading the record: filters, pages, streams; who may, and what they are told."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.people import PASSWORD, Person, Server
from tests.problems import pointers_of, problem_of

AUDIT = "/api/audit"
LOGIN = "/api/auth/login"


async def listed(asker: Person, query: str = "", path: str = AUDIT) -> list[dict[str, Any]]:
    response = await asker.get(f"{path}?limit=100{query}")
    assert response.status_code == 200, await response.get_data(as_text=True)
    items: list[dict[str, Any]] = (await response.get_json())["items"]
    return items


@pytest.fixture
async def busy(server: Server, admin: Person, ada: Person, bob: Person) -> Server:
    """A server where things have happened."""
    body = {"username": "ada", "password": "wrong"}
    scope = {"client": ("198.51.100.9", 1)}
    await server.nobody().post(LOGIN, json=body, headers={"User-Agent": "a guesser"}, scope_base=scope)
    assert (await admin.put(f"/api/users/{ada.id}", json={"display_name": "Ada"})).status_code == 200
    assert (await ada.get("/api/roles")).status_code == 403
    return server


async def test_events_come_newest_first_with_all_that_is_known(busy: Server, admin: Person, ada: Person):
    events = await listed(admin)
    assert [event["at"] for event in events] == sorted((event["at"] for event in events), reverse=True)
    assert len(events) == len(await busy.events())
    denied, updated, failed, *_ = events
    assert (denied["event"], denied["outcome"], denied["actor"]) == (
        "access.denied",
        "failure",
        {"id": ada.id, "name": "ada"},
    )
    assert denied["target"] == {"type": "route", "id": "GET /api/roles"}
    assert (updated["event"], updated["actor"]["name"], updated["target"]["id"]) == ("user.updated", "root", ada.id)
    assert updated["details"] == {"fields": ["display_name"]}
    assert failed["event"] == "login.failed"
    assert (failed["address"], failed["user_agent"]) == ("198.51.100.9", "a guesser")
    assert failed["details"] == {"reason": "wrong_password"}
    assert set(denied) == {
        "id",
        "at",
        "event",
        "outcome",
        "actor",
        "target",
        "session_id",
        "address",
        "user_agent",
        "request_id",
        "details",
    }


async def test_every_filter_narrows_the_list(busy: Server, admin: Person, ada: Person, bob: Person):
    middle = (await busy.events("login.failed"))[0].at.isoformat().replace("+00:00", "Z")
    for query, names in {
        "&event=login.failed": {"login.failed"},
        "&outcome=failure": {"login.failed", "access.denied"},
        f"&actor={ada.id}": {"access.denied"},
        f"&target={bob.id}": {"user.created", "login.succeeded"},
        "&target=GET%20/api/roles": {"access.denied"},
        "&address=198.51.100.9": {"login.failed"},
        "&address=::ffff:198.51.100.9": {"login.failed"},
        "&address=192.0.2.1": set(),
        f"&since={middle}&event=login.failed": {"login.failed"},
        f"&until={middle}&event=login.failed": set(),
        f"&outcome=failure&actor={ada.id}&event=access.denied": {"access.denied"},
        f"&outcome=success&actor={ada.id}": set(),
    }.items():
        assert {event["event"] for event in await listed(admin, query)} == names, query


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("event=login.faild", "event", "not_an_option"),
        ("outcome=maybe", "outcome", "not_an_option"),
        ("actor=root", "actor", "invalid_id"),
        ("actor=01900000-0000-7000-8000-00000000000A", "actor", "invalid_id"),
        ("address=nowhere", "address", "invalid_address"),
        ("since=yesterday", "since", "invalid_time"),
        ("until=2026-13-01T00:00:00Z", "until", "invalid_time"),
        ("limit=0", "limit", "out_of_range"),
        ("limit=101", "limit", "out_of_range"),
        ("target=" + "x" * 321, "target", "too_long"),
        ("sort=at", "sort", "unknown_parameter"),
        ("offset=1", "offset", "unknown_parameter"),
    ],
)
async def test_what_cannot_be_asked_is_422(admin: Person, query: str, parameter: str, code: str):
    body = await problem_of(await admin.get(f"{AUDIT}?{query}"), 422, "validation_failed")
    assert pointers_of(body) == {parameter: code}


async def test_pages_hold_every_event_once(busy: Server, admin: Person):
    whole = [event["id"] for event in await listed(admin)]
    paged: list[str] = []
    path: str | None = f"{AUDIT}?limit=3"
    while path is not None:
        response = await admin.get(path)
        body = await response.get_json()
        paged += [event["id"] for event in body["items"]]
        links = response.headers.get("Link", "")
        path = links.split(">", 1)[0].removeprefix("<") if 'rel="next"' in links else None
    assert paged == whole


async def test_a_cursor_opens_no_other_list(busy: Server, admin: Person, ada: Person):  # H09
    cursor = (await (await admin.get(f"{AUDIT}?limit=2")).get_json())["next_cursor"]
    for path in (
        f"{AUDIT}?cursor={cursor}&event=login.failed",
        f"/api/users/{ada.id}/activity?cursor={cursor}",
        f"{AUDIT}?cursor={cursor[:-2]}",
        f"/api/users?cursor={cursor}",
    ):
        await problem_of(await admin.get(path), 400, "invalid_cursor")


async def test_a_stream_holds_every_event(busy: Server, admin: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("usermgmt.audit.service.STREAM_BATCH", 2)
    response = await admin.get(AUDIT, headers={"Accept": "application/x-ndjson"})
    assert response.headers["Content-Type"] == "application/x-ndjson"
    lines = (await response.get_data(as_text=True)).splitlines()
    assert [json.loads(line) for line in lines] == await listed(admin)
    narrowed = await admin.get(f"{AUDIT}?event=login.failed", headers={"Accept": "application/x-ndjson"})
    assert len((await narrowed.get_data(as_text=True)).splitlines()) == 1


async def test_nobody_writes_the_record(busy: Server, admin: Person):  # G16
    before = len(await busy.events())
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        await problem_of(await admin.call(method, AUDIT, json={}), 405, "method_not_allowed")
        await problem_of(await admin.call(method, f"/api/users/{admin.id}/activity", json={}), 405)
    assert len(await busy.events()) == before


# One's own activity


async def test_one_sees_what_happened_to_one_s_account(busy: Server, ada: Person, admin: Person):
    events = await listed(ada, path="/api/users/me/activity")
    assert [event["event"] for event in events] == [
        "access.denied",
        "user.updated",
        "login.failed",
        "login.succeeded",
        "user.created",
    ]
    by_others = events[1]
    assert by_others["actor"] == {"id": admin.id, "name": None}
    assert (by_others["address"], by_others["user_agent"], by_others["session_id"], by_others["request_id"]) == (
        None,
    ) * 4
    assert events[2]["address"] == "198.51.100.9"
    assert [event["event"] for event in await listed(ada, "&outcome=failure", "/api/users/me/activity")] == [
        "access.denied",
        "login.failed",
    ]
    full = await listed(admin, path=f"/api/users/{ada.id}/activity")
    assert full[1]["actor"] == {"id": admin.id, "name": "root"}


async def test_who_may_see_activity(as_: Any, ada: Person, admin: Person):  # G02
    for caller, status in {"nobody": 401, "stranger": 403, "manager": 403, "self": 200, "admin": 200}.items():
        assert (await as_(caller).get(f"/api/users/{ada.id}/activity")).status_code == status, caller
        assert (await as_(caller).get(AUDIT)).status_code == (403 if status == 200 and caller == "self" else status)
    await problem_of(await admin.get("/api/users/01900000-0000-7000-8000-000000000000/activity"), 404, "user_not_found")


# What is written


async def test_what_somebody_sends_is_cut_to_what_the_record_holds(server: Server, ada: Person):  # K07
    body = {"username": "x" * 320, "password": "wrong"}
    await server.nobody().post(LOGIN, json=body, headers={"User-Agent": "a" * 8_000})
    (event,) = await server.events("login.failed")
    assert len(event.user_agent or "") == 512
    assert len(event.target_id or "") == 64
    assert len(json.dumps(event.details)) < 4_096


async def test_a_change_whose_record_cannot_be_written_does_not_happen(server: Server, ada: Person, admin: Person):
    if server.runtime.database.is_sqlite:
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END"
        allow = "DROP TRIGGER refuse"
    else:
        await server.execute(
            "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql"
        )
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION refuse()"
        allow = "DROP FUNCTION refuse CASCADE"
    before = await server.rows("SELECT id, version, status FROM users ORDER BY id")
    await server.execute(refuse)
    try:
        assert (await admin.put(f"/api/users/{ada.id}", json={"status": "disabled"})).status_code >= 500
        assert (await ada.delete("/api/users/me")).status_code >= 500
        new = {"username": "eve", "email": "eve@example.com", "password": PASSWORD}
        assert (await server.nobody().post("/api/users", json=new)).status_code >= 500
        assert (await ada.get("/api/users/me")).status_code == 200
    finally:
        await server.execute(allow)
    assert await server.rows("SELECT id, version, status FROM users ORDER BY id") == before


async def test_a_confined_reader_s_stream_is_confined(server: Server, admin: Person, ada: Person):
    group = (await (await admin.post("/api/groups", json={"name": "Lab"})).get_json())["id"]
    assert (await admin.post("/api/roles", json={"name": "auditor", "permissions": ["audit:read"]})).status_code == 201
    auditor = await server.person("auditor")
    for path in (f"/api/groups/{group}/members/{ada.id}", f"/api/users/{auditor.id}/roles/auditor?group={group}"):
        assert (await admin.put(path)).status_code == 204
    server.clock.move(timedelta(seconds=1))
    response = await auditor.get(AUDIT, headers={"Accept": "application/x-ndjson"})
    events = [json.loads(line) for line in (await response.get_data(as_text=True)).splitlines()]
    assert {event["target"]["id"] for event in events} == {ada.id}
    assert await listed(auditor, path=f"/api/users/{ada.id}/activity") == events
    own = await listed(auditor, path="/api/users/me/activity")
    assert "root" not in {event["actor"]["name"] for event in own}
