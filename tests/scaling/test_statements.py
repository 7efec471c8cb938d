"""No statement forbids distributing the database, and only those that are named ask every node.

Every operation and every chore is done once on PostgreSQL, with the statements that a cluster with Citus is given.
"""

import asyncio
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import and_, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.expression import ClauseElement

import usermgmt
from tests.conftest import settings_for
from tests.people import Person, Server
from tests.scaling.drive import LISTS, drive
from tests.scaling.placement import PLACES, Distributed
from tests.scaling.reach import reach_of, text_refusals
from tests.scaling.recorder import Recorder
from tests.servers import PostgreSQL
from tests.walks import routes_of
from usermgmt.audit.models import AuditHead
from usermgmt.groups.models import Group, GroupMember
from usermgmt.http.openapi import HIDDEN_BLUEPRINT
from usermgmt.identifiers import new_id
from usermgmt.roles.models import Role, RoleGrant
from usermgmt.sessions.models import Session
from usermgmt.throttle.models import Throttle
from usermgmt.users.models import LoginName, User

PACKAGE = Path(usermgmt.__file__).parent

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

FAN_OUTS = {
    # lists and counts: they are of all accounts, wherever these are
    "users.lists.list_page": "the list of accounts",
    "users.service.list_users": "the exact count of the list",
    "groups.queries.count_members": "how many are in a group",
    "audit.queries.list_events": "the record by anything but whose event it is",
    # administration: seldom, and by few
    "users.queries.has_active_admin": "that an admin is left, after one was disabled, deleted, or lost the role",
    "roles.queries.list_roles_over": "who holds what over a group, before it is changed",
    "roles.queries.delete_grants_over": "the roles over a group that is deleted",
    "personal_data.queries.delete_stored_answers": "answers that tell of an account that is erased",
    "audit.queries.update_erased": "what an account that is erased did to others",
    # chores and checks
    "personal_data.queries.list_due": "whose erasure is due",
    "throttle.queries.delete_past": "counters whose window is over",
    "sessions.queries.delete_revoked": "sessions whose retention is over",
    "sessions.queries.delete_expired": "sessions whose retention is over",
    "idempotency.queries.delete_past": "answers whose time is over",
    "audit.queries.list_unsealed": "what is to be sealed next",
    "audit.queries.list_ids": "what came late, and whether the record is whole",
    "audit.queries.list_events_by_id": "the events of a seal",
    "audit.queries.delete_events": "events whose retention is over",
    "audit.queries.count_events": "what is not sealed yet",
    "audit.queries.find_event_after": "whether the clock was ahead",
}
"""The queries that ask every node, and what for."""

HOT = {
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/logout",
    "GET /api/auth/session",
    "GET /api/users/<user_ref:user_id>",
    "GET /api/users/<user_ref:user_id>/sessions",
}
"""What front ends do all day: it goes to the nodes that have the key, and the more nodes, the more of it."""

ELSEWHERE = {
    "audit.queries.has_erasure": "of a verification that finds events of an erased account",
    "audit.queries.find_seal": "of a verification that is given a checkpoint",
    "audit.queries.count_unsealed": "of the states that metrics tell",
    "imports.queries.insert_accounts": "COPY, which the listener is not told of",
    "imports.queries.list_known_ids": "of an import whose rows have ids",
    "ip_rules.queries.update_hits": "by key of a table that is whole on every node",
    "ip_rules.queries.update_modes": "of a command",
    "roles.queries.count_holders": "of a command",
    "root_secrets.queries.insert_root": "of starting",
    "root_secrets.queries.list_roots": "of starting, and of several root secrets",
    "sessions.queries.count_live_sessions": "of the states that metrics tell",
    "sessions.queries.estimate_live_sessions": "of the states that metrics tell",
    "signing_keys.queries.delete_retired": "of a day after a key was retired",
    "signing_keys.queries.update_private_key": "of another root secret",
    "throttle.queries.delete_counter": "of a command",
    "throttle.queries.find_count": "of a refused sign-in",
    "users.queries.list_password_hashes": "of an import",
    "users.queries.update_password_hash": "of a sign-in with an outdated hash",
}
"""The queries that the drive does not reach, and where they are from."""


