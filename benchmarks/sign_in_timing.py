"""Does the time of a refused sign-in tell anything? Every kind of account against a name that nobody has.

    make timing                 # 300 interleaved rounds at the default cost, some ten minutes
    .venv/bin/python -m benchmarks.sign_in_timing --rounds 50 --cost 10

A server of its own is started on a new SQLite file. In each round every kind is asked once, in random order, so that
what else the machine does falls on all of them alike. The table tells the medians, how far each is from that of the
unknown name, and the probability that a sign-in of this kind takes longer than one of an unknown name (AUC; 0.5 tells
nothing).
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from usermgmt.operator import migrations
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.security.hashing import PasswordHasher
from usermgmt.security.principal import OPERATOR
from usermgmt.security.secrets import Purpose
from usermgmt.settings import Settings, load_settings
from usermgmt.users import registration
from usermgmt.users.models import Status
from usermgmt.users.registration import NewUser
from usermgmt.users.service import UserView

PASSWORD = "correct horse battery staple"
SECRET = "benchmarks-only-5f0c1f6be3d94a2cb1a7f7d95e2b8046"
LONG = "x" * 1_024
KINDS = ("unknown", "known", "disabled", "deleted", "no password", "older cost", "very long password")
THROTTLED = ("throttled unknown", "throttled known")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--cost", type=int, default=12, help="cost of bcrypt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="usermgmt-timing-") as folder:
        path = Path(folder) / "timing.db"
        settings = settings_for(path, options.cost)
        asyncio.run(prepare(settings))
        print_table(measure(path, options.cost, options.rounds, KINDS), "unknown")
        print_table(measure(path, options.cost, options.rounds, THROTTLED, limit=1), "throttled unknown")


def settings_for(path: Path, cost: int) -> Settings:
    flags = {
        "database.url": f"sqlite+aiosqlite:///{path}",
        "database.allow_sqlite": True,
        "secret.keys": SECRET,
        "passwords.bcrypt_cost": cost,
    }
    return load_settings(flags=flags, environ={})


async def prepare(settings: Settings) -> None:
    """Make an account of each kind."""
    await migrations.upgrade(settings.database)
    runtime = build_runtime(settings)
    for kind in ("known", "disabled", "deleted", "no password", "older cost", "throttled known"):
        await make_account(runtime, kind)
    await runtime.close()


async def make_account(runtime: Runtime, kind: str) -> None:
    name = name_of(kind)
    password = None if kind == "no password" else PASSWORD
    status = Status.DISABLED if kind == "disabled" else None
    new = NewUser(username=name, email=f"{name}@example.com", password=password, status=status)
    made = await registration.register_user(runtime, OPERATOR, new)
    assert isinstance(made, UserView)
    async with runtime.database.begin() as session:
        if kind == "deleted":
            now = datetime.now(UTC).replace(tzinfo=None)
            await session.execute(
                text("UPDATE users SET deleted_at = :now WHERE username = :name"), {"now": now, "name": name}
            )
        if kind == "older cost":
            peppers = [(key.key_id, key.key) for key in runtime.secrets.all(Purpose.PASSWORD_PEPPER)]
            older = PasswordHasher(cost=runtime.hasher.cost - 2, peppers=peppers)
            await session.execute(
                text("UPDATE users SET password_hash = :hash WHERE username = :name"),
                {"hash": older.hash_now(PASSWORD), "name": name},
            )
            await older.close()


def name_of(kind: str) -> str:
    return kind.replace(" ", "-")


def measure(path: Path, cost: int, rounds: int, kinds: Sequence[str], *, limit: int = 10**8) -> dict[str, list[float]]:
    """Ask a server of its own, one request at a time; seconds by kind."""
    port = 21_700 + random.randrange(200)
    environment = {
        **os.environ,
        "USERMGMT_DATABASE__URL": f"sqlite+aiosqlite:///{path}",
        "USERMGMT_DATABASE__ALLOW_SQLITE": "true",
        "USERMGMT_SECRET_KEYS": SECRET,
        "USERMGMT_PASSWORDS__BCRYPT_COST": str(cost),
        "USERMGMT_THROTTLE__ACCOUNT": f"{limit}/1h",
        "USERMGMT_THROTTLE__NETWORK": "100000000/1h",
        "USERMGMT_LIMITS__LOGIN": "100000000/1h",
        "USERMGMT_LOGS__LEVEL": "error",
    }
    command = [str(Path(sys.executable).with_name("usermgmt")), "serve", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, cwd=path.parent)
    try:
        connection = connected(port)
        if limit == 1:
            for kind in kinds:
                ask(connection, kind)  # uses up the only guess
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind in random.sample(kinds, len(kinds)):
                seconds[kind].append(ask(connection, kind, status=429 if limit == 1 else 401))
        return seconds
    finally:
        server.terminate()
        server.wait()


def connected(port: int) -> http.client.HTTPConnection:
    for _ in range(300):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().read():
                return connection
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def ask(connection: http.client.HTTPConnection, kind: str, *, status: int | None = None) -> float:
    """One refused sign-in; how long it took."""
    name = "known" if kind == "very long password" else name_of(kind)
    body = json.dumps({"username": name, "password": LONG if kind == "very long password" else "a wrong password"})
    started = time.perf_counter()
    connection.request("POST", "/api/auth/login", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    spent = time.perf_counter() - started
    assert status is None or answer.status == status, (kind, answer.status)
    return spent


def print_table(seconds: dict[str, list[float]], reference: str) -> None:
    base = statistics.median(seconds[reference])
    print("\n| kind | median ms | difference | AUC |\n|---|---|---|---|")
    for kind, times in seconds.items():
        median = statistics.median(times)
        difference = (median / base - 1) * 100
        print(f"| {kind} | {median * 1000:.1f} | {difference:+.1f} % | {auc(times, seconds[reference]):.2f} |")


def auc(times: Sequence[float], reference: Sequence[float]) -> float:
    """The probability that one of `times` is longer than one of `reference`."""
    longer = sum((one > other) + 0.5 * (one == other) for one in times for other in reference)
    return longer / (len(times) * len(reference))


if __name__ == "__main__":
    main()
