"""What is counted is right, bounded, and told to nobody else."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from tests.conftest import settings_for
from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.audit import measures, seals
from usermgmt.chores import own_chores, shared_chores
from usermgmt.errors import DatabaseUnavailable
from usermgmt.health.measures import INTERVAL, Sampling
from usermgmt.maintenance.service import SharedChore, run_chore
from usermgmt.runtime import Runtime
from usermgmt.sessions import service as sessions
from usermgmt.storage.database import Database

TOKEN = "a-token-that-only-prometheus-has"
DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def flags() -> dict[str, object]:
    return {"metrics.enabled": True, "metrics.token": TOKEN, "server.management_bind": "127.0.0.1:9100"}


async def told(server: Server) -> dict[str, float]:
    """Every series and its value."""
    response = await server.nobody().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    page = await response.get_data(as_text=True)
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def grown(before: dict[str, float], after: dict[str, float], name: str, **labels: str) -> float:
    """How much a series grew."""
    series = f"usermgmt_{name}{json.dumps(labels, sort_keys=True)}"
    return after.get(series, 0.0) - before.get(series, 0.0)


async def test_requests_are_counted_by_route_and_never_by_path(server: Server, ada: Person, bob: Person):
    before = await told(server)
    for person in (ada, bob):
        assert (await person.get("/api/users/me")).status_code == 200
    assert (await ada.get(f"/api/users/{bob.id}")).status_code == 403
    for number in range(5):
        assert (await ada.call("BREW", f"/coffee/{number}")).status_code in (404, 405)
    after = await told(server)
    route = "/api/users/<user_ref:user_id>"
    assert grown(before, after, "requests_total", method="GET", route=route, status="200") == 2
    assert grown(before, after, "requests_total", method="GET", route=route, status="403") == 1
    assert grown(before, after, "requests_total", method="other", route="unmatched", status="404") == 5
    assert grown(before, after, "request_duration_seconds_count", route=route) == 3
    assert not any("coffee" in series or ada.id in series for series in after)


async def test_hashes_events_tokens_and_reads_are_counted(server: Server, ada: Person):
    before = await told(server)
    body = {"username": "ada", "password": PASSWORD}
    assert (await server.nobody().post("/api/auth/login", json=body)).status_code == 200
    assert (await server.nobody().post("/api/auth/login", json={**body, "password": "wrong"})).status_code == 401
    assert (await ada.get("/api/users/me")).status_code == 200
    assert (await ada.get("/api/users/me", headers={"Authorization": "Bearer x.y.z"})).status_code == 401
    after = await told(server)
    assert grown(before, after, "audit_events_total", event="login.succeeded", outcome="success") == 1
    assert grown(before, after, "audit_events_total", event="login.failed", outcome="failure") == 1
    assert grown(before, after, "hash_duration_seconds_count") == 2
    assert grown(before, after, "hash_wait_seconds_count") == 2
    (key,) = [key.kid for key in server.runtime.ring.keys]
    assert grown(before, after, "tokens_verified_total", key=key, outcome="good") == 1
    assert grown(before, after, "tokens_verified_total", key="none", outcome="refused") == 1
    assert grown(before, after, "database_coalesced_keys_total") >= 2
    assert after["usermgmt_workers{}"] == 1


@pytest.mark.parametrize("flags", [{"metrics.enabled": True, "metrics.token": TOKEN, "throttle.account": "1/15m"}])
async def test_refused_guesses_are_counted(server: Server, ada: Person):
    stranger = server.nobody()
    before = await told(server)
    statuses = [
        (await stranger.post("/api/auth/login", json={"username": "bob", "password": "wrong"})).status_code
        for _ in range(3)
    ]
    after = await told(server)
    assert statuses == [401, 429, 429]
    assert grown(before, after, "throttle_refused_total", kind="account") == 2


async def test_sessions_are_counted_from_their_beginning_to_their_end(server: Server, ada: Person):
    before = await told(server)
    other, stranger = await ada.elsewhere(), server.nobody()
    first = other.refresh_token

    async def refresh(token: str) -> int:
        return (await stranger.post("/api/auth/refresh", json={"refresh_token": token})).status_code

    assert [await refresh(first), await refresh(first), await refresh("forged")] == [200, 200, 401]
    server.clock.move(timedelta(minutes=1))
    assert await refresh(first) == 401  # beyond the grace: stolen
    await sessions.sample_live(server.runtime)
    halfway = await told(server)
    assert halfway["usermgmt_sessions_live{}"] == 1
    assert grown(before, halfway, "sessions_opened_total") == 1
    outcomes = {"new": 1, "repeated": 1, "forged": 1, "refused": 1}
    assert {each: grown(before, halfway, "refreshes_total", outcome=each) for each in outcomes} == outcomes
    assert grown(before, halfway, "sessions_revoked_total", reason="refresh_reused") == 1
    assert (await ada.post("/api/auth/logout")).status_code == 204
    await sessions.sample_live(server.runtime)
    after = await told(server)
    assert grown(halfway, after, "sessions_revoked_total", reason="signed_out") == 1
    assert after["usermgmt_sessions_live{}"] == 0


async def test_the_lag_of_the_loop_is_how_late_a_timer_was_called(server: Server):
    seconds = 100.0
    sampling = Sampling(now=lambda: seconds)
    interval = INTERVAL.total_seconds()
    for later, late in [(0.0, 0.0), (interval, 0.0), (interval + 0.7, 0.7), (interval - 0.5, 0.0), (interval + 3, 3.0)]:
        seconds += later
        await sampling.take(server.runtime)
        for _ in range(2):  # a scrape, which comes when it likes, leaves it as it is
            assert (await told(server))["usermgmt_loop_lag_seconds{}"] == pytest.approx(late)
    (chore,) = [each for each in own_chores(server.settings) if each.name == "samples"]
    await chore.do(server.runtime)  # whose first look is at nothing that was due
    assert (await told(server))["usermgmt_loop_lag_seconds{}"] == 0


async def test_a_record_that_waits_for_its_seal_is_seen_and_so_is_one_that_was_changed(server: Server, ada: Person):
    async def standing() -> tuple[float, float, float, float]:
        await measures.sample(server.runtime)
        names = ("chain_broken", "unsealed_events", "oldest_unsealed_seconds", "last_seal_timestamp_seconds")
        series = await told(server)
        broken, waiting, seconds, at = (series[f"usermgmt_audit_{name}{{}}"] for name in names)
        return broken, waiting, seconds, at

    server.clock.move(timedelta(minutes=1))
    await seals.seal_pending(server.runtime)
    broken, waiting, seconds, sealed_at = await standing()
    assert (broken, waiting, seconds) == (0, 0, 0)
    assert sealed_at == pytest.approx(server.clock.now().timestamp(), abs=30)
    await ada.elsewhere()
    server.clock.move(timedelta(minutes=20))
    broken, waiting, seconds, still = await standing()
    assert (broken, waiting, still) == (0, 1, sealed_at)
    assert 1200 <= seconds < 1230
    await server.execute("UPDATE audit_head SET events = events + 1")
    assert (await standing())[:2] == (1, 1)
    with pytest.raises(seals.ChainBroken):
        await seals.seal_pending(server.runtime)


async def fail(_: Runtime) -> int:
    raise DatabaseUnavailable


async def test_what_chores_did_is_counted(server: Server, ada: Person):
    assert (await ada.post("/api/auth/logout")).status_code == 204
    server.clock.move(timedelta(days=91))
    chores = {chore.name: chore for chore in shared_chores(server.settings)}
    before = await told(server)
    assert await run_chore(server.runtime, chores["sessions"], "me") is not None
    with pytest.raises(DatabaseUnavailable):
        await run_chore(server.runtime, SharedChore("sweeping", timedelta(minutes=1), fail), "me")
    after = await told(server)
    assert grown(before, after, "chore_rows_total", chore="sessions") == 1
    assert grown(before, after, "chore_duration_seconds_count", chore="sessions") == 1
    assert grown(before, after, "chore_failures_total", chore="sweeping") == 1
    last = after['usermgmt_chore_last_success_timestamp_seconds{"chore": "sessions"}']
    assert abs(last - server.clock.now().timestamp()) < 60


async def test_a_database_that_is_away_is_counted(server: Server):
    before = await told(server)
    away = Database(settings_for("postgresql+asyncpg://nobody@127.0.0.1:1/nothing").database)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            async with away.read() as session:
                await session.execute(text("SELECT 1"))
    await away.close()
    assert grown(before, await told(server), "database_unavailable_total") == 2


async def test_without_the_token_there_is_nothing_to_see(server: Server, ada: Person):
    await problem_of(await server.nobody().get("/metrics"), 401, "missing_credentials")
    for wrong in ("Bearer ", f"Bearer {TOKEN}x", f"bearer {TOKEN}", f"Basic {TOKEN}", "Bearer é"):
        refused = await server.nobody().get("/metrics", headers={"Authorization": wrong})
        await problem_of(refused, 401, "invalid_token")
    await problem_of(await ada.get("/metrics"), 401, "invalid_token")


@pytest.mark.parametrize(
    "flags", [{}, {"metrics.enabled": True, "server.management_bind": "127.0.0.1:9100"}], ids=["off", "elsewhere"]
)
async def test_where_it_is_not_offered_it_is_not_found(server: Server):
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
        await problem_of(await server.nobody().get("/metrics", headers=headers), 404, "not_found")


async def test_the_management_listener_serves_probes_and_metrics_only(server: Server, ada: Person):
    there = {"scope_base": {"server": ("127.0.0.1", 9100)}}
    assert (await server.nobody().get("/metrics", **there)).status_code == 200
    assert (await server.nobody().get("/health/ready", **there)).status_code == 200
    for path in ("/api/users/me", "/openapi.json", "/.well-known/jwks.json", "/nowhere"):
        await problem_of(await ada.get(path, **there), 404, "not_found")


async def test_every_series_of_the_dashboard_and_the_alerts_is_told(server: Server, ada: Person):
    response = await server.nobody().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    offered = set(re.findall(r"^# TYPE (\S+)", await response.get_data(as_text=True), re.MULTILINE))
    for file in ("grafana/usermgmt.json", "prometheus/alerts.yml", "prometheus/alerts_test.yml"):
        used = set(re.findall(r"\busermgmt_[a-z_]+", (DEPLOY / file).read_text(encoding="utf-8")))
        assert len(used) > 8
        assert {re.sub("_bucket$", "", name) for name in used} - offered == set(), file
