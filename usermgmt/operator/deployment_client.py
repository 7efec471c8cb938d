"""A small HTTP client for attacking a deployment: it sends what ordinary clients refuse to send."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 10.0
PATIENCE = 5.0  # seconds that a budget may ask us to wait


class Unreachable(Exception):
    """The deployment does not answer."""


class NotChecked(Exception):
    """A check could not be made, which says nothing about the deployment."""


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
        except ValueError:
            return None

    @property
    def code(self) -> str | None:
        """The stable code of a problem."""
        document = self.json()
        return document.get("code") if isinstance(document, dict) else None


@dataclass(slots=True)
class Deployment:
    """A server to attack, by its base URL."""

    url: str
    requests: int = 0
    _parts: Any = field(init=False)

    def __post_init__(self) -> None:
        self._parts = urlsplit(self.url)

    @property
    def is_secure(self) -> bool:
        """Whether it is reached with TLS."""
        return bool(self._parts.scheme == "https")

    @property
    def origin(self) -> str:
        """Its own origin."""
        return f"{self._parts.scheme}://{self._parts.netloc}"

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
        """One request. Waits once where a budget asks for a short wait; raises `NotChecked` for a longer one."""
        sent = {"Content-Type": "application/json"} if document is not None else {}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent |= headers or {}
        content = json.dumps(document).encode() if document is not None else body
        answer = self._once(method, path, content, sent)
        if answer.status == 429:
            wait = float(answer.headers.get("retry-after", "60"))
            if wait > PATIENCE:
                raise NotChecked(f"a limit asks to wait {wait:.0f} s")
            time.sleep(wait)
            answer = self._once(method, path, content, sent)
        return answer

    def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; all that comes back until the server closes or falls silent."""
        self.requests += 1
        try:
            with self._socket() as connection:
                connection.settimeout(3)
                connection.sendall(request)
                received = b""
                while len(received) < 1_000_000:
                    part = connection.recv(65_536)
                    if not part:
                        break
                    received += part
        except TimeoutError:
            return received
        except OSError:
            return b""
        return received

    def path(self, path: str) -> str:
        """A path below the base of the deployment."""
        return f"{self._parts.path.rstrip('/')}{path}"

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """The head of a raw request."""
        lines = [f"{method} {self.path(path)} HTTP/1.1", f"Host: {self._parts.netloc}", *headers, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _once(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        self.requests += 1
        kind = http.client.HTTPSConnection if self.is_secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname, self._parts.port, timeout=TIMEOUT)
        started = time.perf_counter()
        try:
            connection.request(method, self.path(path), content, dict(headers))
            response = connection.getresponse()
            body = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, body, time.perf_counter() - started)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    def _socket(self) -> socket.socket:
        port = self._parts.port or (443 if self.is_secure else 80)
        plain = socket.create_connection((self._parts.hostname, port), timeout=TIMEOUT)
        if not self.is_secure:
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self._parts.hostname)
