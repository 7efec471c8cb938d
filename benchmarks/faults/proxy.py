"""A small TCP proxy between the server and PostgreSQL: it moves to another server, swallows bytes, cuts at COMMIT."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

COMMIT = b"COMMIT;\x00"  # as the driver sends it: a simple query
CHUNK = 65_536


@dataclass(eq=False)
class Pair:
    """A connection of the server, and the one to PostgreSQL that stands for it."""

    client: asyncio.StreamWriter
    database: asyncio.StreamWriter
    is_cut_at_answer: bool = False

    def cut(self) -> None:
        """Break both at once."""
        for writer in (self.client, self.database):
            writer.transport.abort()


@dataclass
class Proxy:
    """Listens on a port of its own and passes everything on to `upstream`, a port of this machine."""

    upstream: int
    port: int = 0
    commits: int = 0
    cuts: int = 0
    _cut_every: int = 0
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _pairs: set[Pair] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no longer, and break every connection."""
        assert self._server is not None
        self._server.close()
        self._flows.set()
        for pair in list(self._pairs):
            pair.cut()

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Take connections and bytes and pass nothing on, like a network that lost its way; what waited comes late."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextmanager
    def cutting(self, every: int) -> Iterator[None]:
        """Break the connection at each n-th COMMIT, by turns before PostgreSQL has it and after it has done it."""
        self._cut_every = every
        try:
            yield
        finally:
            self._cut_every = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            answers, database = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = Pair(writer, database)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._ask(reader, pair), self._answer(answers, pair))
        finally:
            self._pairs.discard(pair)
            pair.cut()

    async def _ask(self, reader: asyncio.StreamReader, pair: Pair) -> None:
        """From the server to PostgreSQL."""
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._flows.wait()
                if COMMIT in chunk and self._is_chosen():
                    self.cuts += 1
                    if self.cuts % 2:
                        break
                    pair.is_cut_at_answer = True
                pair.database.write(chunk)
                await pair.database.drain()
        pair.cut()

    async def _answer(self, answers: asyncio.StreamReader, pair: Pair) -> None:
        """From PostgreSQL to the server."""
        with suppress(OSError):
            while chunk := await answers.read(CHUNK):
                await self._flows.wait()
                if pair.is_cut_at_answer:
                    break
                pair.client.write(chunk)
                await pair.client.drain()
        pair.cut()

    def _is_chosen(self) -> bool:
        if not self._cut_every:
            return False
        self.commits += 1
        return self.commits % self._cut_every == 0
