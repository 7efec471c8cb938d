"""A server to measure: PostgreSQL from its wheel or a SQLite file, accounts, and `usermgmt serve` as a process."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import asyncpg

from tests.servers import PostgreSQL, free_port

PROGRAM = str(Path(sys.executable).with_name("usermgmt"))
PASSWORD = "User-Passw0rd-1"
SECRET = "bench-only-Zk3v9QmT1xYw7RbN5cLs8HdJ2gFp6AuE4iOoKy"
TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
END_SECONDS = 40
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@dataclass
class Target:
    """A running server and the process that is it."""

    process: "subprocess.Popen[bytes]"
    port: int
    seconds_to_first_answer: float
    is_tls: bool = False

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> Any:
        """One request outside of what is measured; its JSON. Raises `urllib.error.HTTPError`."""
        asked = urllib.request.Request(
            f"http{'s' * self.is_tls}://127.0.0.1:{self.port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={
                **({"Content-Type": "application/json"} if body is not None else {}),
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
        )
        with urllib.request.urlopen(asked, timeout=30, context=_trusting() if self.is_tls else None) as answer:
            return json.load(answer)

    def sign_in(self, username: str) -> Any:
        """The tokens of an account."""
        return self.call("POST", "/api/auth/login", {"username": username, "password": PASSWORD})

    def cpu_seconds(self) -> float:
        """What the process has used of processors."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_kib(self) -> int:
        """What the process has in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0])


def _trusting() -> ssl.SSLContext:
    """TLS that believes every certificate: it is this machine's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The address of an empty database."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="usermgmt-bench-") as folder:
            yield f"sqlite:///{folder}/bench.db"
        return
    postgresql = PostgreSQL()
    postgresql.start()
    try:
        yield postgresql.create("bench").replace("+asyncpg", "")
    finally:
        postgresql.remove()


def environment(url: str, **more: str) -> dict[str, str]:
    """Everything on that a user gets by default, except the budgets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("USERMGMT_")}
    return {
        **kept,
        "USERMGMT_DATABASE__URL": url,
        "USERMGMT_DATABASE__ALLOW_SQLITE": "true",
        "USERMGMT_SECRET_KEYS": SECRET,
        "USERMGMT_LIMITS__ENABLED": "false",
        "USERMGMT_LOGS__LEVEL": "warning",
        **{f"USERMGMT_{name.upper()}": value for name, value in more.items()},
    }


def prepare(environ: Mapping[str, str], users: int) -> None:
    """A schema, an administrator and many accounts."""
    for words in (
        ("db", "upgrade"),
        ("admin", "create", "admin", "admin@example.com", "--password-stdin"),
        *([("seed", "--users", str(users), "--password-stdin")] if users else []),
    ):
        subprocess.run([PROGRAM, *words], env=dict(environ), input=PASSWORD.encode(), check=True, capture_output=True)
    url = environ["USERMGMT_DATABASE__URL"]
    if not url.startswith("sqlite"):
        asyncio.run(_vacuum(url))


async def _vacuum(url: str) -> None:
    """What autovacuum does within a minute: without it plans are made without knowing the tables."""
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM (ANALYZE)")
    await connection.close()


@contextmanager
def serving(
    environ: Mapping[str, str], *words: str, port: int = 0, log: IO[bytes] | None = None, is_bound: bool = True
) -> Iterator[Target]:
    """A server, if `is_bound` on the first core where the system can bind it to one."""
    port = port or free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        [PROGRAM, "serve", "--port", str(port), *words], env=dict(environ), stdout=log, stderr=log
    )
    if CORES and is_bound:
        os.sched_setaffinity(process.pid, CORES[:1])
    target = Target(process, port, 0.0, is_tls="USERMGMT_SERVER__TLS_KEY" in environ)
    try:
        while True:
            try:
                target.call("GET", "/health/live")
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    raise
                time.sleep(0.02)
        target.seconds_to_first_answer = time.perf_counter() - started
        yield target
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def away_from_the_server() -> None:
    """Move the calling process to the other cores."""
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[1:])
