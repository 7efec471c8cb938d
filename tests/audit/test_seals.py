"""The sealed record: whatever is changed, removed, added or cut off afterwards is found and named."""

import asyncio
from datetime import timedelta

import pytest
from pydantic import SecretStr

from tests.people import Person, Server
from usermgmt.audit import seals, verification
from usermgmt.audit.digests import entries_of
from usermgmt.audit.models import AuditEvent, AuditSeal
from usermgmt.audit.seals import LAG, Checkpoint
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


def _stored(server: Server, event: AuditEvent) -> str:
    """The id as the database spells it."""
    return event.id.hex if server.runtime.database.is_sqlite else str(event.id)
