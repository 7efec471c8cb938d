"""A request without what the framework does for it and nobody asked for: a task that listens beside it, a cookie
session, an exception for each header that is not there.
"""

import asyncio
from collections.abc import Generator
from functools import lru_cache
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, HTTPScope
from quart import Quart, Request
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.request import Body
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestTimeout


class ClientLeft(asyncio.CancelledError):
    """The client went away before its request was whole: there is nobody to answer."""


class DirectBody(Body):
    """A body that is taken from the connection by who reads it."""

    receive: ASGIReceiveCallable

    @property
    def is_whole(self) -> bool:
        """Whether all of it was taken."""
        return self._complete.is_set()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._whole().__await__()

    async def __anext__(self) -> bytes:
        while not self._data and not self._complete.is_set() and self._must_raise is None:
            await self._take()
        return await super().__anext__()

    async def _whole(self) -> bytes:
        while not self._complete.is_set() and self._must_raise is None:
            await self._take()
        if self._must_raise is not None:
            raise self._must_raise
        return bytes(self._data)

    async def _take(self) -> None:
        message = await self.receive()
        if message["type"] == "http.request":
            self.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.set_complete()
        elif message["type"] == "http.disconnect":
            raise ClientLeft


class DirectRequest(Request):
    """A request whose body is read in its own task."""

    body_class = DirectBody
    body: DirectBody

    @property
    def blueprints(self) -> list[str]:
        """The blueprint of the route and those that it is in, which the framework asks for three times a request."""
        return [*_blueprints_of(self.endpoint)] if self.endpoint is not None else []

    async def get_data(self, **options: Any) -> Any:  # type: ignore[override]
        """The body, within `BODY_TIMEOUT`; raises `RequestTimeout`. As the framework's, without a task of its own."""
        if options.get("as_text") or options.get("parse_form_data"):
            return await super().get_data(**options)
        try:
            async with asyncio.timeout(self.body_timeout):
                data = await self.body
        except TimeoutError as error:
            raise RequestTimeout from error
        if not options.get("cache", True):
            self.body.clear()
        return data


class RequestHeaders(Headers):
    """The headers of a request. Most that are looked for are not there, which is no reason to make an exception."""

    @classmethod
    def of(cls, scope: HTTPScope) -> "RequestHeaders":
        """What came, and first, as the framework has it, whom from."""
        headers = cls()
        client = scope.get("client") or ("<local>",)
        headers._list = [
            ("Remote-Addr", client[0]),
            *((name.decode("latin1").title(), value.decode("latin1")) for name, value in scope["headers"]),
        ]
        return headers

    def get(self, key: str, default: Any = None, type: Any = None) -> Any:  # type: ignore[override]  # noqa: A002 - its signature
        """The first of that name."""
        wanted = key.lower()
        for name, value in self._list:
            if name.lower() == wanted:
                return value if type is None else super().get(key, default, type)
        return default

    def __contains__(self, key: str) -> bool:
        """Whether there is one of that name."""
        return self.get(key) is not None


class NoSessions(SessionInterface):
    """The framework's cookie sessions, which are not used: nothing is read and nothing is made for a request."""

    _nothing = SessionInterface.null_session_class()

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SessionMixin:  # noqa: ARG002 - its signature
        """The one that says that there is none."""
        return self._nothing

    async def save_session(self, app: Quart, session: SessionMixin, response: Any) -> None:
        """Nothing is kept."""

    def is_null_session(self, instance: object) -> bool:
        """Whether there is nothing to keep."""
        return instance is self._nothing


@lru_cache(1_024)
def _blueprints_of(endpoint: str) -> tuple[str, ...]:
    names = endpoint.split(".")[:-1]
    return tuple(".".join(names[:count]) for count in range(len(names), 0, -1))
