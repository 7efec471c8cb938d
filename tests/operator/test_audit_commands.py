"""`usermgmt audit`: reading the record, verifying it, and what is said when somebody touched it."""

import asyncio
import json
from datetime import timedelta

import pytest

from tests.conftest import settings_for
from tests.operator.conftest import CommandLine
from tests.people import Server
from usermgmt.audit import seals

OLD = timedelta(days=40)
NEWER_SECRET = "another-root-secret-3f9a1c77e0b54d2c"


@pytest.fixture
def recorded(line: CommandLine, database_url: str) -> CommandLine:
    """A command line on a database with a few accounts and everything about them sealed."""

    async def happen() -> None:
        server = Server(settings_for(database_url))
        server.clock.move(-OLD)
        async with server.running():
            for name in ("ada", "bob", "eve"):
                await server.person(name)
                server.clock.move(timedelta(seconds=5))
                await seals.seal_pending(server.runtime)

    asyncio.run(happen())
    return line


def change(database_url: str, statement: str) -> None:
    """Change the database behind the application's back."""

    async def execute() -> None:
        server = Server(settings_for(database_url))
        await server.execute(statement)
        await server.runtime.close()

    asyncio.run(execute())


def test_the_list_is_narrowed_as_in_the_api(recorded: CommandLine):
    everything = recorded.documents("audit", "list")
    assert [event["event"] for event in everything[:2]] == ["login.succeeded", "user.created"]
    assert set(everything[0]) == {
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
    assert everything[-1]["event"] == "signing_key.created"
    ada = everything[-2]["target"]["id"]
    for words, count in (
        (("--event", "user.created"), 3),
        (("--target", ada), 2),
        (("--target", ada, "--event", "user.created"), 1),
        (("--outcome", "failure"), 0),
        (("--since", everything[1]["at"]), 2),
        (("--until", everything[1]["at"]), 5),
        (("--limit", "4"), 4),
        (("--limit", "1", "--all"), 7),
        (("--address", "192.0.2.1"), 0),
        (("--actor", ada, "--target", ada), 0),
    ):
        assert len(recorded.documents("audit", "list", *words)) == count, words
    assert "login.succeeded" in recorded.done("audit", "list")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("list", "--event", "login.faild"), 2),
        (("list", "--outcome", "maybe"), 2),
        (("list", "--limit", "0"), 2),
        (("list", "--actor", "root"), 1),
        (("list", "--address", "nowhere"), 1),
        (("list", "--since", "yesterday"), 1),
        (("verify", "--checkpoint", "nonsense"), 2),
        (("verify", "--checkpoint", "x:y:z:a"), 2),
        (("prune",), 2),
        (("checkpoint", "--adopt"), 2),
    ],
)
def test_what_cannot_be_asked_is_refused(line: CommandLine, words: tuple[str, ...], code: int):
    line.refused(code, "audit", *words)


def test_an_untouched_record_verifies_up_to_a_checkpoint(recorded: CommandLine):
    report = recorded.document("audit", "verify")
    assert report == {
        "intact": True,
        "proven": True,
        "problems": [],
        "events": 7,
        "seals": 3,
        "unsealed": 0,
        "erased": 0,
        "unchecked_signatures": 0,
    }
    checkpoint = recorded.document("audit", "checkpoint")["checkpoint"]
    assert recorded.done("audit", "checkpoint").strip() == checkpoint
    assert checkpoint.startswith("3:")
    assert "as they were written" in recorded.done("audit", "verify", "--checkpoint", checkpoint)
    other = recorded.run("audit", "verify", "--checkpoint", checkpoint.replace("3:", "2:", 1))
    assert (other.exit_code, "not one that this server signed" in other.stdout) == (1, True)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE audit_events SET outcome = 'failure' WHERE event = 'user.created'", "was changed"),
        ("DELETE FROM audit_events WHERE event = 'user.created'", "was removed"),
        ("DELETE FROM audit_seals WHERE seq = 3", "the tail was cut off"),
        ("DELETE FROM audit_head", "the end of the chain was removed"),
    ],
)
def test_a_record_that_was_touched_is_told(  # K05
    recorded: CommandLine, database_url: str, statement: str, told: str
):
    change(database_url, statement)
    found = recorded.run("audit", "verify")
    assert found.exit_code == 1
    assert "NOT INTACT: " in found.stdout
    assert told in found.stdout
    assert not json.loads(recorded.run("audit", "verify", "--json").stdout)["intact"]


def test_nothing_is_built_on_an_end_that_was_changed(recorded: CommandLine, database_url: str):
    change(database_url, "UPDATE audit_head SET events = 1")
    for words in (("checkpoint",), ("checkpoint", "--adopt", "--yes"), ("prune", "--yes")):
        assert "its signature is not ours" in recorded.refused(1, "audit", *words)


def test_what_is_too_old_is_pruned_and_the_rest_verifies(recorded: CommandLine):
    recorded.environ["USERMGMT_AUDIT__RETENTION"] = "30d"
    assert recorded.document("audit", "prune", "--yes") == {"removed": 5}  # the last seal stays
    events = recorded.documents("audit", "list")
    assert [event["event"] for event in events] == ["audit.pruned", "login.succeeded", "user.created"]
    assert (events[0]["actor"]["name"], events[0]["details"]) == ("operator", {"events": 5, "until_seal": 2})
    assert recorded.document("audit", "verify")["intact"]


def test_a_lost_root_secret_is_told_until_it_is_accepted(recorded: CommandLine):
    recorded.environ["USERMGMT_SECRET_KEYS"] = NEWER_SECRET
    found = recorded.run("audit", "verify")
    assert (found.exit_code, "NOT PROVEN" in found.stdout) == (1, True)
    assert "not configured" in recorded.refused(1, "audit", "checkpoint")
    recorded.done("audit", "checkpoint", "--adopt", "--yes")
    report = recorded.document("audit", "verify")
    assert (report["proven"], report["unchecked_signatures"], report["unsealed"]) == (True, 3, 1)
    assert len(recorded.documents("audit", "list", "--event", "audit.adopted")) == 1
