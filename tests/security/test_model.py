"""L07: accounts, sessions, roles and locks, in whatever order, are as a model of a few dictionaries says.

A handful of runs at each test; `MODEL_RUNS=1000` makes it as many.
"""

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as bounds
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.people import PASSWORD, Person, Server
from usermgmt.settings import Settings

RUNS = int(os.environ.get("MODEL_RUNS", "4"))
NAMES = [f"user{number}" for number in range(6)]


@dataclass
class Account:
    """What the model knows of an account."""

    person: Person
    is_active: bool = True
    is_deleted: bool = False
    roles: set[str] = field(default_factory=lambda: {"user"})
    sessions: list[Person] = field(default_factory=list)


def machine(  # noqa: C901 - a machine is one class, and this one knows its server
    loop: asyncio.AbstractEventLoop, server: Server, root: Person
) -> type[RuleBasedStateMachine]:
    """The machine of one server; every run begins with new names."""
    runs = iter(range(10**9))

    class Machine(RuleBasedStateMachine):
        accounts = Bundle("accounts")
        signed_in = Bundle("signed_in")

        @initialize()
        def begin(self) -> None:
            self.run = next(runs)
            self.known: dict[str, Account] = {}

        def do(self, work: Any) -> Any:
            return loop.run_until_complete(work)

        def call(self, person: Person, method: str, path: str, status: int, **options: Any) -> Any:
            response = self.do(person.call(method, path, **options))
            assert response.status_code == status, (method, path, response.status_code, status)
            return self.do(response.get_json()) if status == 200 else response

        @rule(target=accounts, name=st.sampled_from(NAMES))
        def register(self, name: str) -> Any:
            username = f"{name}of{self.run}"
            body = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
            status = 409 if username in self.known else 201
            response = self.call(server.nobody(), "POST", "/api/users", status, json=body)
            if status == 409:
                return multiple()
            user = self.do(response.get_json())
            self.known[username] = Account(Person(server, username=username, password=PASSWORD, id=user["id"]))
            return username

        @rule(target=signed_in, name=accounts)
        def sign_in(self, name: str) -> Any:
            account = self.known[name]
            may = account.is_active and not account.is_deleted
            body = {"username": name.upper(), "password": PASSWORD}
            answer = self.call(server.nobody(), "POST", "/api/auth/login", 200 if may else 401, json=body)
            if not may:
                return multiple()
            person = Person(server, username=name, password=PASSWORD, id=account.person.id)
            person.keep(answer)
            account.sessions.append(person)
            return person

        @rule(person=signed_in)
        def refresh(self, person: Person) -> None:
            is_live = person in self.known[person.username].sessions
            body = {"refresh_token": person.refresh_token}
            answer = self.call(server.nobody(), "POST", "/api/auth/refresh", 200 if is_live else 401, json=body)
            if is_live:
                person.keep(answer)

        @rule(person=consumes(signed_in))
        def sign_out(self, person: Person) -> None:
            self.call(person, "POST", "/api/auth/logout", 204)
            self.forget(person.username, keep=lambda other: other is not person)

        @rule(person=signed_in)
        def end_the_others(self, person: Person) -> None:
            is_live = person in self.known[person.username].sessions
            self.call(person, "DELETE", "/api/users/me/sessions?scope=others", 204 if is_live else 401)
            if is_live:
                self.forget(person.username, keep=lambda other: other is person)

        @rule(name=accounts, is_active=st.booleans())
        def set_status(self, name: str, is_active: bool) -> None:
            account = self.known[name]
            body = {"status": "active" if is_active else "disabled"}
            path = f"/api/users/{account.person.id}"
            self.call(root, "PUT", path, 404 if account.is_deleted else 200, json=body)
            if account.is_deleted:
                return
            account.is_active = is_active
            if not is_active:
                self.forget(name)

        @rule(name=accounts)
        def delete(self, name: str) -> None:
            account = self.known[name]
            self.call(root, "DELETE", f"/api/users/{account.person.id}", 404 if account.is_deleted else 204)
            account.is_deleted = True
            self.forget(name)

        @rule(name=accounts)
        def restore(self, name: str) -> None:
            account = self.known[name]
            path = f"/api/users/{account.person.id}/restore"
            self.call(root, "POST", path, 200 if account.is_deleted else 409)
            account.is_deleted = False

        @rule(name=accounts, role=st.sampled_from(["manager", "admin"]), is_given=st.booleans())
        def set_role(self, name: str, role: str, is_given: bool) -> None:
            account = self.known[name]
            path = f"/api/users/{account.person.id}/roles/{role}"
            self.call(root, "PUT" if is_given else "DELETE", path, 404 if account.is_deleted else 204)
            if not account.is_deleted:
                (account.roles.add if is_given else account.roles.discard)(role)

        def forget(self, name: str, keep: Any = lambda _: False) -> None:
            account = self.known[name]
            account.sessions = [person for person in account.sessions if keep(person)]

        @invariant()
        def every_account_is_as_the_model_says(self) -> None:
            for account in getattr(self, "known", {}).values():
                path = f"/api/users/{account.person.id}"
                seen = self.call(root, "GET", path, 404 if account.is_deleted else 200)
                if account.is_deleted:
                    continue
                assert (seen["status"] == "active") is account.is_active
                assert set(seen["roles"]) == account.roles
                sessions = self.call(root, "GET", f"{path}/sessions", 200)
                assert len(sessions["items"]) == len(account.sessions)

        @rule(person=signed_in)
        def ask_who_one_is(self, person: Person) -> None:
            is_live = person in self.known[person.username].sessions
            answer = self.call(person, "GET", "/api/auth/session", 200 if is_live else 401)
            if is_live:
                assert set(answer["roles"]) == self.known[person.username].roles

    return Machine


@pytest.mark.timeout(0)
def test_the_server_is_as_the_model_says(settings: Settings):
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = Server(settings)
        running = server.running()
        loop.run_until_complete(running.__aenter__())
        try:
            root = loop.run_until_complete(server.person("root", roles=["admin"]))
            limits = _limits()
            run_state_machine_as_test(machine(loop, server, root), settings=limits)
        finally:
            loop.run_until_complete(running.__aexit__(None, None, None))


def _limits() -> Any:
    return bounds(max_examples=RUNS, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
