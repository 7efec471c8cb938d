"""The sealed record: whatever is changed, removed, added or cut off afterwards is found and named."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.conftest import SECRET
from tests.people import Person, Server
from usermgmt.audit import seals, verification
from usermgmt.audit import service as audit
from usermgmt.audit.digests import entries_of
from usermgmt.audit.events import Event
from usermgmt.audit.models import AuditEvent, AuditSeal
from usermgmt.audit.seals import LAG, ChainBroken, Checkpoint
from usermgmt.security.principal import OPERATOR
from usermgmt.settings import Settings

COLUMNS = [column.name for column in AuditEvent.__table__.columns]
TICK = LAG + timedelta(seconds=1)


async def happen(server: Server, person: Person, count: int = 5) -> None:
    """Things that are recorded, and sealed."""
    for number in range(count):
        assert (await person.put("/api/users/me", json={"display_name": f"name {number}"})).status_code == 200
    server.clock.move(TICK)
    await seals.seal_pending(server.runtime)


async def problems(server: Server, checkpoint: Checkpoint | None = None) -> list[str]:
    return (await verification.verify(server.runtime, checkpoint=checkpoint)).problems


async def sealed_events(server: Server) -> list[AuditEvent]:
    """What is sealed, in order."""
    async with server.runtime.database.read() as session:
        found = await session.scalars(
            AuditSeal.__table__.select().with_only_columns(AuditSeal.entries).order_by(AuditSeal.seq)
        )
        ids = [event_id for entries in found for event_id, _ in entries_of(entries)]
    events = {event.id: event for event in await server.events()}
    return [events[event_id] for event_id in ids]


async def test_what_was_not_touched_verifies(server: Server, ada: Person):
    await happen(server, ada)
    await happen(server, ada)
    report = await verification.verify(server.runtime)
    assert (report.problems, report.seals, report.unchecked_signatures, report.erased) == ([], 2, 0, 0)
    assert report.events == len(await server.events())


async def test_nothing_sealed_is_nothing_wrong(server: Server):
    assert (await verification.verify(server.runtime)).is_intact
    assert await seals.find_checkpoint(server.runtime) is None


@pytest.mark.parametrize(
    "change",
    [
        "outcome = 'failure'",
        "event = 'user.created'",
        "actor_id = NULL",
        "address = '192.0.2.99'",
        "user_agent = 'somebody else'",
        "actor_name = 'bob'",
        "target_id = 'somebody'",
        "request_id = 'another-request'",
        'details = \'{"fields": ["email"]}\'',
        "personal_digest = 'x'",
        "salt = NULL, actor_name = NULL, address = NULL, user_agent = NULL",
        "salt = NULL",
    ],
)
async def test_a_changed_event_is_named(server: Server, ada: Person, change: str):  # K05
    await happen(server, ada)
    event = (await sealed_events(server))[3]
    await server.execute(f"UPDATE audit_events SET {change} WHERE id = :id", id=_stored(server, event))
    (problem,) = await problems(server)
    assert str(event.id) in problem


async def test_a_removed_event_is_named(server: Server, ada: Person):  # K05
    await happen(server, ada)
    event = (await sealed_events(server))[2]
    await server.execute("DELETE FROM audit_events WHERE id = :id", id=_stored(server, event))
    assert await problems(server) == [f"event {event.id} was removed, or its time was changed (seal 1)"]


async def test_events_that_changed_places_are_named(server: Server, ada: Person):  # K05
    await happen(server, ada)
    one, other = (await sealed_events(server))[2:4]
    for event, at in ((one, other.at), (other, one.at)):
        await server.execute(
            "UPDATE audit_events SET at = :at WHERE id = :id",
            at=at if not server.runtime.database.is_sqlite else at.replace(tzinfo=None),
            id=_stored(server, event),
        )
    (problem,) = await problems(server)
    assert str(one.id) in problem


async def test_an_added_event_is_named(server: Server, ada: Person):  # K05
    await happen(server, ada)
    await happen(server, ada)
    server.clock.move(timedelta(minutes=5))
    await happen(server, ada)
    event = (await sealed_events(server))[2]
    columns = ", ".join(name for name in COLUMNS if name != "id")
    new_id = str(event.id)[:-4] + "ffff"
    stored = new_id.replace("-", "") if server.runtime.database.is_sqlite else new_id
    await server.execute(
        f"INSERT INTO audit_events (id, {columns}) SELECT :new, {columns} FROM audit_events WHERE id = :id",
        new=stored,
        id=_stored(server, event),
    )
    (problem,) = await problems(server)
    assert problem.startswith(f"event {new_id} ")
    assert "added" in problem


async def test_a_cut_tail_is_found(server: Server, ada: Person):  # K05
    await happen(server, ada)
    kept = len(await server.events())
    await happen(server, ada)
    for event in (await sealed_events(server))[kept:]:
        await server.execute("DELETE FROM audit_events WHERE id = :id", id=_stored(server, event))
    await server.execute("DELETE FROM audit_seals WHERE seq = 2")
    assert await problems(server) == ["the tail was cut off: the chain ends at seal 1, and 2 were made"]
    await server.execute("UPDATE audit_head SET seq = 1, digest = (SELECT digest FROM audit_seals WHERE seq = 1)")
    assert await problems(server) == ["the end of the chain was changed: its signature is not ours"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM audit_seals WHERE seq = 2", "seal 2 was removed"),
        ("UPDATE audit_seals SET digest = 'x' WHERE seq = 2", "seal 2 was changed"),
        ("UPDATE audit_seals SET signature = 'x' WHERE seq = 2", "seal 2 was changed"),
        ("UPDATE audit_head SET events = 0", "the end of the chain was changed"),
    ],
)
async def test_a_changed_chain_is_found(server: Server, ada: Person, statement: str, told: str):
    for _ in range(3):
        await happen(server, ada, 2)
    await server.execute(statement)
    (problem,) = await problems(server)
    assert told in problem


async def test_a_checkpoint_kept_elsewhere_shows_a_history_that_was_rewritten(server: Server, ada: Person):
    await happen(server, ada)
    checkpoint = await seals.find_checkpoint(server.runtime)
    assert checkpoint is not None
    await happen(server, ada)
    assert await problems(server, checkpoint) == []
    for table in ("audit_seals", "audit_head", "audit_events"):
        await server.execute(f"DELETE FROM {table}")
    await happen(server, ada, 2)
    assert await problems(server) == []
    (problem,) = await problems(server, checkpoint)
    assert "rewritten" in problem
    forged = Checkpoint(checkpoint.seq, "0" * 64, checkpoint.key_id, checkpoint.signature)
    assert await problems(server, forged) == ["the checkpoint is not one that this server signed"]


async def test_an_event_that_was_committed_late_is_sealed_with_the_next(server: Server, ada: Person):
    await happen(server, ada)
    (event,) = (await server.events())[-1:]
    columns = ", ".join(name for name in COLUMNS if name != "id")
    late = str(event.id)[:-4] + "0000"
    stored = late.replace("-", "") if server.runtime.database.is_sqlite else late
    await server.execute(
        f"INSERT INTO audit_events (id, {columns}) SELECT :new, {columns} FROM audit_events WHERE id = :id",
        new=stored,
        id=_stored(server, event),
    )
    assert await problems(server) == []
    server.clock.move(timedelta(seconds=31))
    await happen(server, ada)
    report = await verification.verify(server.runtime)
    assert (report.problems, report.events) == ([], len(await server.events()))


async def test_two_workers_seal_one_chain(server: Server, settings: Settings, ada: Person):  # K06
    other = Server(settings)
    async with other.running():
        for _ in range(5):
            await asyncio.gather(*(ada.put("/api/users/me", json={"display_name": f"{n}"}) for n in range(20)))
            for each in (server, other):
                each.clock.move(TICK)
            await asyncio.gather(*(seals.seal_pending(each.runtime) for each in (server, other) for _ in range(5)))
    await seals.seal_pending(server.runtime)
    report = await verification.verify(server.runtime)
    assert (report.problems, report.events) == ([], len(await server.events()))


async def test_many_events_are_sealed_in_batches(server: Server, ada: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seals, "BATCH", 4)
    await happen(server, ada, 10)
    report = await verification.verify(server.runtime)
    assert (report.problems, report.events) == ([], len(await server.events()))
    assert report.seals >= 3


@pytest.mark.parametrize("flags", [{"audit.retention": "30d"}], ids=["30d"])
async def test_what_is_too_old_is_pruned_and_the_rest_verifies(server: Server, ada: Person):
    await happen(server, ada)
    old = len(await server.events())
    server.clock.move(timedelta(days=31))
    fresh = await ada.elsewhere()
    await happen(server, fresh)
    assert await seals.prune(server.runtime, OPERATOR) == old
    assert await seals.prune(server.runtime, OPERATOR) == 0
    assert (await server.events())[0].at > server.clock.now() - timedelta(days=30)
    assert len(await server.events("audit.pruned")) == 1
    server.clock.move(TICK)
    await seals.seal_pending(server.runtime)
    report = await verification.verify(server.runtime)
    assert (report.problems, report.events) == ([], len(await server.events()))
    await server.execute("UPDATE audit_head SET pruned_digest = 'x'")
    assert len(await problems(server)) == 1


async def test_signatures_of_a_secret_that_is_gone_are_told_and_not_held_against_the_record(
    server: Server, settings: Settings, ada: Person
):
    await happen(server, ada)
    changed = settings.model_copy(
        update={
            "secret": settings.secret.model_copy(update={"keys": (SecretStr("another-secret-of-thirty-two-bytes-x"),)})
        }
    )
    other = Server(changed)
    report = await verification.verify(other.runtime)
    assert (report.problems, report.unchecked_signatures) == ([], 2)
    await other.runtime.close()


# What somebody changes is not covered up by what is sealed after it


@pytest.mark.parametrize(
    "statements",
    [
        (
            "DELETE FROM audit_seals WHERE seq = 2",
            "UPDATE audit_head SET seq = 1, digest = (SELECT digest FROM audit_seals WHERE seq = 1)",
        ),
        ("UPDATE audit_head SET events = events - 1",),
        ("UPDATE audit_head SET sealed_until = '2026-01-01 00:00:00'",),
        ("UPDATE audit_head SET signature = 'é'",),
        ("UPDATE audit_head SET pruned_seq = 1",),
        ("DELETE FROM audit_head",),
    ],
    ids=["cut", "count", "time", "signature", "pruned", "gone"],
)
async def test_nothing_is_sealed_or_pruned_on_an_end_that_was_changed(server: Server, ada: Person, statements):  # K05
    for _ in range(2):
        await happen(server, ada, 2)
    for statement in statements:
        await server.execute(statement)
    told = await problems(server)
    assert len(told) == 1
    assert (await ada.put("/api/users/me", json={"display_name": "after"})).status_code == 200
    server.clock.move(TICK)
    with pytest.raises(ChainBroken):
        await seals.seal_pending(server.runtime)
    if "DELETE FROM audit_head" not in statements:
        with pytest.raises(ChainBroken):
            await seals.prune(server.runtime, OPERATOR)
    assert await problems(server) == told


@pytest.mark.parametrize("flags", [{"audit.retention": "30d"}], ids=["30d"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_seals SET entries = (SELECT entries FROM audit_seals WHERE seq = 2) WHERE seq = 1",
        "UPDATE audit_seals SET last_at = first_at WHERE seq = 1",
    ],
)
async def test_a_seal_that_was_changed_is_not_pruned(server: Server, ada: Person, statement: str):
    for _ in range(3):
        await happen(server, ada, 2)
    await server.execute(statement)
    server.clock.move(timedelta(days=31))
    with pytest.raises(ChainBroken):
        await seals.prune(server.runtime, OPERATOR)
    assert len(await server.rows("SELECT seq FROM audit_seals")) == 3


async def test_an_event_that_is_there_twice_is_named(server: Server, ada: Person, bob: Person):  # K05
    for _ in range(2):
        await happen(server, ada)
        server.clock.move(timedelta(minutes=5))
    event = (await sealed_events(server))[2]
    others = ", ".join(name for name in COLUMNS if name != "owner_id")
    for at in ("at", "'2001-01-01 00:00:00'"):
        values = others.replace(", at,", f", {at},")
        await server.execute(
            f"INSERT INTO audit_events (owner_id, {others}) SELECT :owner, {values} FROM audit_events WHERE id = :id",
            owner=bob.id.replace("-", "") if server.runtime.database.is_sqlite else bob.id,
            id=_stored(server, event),
        )
        (problem,) = await problems(server)
        assert str(event.id) in problem
        assert "added" in problem
        await server.execute("DELETE FROM audit_events WHERE owner_id = :owner AND id = :id",
            owner=bob.id.replace("-", "") if server.runtime.database.is_sqlite else bob.id,
            id=_stored(server, event),
        )  # fmt: skip
        assert await problems(server) == []


async def test_an_event_whose_time_is_yet_to_come_is_named(server: Server, ada: Person):
    await happen(server, ada)
    (event,) = (await server.events())[-1:]
    await server.execute("UPDATE audit_events SET at = '2999-01-01 00:00:00' WHERE id = :id", id=_stored(server, event))
    assert len(await problems(server)) == 1
    server.clock.move(TICK)
    (fresh,) = (await server.events("login.succeeded"))[-1:]
    columns = ", ".join(name for name in COLUMNS if name not in {"id", "at"})
    await server.execute("UPDATE audit_events SET at = :at WHERE id = :id",
        at=event.at if not server.runtime.database.is_sqlite else event.at.replace(tzinfo=None),
        id=_stored(server, event),
    )  # fmt: skip
    assert await problems(server) == []
    new = str(fresh.id)[:-4] + "ffff"
    await server.execute(
        f"INSERT INTO audit_events (id, at, {columns}) SELECT :new, '2999-01-01 00:00:00', {columns}"
        " FROM audit_events WHERE id = :id",
        new=new.replace("-", "") if server.runtime.database.is_sqlite else new,
        id=_stored(server, fresh),
    )
    (problem,) = await problems(server)
    assert f"event {new} was added: its time" in problem


async def test_personal_data_that_was_taken_out_without_erasing_anybody_is_named(server: Server, ada: Person):
    for name in ("ada", "nobody-at-all"):
        await server.nobody().post("/api/auth/login", json={"username": name, "password": "wrong"})
    await happen(server, ada)
    known, typed = await server.events("login.failed")
    erase = "UPDATE audit_events SET salt = NULL, actor_name = NULL, address = NULL, user_agent = NULL"
    await server.execute(f"{erase}, target_id = NULL WHERE id = :id", id=_stored(server, typed))
    assert str(typed.id) in (await problems(server))[0]
    await server.execute(f"{erase}, target_id = :ada WHERE id = :id", ada=ada.id, id=_stored(server, typed))
    assert str(typed.id) in (await problems(server))[0]
    async with server.runtime.database.begin() as session:  # an erasure of which only the record tells
        await audit.record(session, Event.USER_ERASED, caller=OPERATOR, at=server.clock.now(), user_id=known.owner_id)
    await happen(server, ada, 1)
    assert str(typed.id) in (await problems(server))[0]


async def test_the_record_is_verified_while_it_grows(server: Server, ada: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verification, "SEALS_AT_ONCE", 1)
    for _ in range(3):
        await happen(server, ada, 2)
    reports = await asyncio.gather(
        *(verification.verify(server.runtime) for _ in range(3)),
        *(happen(server, ada, 3) for _ in range(2)),
        *(verification.verify(server.runtime) for _ in range(3)),
    )
    assert [report.problems for report in reports if report is not None] == [[]] * 6


# Changing the root secret

NEWER_SECRET = "tests-only-newer-c3d95e2b80467f3a9c51e8d24b60a1f7"


def with_keys(settings: Settings, *keys: str) -> Settings:
    secret = settings.secret.model_copy(update={"keys": tuple(map(SecretStr, keys))})
    return settings.model_copy(update={"secret": secret})


async def test_a_quiet_server_signs_the_end_with_its_new_secret(server: Server, settings: Settings, ada: Person):
    await happen(server, ada)
    for keys in ((NEWER_SECRET, SECRET), (NEWER_SECRET,)):
        rotated = Server(with_keys(settings, *keys))
        rotated.clock.ahead = server.clock.ahead
        await seals.seal_pending(rotated.runtime)
        report = await verification.verify(rotated.runtime)
        assert (report.problems, report.is_end_proven) == ([], True)
        await rotated.runtime.close()
    assert report.unchecked_signatures == 1


async def test_a_secret_that_was_lost_stops_the_sealing_until_somebody_says_so(
    server: Server, settings: Settings, ada: Person
):
    await happen(server, ada)
    assert not await seals.adopt_chain(server.runtime, OPERATOR)
    alone = Server(with_keys(settings, NEWER_SECRET))
    alone.clock.ahead = server.clock.ahead
    with pytest.raises(ChainBroken, match="not configured"):
        await seals.seal_pending(alone.runtime)
    assert not (await verification.verify(alone.runtime)).is_end_proven
    assert await seals.adopt_chain(alone.runtime, OPERATOR)
    alone.clock.move(TICK)
    assert await seals.seal_pending(alone.runtime) == 1
    report = await verification.verify(alone.runtime)
    assert (report.problems, report.is_end_proven, report.seals) == ([], True, 2)
    (event,) = await server.events("audit.adopted")
    assert (event.actor_name, event.details["seq"]) == ("operator", 1)
    await alone.runtime.close()


async def test_the_log_holds_checkpoints(
    server: Server, ada: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(seals, "LOGGED_EVERY", 2)
    for _ in range(3):
        await happen(server, ada, 2)
    await seals.log_checkpoint(server.runtime)
    logged = [line for line in capsys.readouterr().out.splitlines() if "audit_checkpoint" in line]
    assert len(logged) == 2
    assert str(await seals.find_checkpoint(server.runtime)) in logged[1]


def _stored(server: Server, event: AuditEvent) -> str:
    """The id as the database spells it."""
    return event.id.hex if server.runtime.database.is_sqlite else str(event.id)
