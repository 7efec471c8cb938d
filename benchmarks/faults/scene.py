"""Where a fault happens: a database of its own, a server on it, and the load."""

import asyncio
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import IO, Any

import asyncpg

from benchmarks.faults.proxy import Proxy
from benchmarks.faults.traffic import Account, Traffic
from benchmarks.server import PASSWORD, PROGRAM, Target, environment, prepare, serving
from tests.servers import PostgreSQL, Valkey, free_port

ACCOUNTS = 20
PREPARED = "prepared"
DURABLE = {  # what is acknowledged survives the death of every process; the machine itself goes on
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "wal_level": "replica",
}


@dataclass
class Scene:
    """One fault's world. `healed` is when the cause was gone."""

    kind: str
    folder: Path
    pace: float
    url: str = ""
    postgresql: PostgreSQL | None = None
    standby: PostgreSQL | None = None
    proxy: Proxy | None = None
    valkey: Valkey | None = None
    target: Target | None = None
    traffic: Traffic | None = None
    began: float = 0.0
    healed: float = 0.0
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _environ: dict[str, str] = field(default_factory=dict)
    _words: tuple[str, ...] = ()
    _port: int = 0
    _log: IO[bytes] | None = None
    _serving: ExitStack = field(default_factory=ExitStack)

    @property
    def server(self) -> PostgreSQL:
        """The PostgreSQL server that is asked for the books."""
        assert self.postgresql is not None
        return self.postgresql

    @property
    def load(self) -> Traffic:
        """The load that runs."""
        assert self.traffic is not None
        return self.traffic

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The server, or the parent of its workers."""
        assert self.target is not None
        return self.target.process

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return Path(self.url.removeprefix("sqlite:///"))

    def workers(self) -> list[int]:
        """The workers of the server."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]

    async def wait(self, seconds: float) -> None:
        """Let some time pass, less of it in a quick run."""
        await asyncio.sleep(seconds * self.pace)

    def begin_fault(self) -> None:
        """From now on something is wrong."""
        self.began = monotonic()

    def heal(self) -> None:
        """From now on nothing is."""
        self.healed = monotonic()

    async def rows(self, statement: str) -> Sequence[Sequence[Any]]:
        """What the database has, asked without the server."""
        if self.kind == "sqlite":
            return await asyncio.to_thread(self._rows_of_file, statement)
        connection = await asyncpg.connect(self.server.url("faults").replace("+asyncpg", ""))
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    async def execute(self, statement: str) -> None:
        """Change something behind the server's back."""
        await asyncio.to_thread(self.server.execute, statement, database="faults")

    async def command(self, statement: str) -> None:
        """Tell PostgreSQL something, from outside of that database."""
        await asyncio.to_thread(self.server.execute, statement)

    async def start(self) -> None:
        """Start the server, again on its port."""
        self.target = await asyncio.to_thread(
            self._serving.enter_context,
            serving(self._environ, *self._words, port=self._port, log=self._log, is_bound=False),
        )

    async def stop(self) -> None:
        """End the server, if it has not ended."""
        await asyncio.to_thread(self._serving.close)

    def run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        """One command of the operator."""
        return subprocess.run([PROGRAM, *words], env=self._environ, capture_output=True, check=False)

    def _rows_of_file(self, statement: str) -> Sequence[Sequence[Any]]:
        connection = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


@asynccontextmanager
async def staged(
    scene: Scene, *, settings: Mapping[str, str], words: Sequence[str], rate: float
) -> AsyncIterator[Scene]:
    """Prepare the database, start the server, and load it."""
    async with AsyncExitStack() as stack:
        if scene.kind == "postgresql":
            scene.url = _address(scene)
        if scene.valkey is not None:
            settings = {name: value.format(valkey=scene.valkey.url) for name, value in settings.items()}
        scene._environ = environment(scene.url, passwords__bcrypt_cost="4", **settings)
        scene._words, scene._port = tuple(words), free_port()
        scene._log = stack.enter_context((scene.folder / "log").open("wb"))
        if scene.kind == "sqlite":
            await asyncio.to_thread(prepare, scene._environ, 0)
        stack.push_async_callback(scene.stop)
        await scene.start()
        assert scene.target is not None
        token = (await asyncio.to_thread(scene.target.sign_in, "admin"))["access_token"]
        accounts = [await asyncio.to_thread(_account, scene.target, number) for number in range(ACCOUNTS)]
        scene.traffic = Traffic(scene._port, token, accounts, rate)
        driving = asyncio.create_task(scene.traffic.run())
        try:
            yield scene
        finally:
            driving.cancel()
            await scene.traffic.settle()


def _address(scene: Scene) -> str:
    """Where the server finds PostgreSQL: through the proxy, at one of two hosts, or directly."""
    if scene.proxy is not None:
        return f"postgresql://postgres@127.0.0.1:{scene.proxy.port}/faults"
    if scene.standby is None:
        return f"postgresql://postgres@127.0.0.1:{scene.server.port}/faults"
    hosts = "&".join(f"host=127.0.0.1:{each.port}" for each in (scene.server, scene.standby))
    return f"postgresql://postgres@/faults?{hosts}&target_session_attrs=read-write"


@asynccontextmanager
async def place() -> AsyncIterator[Path]:
    """A folder that PostgreSQL's user may read, too."""
    with tempfile.TemporaryDirectory(prefix="usermgmt-faults-") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101 - a string
        yield Path(folder)


def new_server() -> PostgreSQL:
    """A PostgreSQL server with a prepared database, which each fault gets a copy of."""
    server = PostgreSQL(DURABLE)
    server.start()
    prepare(environment(server.create(PREPARED).replace("+asyncpg", ""), passwords__bcrypt_cost="4"), 0)
    return server


def renew(server: PostgreSQL) -> None:
    """Give it an unused database."""
    server.execute('DROP DATABASE IF EXISTS "faults" WITH (FORCE)')
    server.create("faults", template=PREPARED)


def _account(target: Target, number: int) -> Account:
    name = f"account{number}"
    body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
    return Account(target.call("POST", "/api/users", body)["id"], name)
