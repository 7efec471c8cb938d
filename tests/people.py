"""A running application, and people who call it through HTTP."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from quart import Quart, Response
from sqlalchemy import select, text

from usermgmt.app import create_app
from usermgmt.audit.models import AuditEvent
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.security.principal import OPERATOR
from usermgmt.settings import Settings
from usermgmt.users import registration
from usermgmt.users.registration import NewUser
from usermgmt.users.service import UserView

PASSWORD = "correct horse battery staple"


class MovableClock:
    """The time of the application under test: the machine's, moved by what the test says."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """The present time."""
        now = datetime.now(UTC) + self.ahead
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self.ahead += by


class Server:
    """An application in this process, with its clock and its database within reach of the test."""

    def __init__(self, settings: Settings) -> None:
        self.clock = MovableClock()
        self.settings = settings
        self.runtime: Runtime = build_runtime(settings, clock=self.clock)
        self.app: Quart = create_app(settings, self.runtime)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        """Start up, and shut down after."""
        async with self.app.test_app():
            yield self

    def nobody(self) -> "Person":
        """Somebody who is not signed in."""
        return Person(self)

    async def person(self, username: str, *, roles: Iterable[str] | None = None, password: str = PASSWORD) -> "Person":
        """An account, signed in. Made as the operator would, so that a test of registering registers."""
        new = NewUser(
            username=username,
            email=f"{username}@example.com",
            password=password,
            roles=None if roles is None else [*roles],
        )
        made = await registration.register_user(self.runtime, OPERATOR, new)
        assert isinstance(made, UserView)
        person = Person(self, username=username, password=password, id=str(made.user.id))
        await person.log_in()
        return person

    async def events(self, event: str | None = None) -> list[AuditEvent]:
        """What is on record, oldest first."""
        async with self.runtime.database.read() as session:
            statement = select(AuditEvent).order_by(AuditEvent.at, AuditEvent.id)
            if event is not None:
                statement = statement.where(AuditEvent.event == event)
            return list((await session.scalars(statement)).all())

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        """What a statement finds in the database."""
        async with self.runtime.database.read() as session:
            return list((await session.execute(text(statement), values)).all())

    async def execute(self, statement: str, **values: Any) -> None:
        """Change the database behind the application's back."""
        async with self.runtime.database.begin() as session:
            await session.execute(text(statement), values)


class Person:
    """Somebody who calls, with their tokens if they are signed in."""

    def __init__(
        self,
        server: Server,
        *,
        username: str = "",
        password: str = "",
        id: str = "",  # noqa: A002 - what the API calls it
    ) -> None:
        self._server = server
        self.username = username
        self.email = f"{username}@example.com"
        self.password = password
        self.id = id
        self.access_token: str | None = None
        self.refresh_token = ""

    async def log_in(self) -> Response:
        """Sign in, and keep the tokens."""
        body = {"username": self.username, "password": self.password}
        response = await Person(self._server).post("/api/auth/login", json=body)
        assert response.status_code == 200, await response.get_data(as_text=True)
        self.keep(await response.get_json())
        return response

    def keep(self, tokens: Mapping[str, Any]) -> None:
        """Use these tokens from now on."""
        self.access_token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]

    async def elsewhere(self) -> "Person":
        """The same account, signed in once more from another device."""
        other = Person(self._server, username=self.username, password=self.password, id=self.id)
        await other.log_in()
        return other

    async def call(self, method: str, path: str, **options: Any) -> Response:
        """Call the API."""
        headers = dict(options.pop("headers", {}))
        if self.access_token is not None:
            headers.setdefault("Authorization", f"Bearer {self.access_token}")
        return await self._server.app.test_client().open(path, method=method, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> Response:
        """GET."""
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Response:
        """POST."""
        return await self.call("POST", path, **options)

    async def put(self, path: str, **options: Any) -> Response:
        """PUT."""
        return await self.call("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> Response:
        """PATCH."""
        return await self.call("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Response:
        """DELETE."""
        return await self.call("DELETE", path, **options)
