"""`make bench`: builds everything from nothing, loads it, prints one table.

One server process on one core, this program on another; PostgreSQL from its wheel beside it. All clients of one run are
started together; what is printed are medians of rounds. Times move from machine to machine: compare runs on one.
"""

import argparse
import asyncio
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.encrypted import EncryptedClient, Http2Client, certify
from benchmarks.load import Client, Make, Result, See, drive, request
from benchmarks.server import Target, away_from_the_server, database, environment, prepare, serving

CLIENTS = 32
STORM = 64
READERS = 16
WRITERS = 20
IDLE = 2_000
Clients = list[tuple[Make, See | None]]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    figures: dict[str, str]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sqlite-seconds", type=float, default=60.0)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="mixed load, and how memory grows")
    parser.add_argument("--server", choices=("hypercorn", "granian"), default="hypercorn")
    parser.add_argument("--quick", action="store_true", help="one short round of each")
    options = parser.parse_args()
    if options.quick:
        options.users, options.seconds, options.rounds, options.sqlite_seconds = 10_000, 1.0, 1, 3.0
    away_from_the_server()
    with database("postgresql") as url:
        environ = environment(url, server__server=options.server)
        prepare(environ, options.users)
        with serving(environ) as target:
            for row in _postgresql(target, options):
                _print(row)
        if options.server == "hypercorn":
            _encrypted(url, options)
    with database("sqlite") as url:
        environ = environment(url, server__server=options.server)
        prepare(environ, 1_000)
        with serving(environ) as target:
            _print(_sqlite_writers(target, options.sqlite_seconds))


def _postgresql(target: Target, options: argparse.Namespace) -> Iterator[Row]:
    yield Row("start", {"to the first answer": f"{target.seconds_to_first_answer:.2f} s"})
    yield Row("memory", {"idle": f"{target.memory_kib() / 1024:.0f} MiB"})
    yield _idle_connections(target)
    admin = target.sign_in("admin")["access_token"]
    people = [target.sign_in(f"user{number}") for number in range(1, CLIENTS + 1)]
    reads = _reads(target, admin, people[0]["access_token"])
    for name, make in reads.items():
        yield _measured(target, name, lambda make=make: [(make, None)] * CLIENTS, options)  # type: ignore[misc]
    yield _measured(target, "refresh, rotating", lambda: [_refreshing(each) for each in people], options)
    yield from _login_storm(target, reads["own profile"], options)
    if options.soak:
        yield _soak(target, people, options.soak * 60)


def _encrypted(url: str, options: argparse.Namespace) -> None:
    """One request over TLS, by either protocol."""
    with (
        tempfile.TemporaryDirectory(prefix="usermgmt-bench-") as folder,
        serving(environment(url, **certify(Path(folder)))) as target,
    ):
        wire = request("GET", "/api/users/me", token=target.sign_in("user1")["access_token"])
        for kind in (EncryptedClient, Http2Client):
            name = f"own profile, TLS, {kind.protocol}"
            _print(_measured(target, name, lambda: [(lambda: wire, None)] * CLIENTS, options, kind=kind))


def _reads(target: Target, admin: str, person: str) -> dict[str, Make]:
    """The requests that only read."""
    page = target.call("GET", "/api/users?limit=100", token=admin)
    ids = cycle([request("GET", f"/api/users/{user['id']}", token=admin) for user in page["items"]])
    middle = target.call("GET", "/api/users?limit=50&sort=-username", token=admin)["next_cursor"]
    me = request("GET", "/api/users/me", token=person)
    first = request("GET", "/api/users?limit=50", token=admin)
    further = request("GET", f"/api/users?limit=50&sort=-username&cursor={middle}", token=admin)
    found = request("GET", "/api/users?limit=50&q=user77", token=admin)
    live = request("GET", "/health/live")
    return {
        "health": lambda: live,
        "own profile": lambda: me,
        "user by id": lambda: next(ids),
        "first page of 50": lambda: first,
        "page of 50 by cursor": lambda: further,
        "search by prefix": lambda: found,
    }


def _refreshing(tokens: dict[str, Any]) -> tuple[Make, See]:
    """A client that refreshes its session again and again."""

    def make() -> bytes:
        return request("POST", "/api/auth/refresh", body={"refresh_token": tokens["refresh_token"]})

    def see(status: int, body: bytes) -> None:
        if status == 200:
            tokens.update(json.loads(body))

    return make, see


def _signing_in() -> Make:
    wires = cycle(
        [
            request("POST", "/api/auth/login", body={"username": f"user{number}", "password": "User-Passw0rd-1"})
            for number in range(100, 200)
        ]
    )
    return lambda: next(wires)


def _measured(
    target: Target,
    name: str,
    clients: Callable[[], Clients],
    options: argparse.Namespace,
    *,
    kind: type[Client] = Client,
) -> Row:
    asyncio.run(drive("127.0.0.1", target.port, clients(), 0.5, kind=kind))
    rounds: list[tuple[Result, float]] = []
    for _ in range(options.rounds):
        before = target.cpu_seconds()
        result = asyncio.run(drive("127.0.0.1", target.port, clients(), options.seconds, kind=kind))
        rounds.append((result, (target.cpu_seconds() - before) / sum(result.statuses.values())))
    return Row(
        name,
        {
            "requests/s": f"{statistics.median(result.rate for result, _ in rounds):,.0f}",
            "p50": _ms(statistics.median(result.at(0.5) for result, _ in rounds)),
            "p99": _ms(statistics.median(result.at(0.99) for result, _ in rounds)),
            "CPU a request": f"{statistics.median(cpu for _, cpu in rounds) * 1000:.2f} ms",
            "failed": str(sum(_failed(result) for result, _ in rounds)),
        },
    )