class Driven:
    """What was run, what was called, and what there is to call."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.recorder = Recorder()
        self.called: set[str] = set()

    async def run(self) -> None:
        """Do all of it."""
        async with self.server.running():
            with self.recorder.listening():
                self.called = await drive(self.server, self.recorder)


@pytest.fixture(scope="module")
def driven(postgresql: PostgreSQL) -> Iterator[Driven]:
    settings = settings_for(postgresql.create("driven", template="template"), **{"database.distributed": "true"})
    found = Driven(Server(settings))
    asyncio.run(found.run())
    yield found
    postgresql.drop("driven")


def test_every_operation_was_called(driven: Driven):
    routes = {
        str(route) for route in routes_of(driven.server.app) if not route.endpoint.startswith(f"{HIDDEN_BLUEPRINT}.")
    }
    assert routes - driven.called - {"GET /openapi.json"} == set()
    assert {each.during for each in driven.recorder.noted if each.during.startswith("chore ")} >= {
        "chore audit_retention",
        "chore audit_seals",
        "chore erasures",
        "chore throttles",
    }


def test_every_query_was_seen_or_is_named(driven: Driven):
    known = {
        f"{path.parent.name}.queries.{name}"
        for path in PACKAGE.glob("*/queries.py")
        for name, found in inspect.getmembers(import_module(f"usermgmt.{path.parent.name}.queries"))
        if inspect.iscoroutinefunction(found)
        and found.__module__ == f"usermgmt.{path.parent.name}.queries"
        and not name.startswith("_")
    }
    assert known - {each.query for each in driven.recorder.noted} == set(ELSEWHERE)


def test_nothing_is_refused(driven: Driven):
    assert driven.recorder.refusals() == {}


def test_only_what_is_named_asks_every_node(driven: Driven):
    assert set(driven.recorder.fan_outs()) == set(FAN_OUTS)


def test_what_front_ends_do_all_day_goes_by_key(driven: Driven):
    hot = [each for each in driven.recorder.noted if each.during in HOT]
    assert {each.during for each in hot} == HOT
    assert [(each.during, each.query) for each in hot if each.reached.everywhere] == []
    spread = {name for name, place in PLACES.items() if isinstance(place, Distributed)}
    assert {name for each in hot for name in each.reached.tables} & spread == spread - {"idempotency_keys"}
    checked = [each for each in driven.recorder.noted if each.query == "auth.queries.fetch_live_sessions"]
    assert len(checked) > 50
    assert all(each.reached.everywhere == set() for each in checked)


@on_postgresql
async def test_lists_are_the_same_in_either_form(server: Server, admin: Person, ada: Person, bob: Person):
    await admin.patch(f"/api/users/{bob.id}", json={"display_name": "User of many"})
    settings = settings_for(server.settings.database.url, **{"database.distributed": "true"})
    other = Server(settings)
    async with other.running():
        caller = Person(other)
        caller.access_token = admin.access_token
        for query in LISTS:
            pages = [await (await each.get(f"/api/users?{query}")).get_json() for each in (admin, caller)]
            assert [each["id"] for each in pages[0]["items"]] == [each["id"] for each in pages[1]["items"]], query
            assert [each["roles"] for each in pages[0]["items"]] == [each["roles"] for each in pages[1]["items"]]


# What the reading of a statement finds


def read(statement: ClauseElement) -> Any:
    return reach_of(statement, str(statement.compile(dialect=postgresql.dialect())))


ID = new_id()
PAGE = select(User.id).order_by(User.id).limit(10).subquery()


@pytest.mark.parametrize(
    "statement",
    [
        select(User).where(User.id == ID),
        select(User).where(User.id.in_([ID]), or_(User.email == "a", User.email == "b")),
        select(User).where(and_(User.id == ID, User.email == "a")).with_for_update(),
        select(Session).join(User, User.id == Session.user_id).where(Session.user_id == ID),
        select(exists().where(Session.user_id == ID)),
        select(User).where(User.id == ID, exists().where(GroupMember.user_id == ID)),
        select(RoleGrant).join(Role, Role.name == RoleGrant.role).where(RoleGrant.user_id == ID),
        update(User).where(User.id == ID).values(email="a"),
        select(Role).with_for_update(),
        postgresql.insert(Throttle)
        .values(key="a", bucket="b")
        .on_conflict_do_update(index_elements=["key"], set_={"pending": 1}),
    ],
)
def test_a_statement_by_key(statement: ClauseElement):
    found = read(statement)
    assert (found.everywhere, found.refusals) == (set(), set())


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        (select(User), {"users"}),
        (select(User).where(or_(User.id == ID, User.email == "a")), {"users"}),
        (select(User).where(User.id != ID), {"users"}),
        (select(User).where(User.id.in_(select(Session.user_id).where(Session.user_id == ID))), {"users"}),
        (select(Session).where(Session.id == ID), {"sessions"}),
        (select(User).where(User.id == ID, exists().where(GroupMember.user_id == User.id)), {"group_members"}),
        (select(User).outerjoin(Session, Session.user_id == User.id).where(User.id == ID), {"sessions"}),
        (select(User.id, select(func.count(RoleGrant.role)).where(RoleGrant.user_id == User.id).scalar_subquery())
         .where(User.id == ID), {"role_grants"}),
        (update(Session).where(Session.id == ID).values(address=None), {"sessions"}),
        (delete(LoginName).where(LoginName.user_id == ID), {"login_names"}),
    ],
)  # fmt: skip
def test_a_statement_that_asks_every_node(statement: ClauseElement, tables: set[str]):
    found = read(statement)
    assert (found.everywhere, found.refusals) == (tables, set())


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        (select(User).where(User.email_key == "a").with_for_update(), "FOR UPDATE without the key"),
        (select(User).join(LoginName, LoginName.user_id == User.id).where(LoginName.name == "a"), "rows lie apart"),
        (select(PAGE.c.id, exists().where(RoleGrant.user_id == PAGE.c.id)), "over a FROM that is a subquery"),
        (select(User).where(text("ctid = '(0,1)'")), "ctid"),
        (select(func.pg_advisory_xact_lock(1)), "advisory lock"),
        (update(User).where(User.id == ID).values(id=new_id()), "by which its rows are distributed"),
        (update(User).where(User.id == ID).values(version=func.random()), "that the database makes up"),
        (delete(Role).where(~exists().where(RoleGrant.role == Role.name)), "by what is in distributed tables"),
        (select(AuditHead).join(User, User.id == AuditHead.sealed_until_id), "a table of one node"),
        (postgresql.insert(User).values(id=ID).on_conflict_do_update(index_elements=["email"], set_={"version": 1}),
         "ON CONFLICT without users.id"),
    ],
)  # fmt: skip
def test_a_statement_that_would_be_refused(statement: ClauseElement, refusal: str):
    assert any(refusal in each for each in read(statement).refusals), read(statement)


def test_mere_text_may_name_no_table():
    assert text_refusals("SELECT 1") == set()
    assert text_refusals("DELETE FROM sessions") == {"is mere text and names sessions"}


@on_postgresql
async def test_a_table_on_every_node_is_changed_before_every_node_is_asked(server: Server):
    for first, second, refused in ((select(User.id), _rename(), True), (_rename(), select(User.id), False)):
        recorder = Recorder(stranger="a test")
        with recorder.listening():
            async with server.runtime.database.begin() as session:
                for statement in (first, second):
                    await session.execute(statement)
        assert bool(recorder.refusals()) is refused


def _rename() -> ClauseElement:
    return update(Group).where(Group.id == ID).values(name="a")
