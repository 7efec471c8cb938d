"""A small HTTP client for attacking a deployment: it sends what ordinary clients refuse to send."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from usermgmt.operator.checklist import NotChecked

TIMEOUT = 10.0
PATIENCE = 5.0  # seconds that a limit may ask us to wait
SILENCE = 2.0  # seconds after which nothing more is expected on a connection that stays open
MOST_REQUESTS = 600
LONGEST_ANSWER = 4_000_000
NO_WAY = 60.0  # the wait when a limit does not say for how long


class Unreachable(Exception):
    """The deployment does not answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The document in the body, or None."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def code(self) -> str | None:
        """The stable code of a problem."""
        document = self.json()
        return document.get("code") if isinstance(document, dict) else None


@dataclass(slots=True)
class Deployment:
    """A server to attack, by its base URL, within an allowance of requests."""

    url: str
    allowance: int = MOST_REQUESTS
    requests: int = 0

    @property
    def is_secure(self) -> bool:
        """Whether it is reached with TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        """Its host and port, as they stand in the URL."""
        return urlsplit(self.url).netloc

    @property
    def origin(self) -> str:
        """Its own origin."""
        return f"{urlsplit(self.url).scheme}://{self.host}"

    def path(self, path: str) -> str:
        """A path below the base of the deployment."""
        return f"{urlsplit(self.url).path.rstrip('/')}{path}"

    def call(
        self,
        method: str,
        path: str,
        document: Any = None,  # any JSON value, also such as a server must refuse
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request. Waits once where a limit asks for a short wait; raises `NotChecked` for a longer one."""
        sent = {"Content-Type": "application/json"} if document is not None else {}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent |= headers or {}
        content = json.dumps(document).encode() if document is not None else body
        answer = self._once(method, path, content, sent)
        if answer.status != 429:
            return answer
        time.sleep(_short_wait(answer))
        answer = self._once(method, path, content, sent)
        if answer.status == 429:
            raise NotChecked("a limit was reached")
        return answer

    def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; what comes back until the server closes or falls silent.

        A connection that is reset has answered with nothing more. Raises `Unreachable` when there is none.
        """
        self._spend()
        received = bytearray()
        with self._connection() as connection:
            with suppress(OSError):  # it may have answered, and closed before it had read all
                connection.sendall(request)
            connection.settimeout(SILENCE)
            with suppress(OSError):
                while len(received) < LONGEST_ANSWER and (part := connection.recv(65_536)):
                    received += part
        return bytes(received)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a raw request."""
        lines = [f"{method} {self.path(path)} HTTP/1.1", f"Host: {self.host}", *headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _once(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        self._spend()
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if self.is_secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        started = time.perf_counter()
        try:
            connection.request(method, self.path(path), content, dict(headers))
            response = connection.getresponse()
            body = response.read(LONGEST_ANSWER)
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, body, time.perf_counter() - started)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {path[:60]}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _spend(self) -> None:
        """Count a request. Raises `NotChecked` when there were enough."""
        if self.requests >= self.allowance:
            raise NotChecked(f"{self.requests} requests are enough")
        self.requests += 1

    def _connection(self) -> socket.socket:
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or (443 if self.is_secure else 80))
        try:
            plain = socket.create_connection(address, timeout=TIMEOUT)
            if not self.is_secure:
                return plain
            return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
        except OSError as error:
            raise Unreachable(f"{self.host}: {type(error).__name__}: {error}") from error


def _short_wait(answer: Answer) -> float:
    """How long a limit asks to wait. Raises `NotChecked` when that is too long."""
    told = answer.headers.get("retry-after", "")
    seconds = float(told) if told.isdecimal() else NO_WAY
    if seconds > PATIENCE:
        raise NotChecked(f"a limit asks to wait {seconds:.0f} s")
    return seconds