def _login_storm(target: Target, me: Make, options: argparse.Namespace) -> Iterator[Row]:
    """What readers notice of people who sign in without pause."""
    readers: Clients = [(me, None)] * READERS
    seconds = max(options.seconds * 2, 4.0)
    quiet = asyncio.run(drive("127.0.0.1", target.port, readers, seconds))
    storm: Clients = [(_signing_in(), None)] * STORM

    async def both() -> tuple[Result, Result]:
        storming = asyncio.create_task(drive("127.0.0.1", target.port, storm, seconds + 2))
        await asyncio.sleep(1)
        return await drive("127.0.0.1", target.port, readers, seconds), await storming

    loud, signing = asyncio.run(both())
    yield Row(
        f"profile reads while {STORM} clients sign in",
        {
            "kept": f"{loud.rate / quiet.rate:.0%}",
            "requests/s": f"{loud.rate:,.0f} of {quiet.rate:,.0f}",
            "p99": f"{_ms(loud.at(0.99))} (× {loud.at(0.99) / quiet.at(0.99):.1f})",
            "failed": str(_failed(loud)),
        },
    )
    yield Row(
        "the sign-ins",
        {
            "admitted": f"{signing.statuses[200] / signing.seconds:.1f}/s",
            "slowest": f"{signing.at(1.0, 200):.2f} s",
            "asked to come back (503)": str(signing.statuses[503]),
            "slowest of these": _ms(signing.at(1.0, 503)) if signing.statuses[503] else "-",
            "other": str(sum(count for status, count in signing.statuses.items() if status not in (200, 503))),
        },
    )


def _idle_connections(target: Target) -> Row:
    before = target.memory_kib()
    held = [socket.create_connection(("127.0.0.1", target.port)) for _ in range(IDLE)]
    time.sleep(2)
    grown = target.memory_kib() - before
    for connection in held:
        connection.close()
    return Row(f"{IDLE:,} idle connections", {"memory": f"+{grown / 1024:.0f} MiB"})


def _soak(target: Target, people: Sequence[dict[str, Any]], seconds: float) -> Row:
    """Mixed load, and the slope of memory over its second half. Readers sign in anew for each slice: an access token
    lives for ten minutes.
    """
    refreshing = [_refreshing(each) for each in people[:8]]
    samples: list[tuple[float, int]] = []
    deadline = time.monotonic() + seconds
    count = failed = 0
    while time.monotonic() < deadline:
        reads = _reads(target, *(target.sign_in(name)["access_token"] for name in ("admin", "user9")))
        clients: Clients = [*((make, None) for make in reads.values()), *refreshing]
        result = asyncio.run(drive("127.0.0.1", target.port, clients, min(30.0, seconds / 8)))
        count += sum(result.statuses.values())
        failed += _failed(result)
        samples.append((time.monotonic(), target.memory_kib()))
    half = samples[len(samples) // 2 :]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope * 3600 / 1024 if len(half) > 1 else 0.0
    memory = f"{samples[0][1] / 1024:.0f} MiB at first, {samples[-1][1] / 1024:.0f} at last, {slope:+.1f} MiB an hour"
    return Row("soak", {"requests": f"{count:,}", "failed": str(failed), "memory": memory})


def _sqlite_writers(target: Target, seconds: float) -> Row:
    """Writers beside readers on one file."""
    people = [target.sign_in(f"user{number}")["access_token"] for number in range(1, WRITERS + 1)]

    def writing(token: str) -> Make:
        numbers = iter(range(10**9))
        return lambda: request("PATCH", "/api/users/me", token=token, body={"display_name": f"name {next(numbers)}"})

    reading = request("GET", "/api/users/me", token=people[0])

    async def both() -> tuple[Result, Result]:
        readers: Clients = [(lambda: reading, None)] * 4
        writers: Clients = [(writing(token), None) for token in people]
        return tuple(  # type: ignore[return-value] # there are two
            await asyncio.gather(
                drive("127.0.0.1", target.port, writers, seconds),
                drive("127.0.0.1", target.port, readers, seconds, rest=0.005),
            )
        )

    writes, reads = asyncio.run(both())
    return Row(
        f"SQLite: {WRITERS} writers for {seconds:.0f} s",
        {
            "writes/s": f"{writes.rate:,.0f}",
            "p99": _ms(writes.at(0.99)),
            "slowest": _ms(writes.at(1.0)),
            "failed": str(_failed(writes)),
            "reads/s beside": f"{reads.rate:,.0f}",
            "p99 of reads": _ms(reads.at(0.99)),
            "reads failed": str(_failed(reads)),
        },
    )


def _failed(result: Result) -> int:
    return result.faults + sum(count for status, count in result.statuses.items() if status >= 400)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _print(row: Row) -> None:
    print(f"{row.what:42}", " | ".join(f"{name} {value}" for name, value in row.figures.items()), flush=True)


if __name__ == "__main__":
    main()
