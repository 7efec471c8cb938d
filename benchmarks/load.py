"""A small load generator: HTTP/1.1 with keep-alive on plain asyncio streams, so that measuring needs no other program.

It gives a few thousand requests a second on one core; beyond that take wrk.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Make = Callable[[], bytes]
"""The next request of one client, as it goes over the wire."""
See = Callable[[int, bytes], None]
"""What one client does with an answer: its status and its body."""


@dataclass(slots=True)
class Result:
    """What clients saw. Times are in seconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    times: dict[int, list[float]] = field(default_factory=dict)
    faults: int = 0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return sum(count for status, count in self.statuses.items() if status < 400) / self.seconds

    def at(self, share: float, status: int | None = None) -> float:
        """The time within which this share of the answers (of one status, or of all good ones) came."""
        wanted = [status] if status is not None else [each for each in self.times if each < 400]
        times = sorted(each for one in wanted for each in self.times.get(one, ()))
        return times[min(len(times) - 1, int(len(times) * share))] if times else float("nan")


def request(
    method: str,
    path: str,
    *,
    token: str | None = None,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: bench",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    data = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


class Client:
    """One connection that is kept; opened again when the server closes it."""

    def __init__(self, host: str, port: int) -> None:
        self.head = b""  # of the last answer, in lower case
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, wire: bytes) -> tuple[int, bytes]:
        """Send a request; its status and body. Raises `OSError` or `EOFError` when the connection fails."""
        if self._streams is not None and self._is_closed(*self._streams):
            self.close()
        if self._streams is None:
            self._streams = await self._open()
        reader, writer = self._streams
        try:
            writer.write(wire)
            head = self.head = (await reader.readuntil(b"\r\n\r\n")).lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 : head.index(b"\r\n", place)]) if place >= 0 else 0
            body = await reader.readexactly(length)
        except (OSError, EOFError):
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    @staticmethod
    def _is_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the server is known to have closed it, as every client looks before it uses a connection again."""
        return reader.at_eof() or reader.exception() is not None or writer.is_closing()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._address)

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def drive(
    host: str,
    port: int,
    clients: Sequence[tuple[Make, See | None]],
    seconds: float,
    *,
    rest: float = 0.0,
    kind: type[Client] = Client,
) -> Result:
    """Let each client call without pause (or with `rest` seconds between calls) for some seconds."""
    result = Result()
    started = time.perf_counter()
    deadline = started + seconds

    async def work(make: Make, see: See | None) -> None:
        client = kind(host, port)
        while (began := time.perf_counter()) < deadline:
            try:
                status, body = await client.call(make())
            except (OSError, EOFError):
                result.faults += 1
                await asyncio.sleep(0.05)
                continue
            result.statuses[status] += 1
            result.times.setdefault(status, []).append(time.perf_counter() - began)
            if see is not None:
                see(status, body)
            if rest or status == 503:
                await asyncio.sleep(rest or 0.01)
        client.close()

    await asyncio.gather(*(work(make, see) for make, see in clients))
    result.seconds = time.perf_counter() - started
    return result
