"""Scenarios for Locust (which `make bench` installs into `.venv`), against a server that runs and has seeded accounts.

    usermgmt seed --users 100000 --password-stdin <<< User-Passw0rd-1
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000 --headless --users 50 --run-time 60s FrontEnd

Name one or more of the classes; without a name all four share the users. ACCOUNTS (100000), PASSWORD and ADMIN
(admin:Admin-Passw0rd-1) tell whom they sign in as. Turn the budgets off for the run (`limits.enabled = false`): all
of these clients have one address. A 503 with Retry-After is how the server says no in a flood; it is counted apart.
"""

import os
import random
from typing import Any

from locust import FastHttpUser, between, constant, task

ACCOUNTS = int(os.environ.get("ACCOUNTS", "100000"))
PASSWORD = os.environ.get("PASSWORD", "User-Passw0rd-1")
ADMIN, _, ADMIN_PASSWORD = os.environ.get("ADMIN", "admin:Admin-Passw0rd-1").partition(":")


class SignedIn(FastHttpUser):
    """Somebody who signs in once and keeps the session."""

    abstract = True

    def on_start(self) -> None:
        """Sign in as anybody, as often as the server asks to come back."""
        self.tokens: dict[str, Any] = {}
        while not self.tokens:
            self.sign_in(f"user{random.randint(1, ACCOUNTS)}", PASSWORD)

    def sign_in(self, username: str, password: str) -> None:
        """Sign in; what the server has no time for is no failure of the server."""
        credentials = {"username": username, "password": password}
        with self.client.post("/api/auth/login", json=credentials, catch_response=True) as answer:
            if answer.status_code == 200:
                self.tokens = answer.json()
            elif answer.status_code == 503 and answer.headers.get("Retry-After"):
                answer.request_meta["name"] = "/api/auth/login, asked to come back"
                answer.success()

    def refresh(self) -> None:
        """Exchange the refresh token."""
        answer = self.client.post("/api/auth/refresh", json={"refresh_token": self.tokens["refresh_token"]})
        if answer.status_code == 200:
            self.tokens.update(answer.json())

    @property
    def bearer(self) -> dict[str, str]:
        """The header that says who calls."""
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}


class FrontEnd(SignedIn):
    """What a front end does all day: the own profile mostly, now and then a change, a refresh, the sessions."""

    weight = 10
    wait_time = between(0.1, 0.5)

    @task(60)
    def look_at_the_profile(self) -> None:
        """The request that every page makes."""
        self.client.get("/api/users/me", headers=self.bearer)

    @task(10)
    def look_at_the_session(self) -> None:
        """Who am I, what may I do."""
        self.client.get("/api/auth/session", headers=self.bearer)

    @task(5)
    def change_the_profile(self) -> None:
        """A write, with its event."""
        body = {"display_name": f"Somebody {random.randint(1, 999)}"}
        self.client.patch("/api/users/me", json=body, headers=self.bearer)

    @task(6)
    def keep_the_session(self) -> None:
        """What happens every ten minutes."""
        self.refresh()

    @task(2)
    def look_at_the_devices(self) -> None:
        """Where am I signed in."""
        self.client.get("/api/users/me/sessions", headers=self.bearer)


class LoginStorm(SignedIn):
    """People who sign in without pause: more passwords than the processors can hash."""

    weight = 1
    wait_time = constant(0)

    @task
    def sign_in_again(self) -> None:
        """As somebody else each time."""
        self.sign_in(f"user{random.randint(1, ACCOUNTS)}", PASSWORD)


class RefreshStorm(SignedIn):
    """Every client's access token ran out at once."""

    weight = 1
    wait_time = constant(0)

    @task
    def refresh_again(self) -> None:
        """Rotate."""
        self.refresh()


class Administrator(SignedIn):
    """An administrator who browses all accounts: pages in several orders, searches, one account, its activity."""

    weight = 1
    wait_time = between(0.2, 1.0)

    def on_start(self) -> None:
        """Sign in as the administrator."""
        self.tokens = {}
        while not self.tokens:
            self.sign_in(ADMIN, ADMIN_PASSWORD)
        self.following: str | None = None
        self.ids: list[str] = []

    @task(10)
    def turn_the_page(self) -> None:
        """By cursor, from the beginning again at the end."""
        query = {"limit": 50, "sort": "-username", **({"cursor": self.following} if self.following else {})}
        answer = self.client.get("/api/users", params=query, headers=self.bearer, name="/api/users?cursor")
        if answer.status_code == 200:
            page = answer.json()
            self.following, self.ids = page["next_cursor"], [each["id"] for each in page["items"]]

    @task(5)
    def search(self) -> None:
        """By the beginning of a name."""
        query = {"limit": 50, "q": f"user{random.randint(1, ACCOUNTS)}"[: random.randint(5, 9)]}
        self.client.get("/api/users", params=query, headers=self.bearer, name="/api/users?q")

    @task(5)
    def look_at_somebody(self) -> None:
        """An account and what is on record about it."""
        if self.ids:
            one = random.choice(self.ids)
            self.client.get(f"/api/users/{one}", headers=self.bearer, name="/api/users/<id>")
            self.client.get(f"/api/users/{one}/activity", headers=self.bearer, name="/api/users/<id>/activity")

    @task(1)
    def stay_signed_in(self) -> None:
        """As everybody must."""
        self.refresh()
