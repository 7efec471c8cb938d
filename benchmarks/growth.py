"""`python -m benchmarks.growth`: what an account, a session and an event cost in space, and what time grows with them.

One PostgreSQL from its wheel, one server process on one core. Accounts are seeded as `usermgmt seed` does; their
sessions and the events of these are made inside the database. For each size every request is made a number of times by
one client, after as many that are not counted; its cost is what the server's process and what PostgreSQL's used of
processors meanwhile. Signing in and registering are measured without their hash (bcrypt at its lowest cost).
"""

import argparse
import itertools
import json
import os
import secrets
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.server import PASSWORD, PROGRAM, Target, away_from_the_server, environment, serving
from tests.servers import SETTINGS, PostgreSQL

TICK = os.sysconf("SC_CLK_TCK")
PEOPLE = 200  # as many accounts take turns, from all over the table
PAGES = 20
QUIET = {"passwords__bcrypt_cost": "4", "audit__seal_interval": "1h"}  # nothing seals the made events meanwhile
MIB = 1024 * 1024
TABLES = ("users", "login_names", "role_grants", "sessions", "audit_events")

# Ids as the server makes them, with the time in front. Half of the sessions are over.
SESSIONS = """
INSERT INTO sessions (user_id, id, generation, created_at, authenticated_at, refreshed_at, idle_expires_at, expires_at,
                      address, user_agent, network, revoked_at)
SELECT u.id, uuidv7(n * interval '-1 hour'), 3, at, at, at, at + interval '14 days', at + interval '30 days',
       '192.0.2.' || n, 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', '192.0.2.' || n,
       CASE WHEN n % 2 = 0 THEN at END
FROM users u, LATERAL (SELECT n, now() - n * interval '1 hour' AS at FROM generate_series(1, {each}) n) made
"""
EVENTS = """
INSERT INTO audit_events (owner_id, id, at, event, outcome, actor_id, actor_name, target_type, target_id, session_id,
                          address, user_agent, request_id, details, salt, personal_digest)
SELECT u.id, uuidv7(n * interval '-10 minutes'), now() - n * interval '10 minutes',
       CASE WHEN n % 5 = 0 THEN 'login.succeeded' ELSE 'session.refreshed' END, 'success', u.id, u.username, 'user',
       u.id::text, uuidv7(n * interval '-1 hour'), '192.0.2.' || n % 250,
       'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', md5(random()::text), '{{}}',
       md5(u.id::text || n), md5(u.id::text) || md5(n::text)
FROM users u, generate_series(1, {each}) n
"""


@dataclass(frozen=True)
class Cost:
    """What one request of a kind cost, in milliseconds: until it was answered, of the server, of PostgreSQL."""

    answered: float
    server: float
    database: float


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:  # any JSON
        """One request; its JSON. Raises unless it succeeds."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {read.decode()}")
        return json.loads(read)


def main() -> None:
    """Measure every size, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--users", default="10000,100000,1000000", help="the sizes, in this order")
    parser.add_argument("--sessions", type=int, default=1, help="of each account")
    parser.add_argument("--events", type=int, default=2, help="on record of each account")
    parser.add_argument("--requests", type=int, default=400, help="of each kind that are measured")
    parser.add_argument(
        "--at-most", type=float, help="fail where a kind costs this many times as much at one size as at the one before"
    )
    options = parser.parse_args()
    sizes = [int(size) for size in options.users.split(",")]
    if sizes != sorted(set(sizes)):
        parser.error("the sizes grow")
    away_from_the_server()
    SETTINGS.update(shared_buffers="256MB", max_wal_size="4GB", autovacuum="off", maintenance_work_mem="256MB")
    before: dict[str, float] = {}
    grown = list[str]()
    for size in sizes:
        postgresql = PostgreSQL()
        postgresql.start()
        try:
            costs = _measure(postgresql, size, options)
        finally:
            postgresql.remove()
        grown += [
            f"{name}: {cost / before[name]:.1f} times as much at {size:,}"
            for name, cost in costs.items()
            if options.at_most and name in before and cost > options.at_most * before[name]
        ]
        before = costs
    if grown:
        raise SystemExit("What must not grow grew. " + "; ".join(grown))


def _measure(postgresql: PostgreSQL, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Print what there is and what it costs; the processor time of each kind of request, in milliseconds."""
    environ = environment(postgresql.create("growth").replace("+asyncpg", ""), **QUIET)
    started = time.perf_counter()
    for words in (
        ("db", "upgrade"),
        ("admin", "create", "admin", "admin@example.com", "--password-stdin"),
        ("seed", "--users", str(size), "--password-stdin"),
    ):
        subprocess.run([PROGRAM, *words], env=environ, input=PASSWORD.encode(), check=True, capture_output=True)
    postgresql.execute(SESSIONS.format(each=options.sessions), database="growth")
    postgresql.execute(EVENTS.format(each=options.events), database="growth")
    postgresql.execute("VACUUM (ANALYZE)", database="growth")
    print(f"\n{size:,} accounts, filled in {time.perf_counter() - started:.0f} s", flush=True)
    _print_sizes(postgresql, size)
    spent: dict[str, float] = {}
    with serving(environ, "--workers", "1") as target:
        for name, cost in _costs(postgresql, target, size, options.requests):
            print(f"{name:24} {cost.answered:8.2f} {cost.server:8.2f} {cost.database:8.2f}", flush=True)
            spent[name] = cost.server + cost.database
    return spent


def _print_sizes(postgresql: PostgreSQL, size: int) -> None:
    print(f"{'bytes':24} {'rows':>10} {'table':>8} {'indexes':>8} {'a row':>8}   MiB in all")
    total = 0
    for table in TABLES:
        found = postgresql.execute(
            f"SELECT count(*), pg_table_size('{table}'), pg_indexes_size('{table}') FROM {table}",
            database="growth",
        )
        rows, heap, indexes = (int(value) for value in found.split("|"))
        total += heap + indexes
        each = (heap / rows, indexes / rows, (heap + indexes) / rows)
        print(f"{table:24} {rows:10,} {each[0]:8.0f} {each[1]:8.0f} {each[2]:8.0f}   {(heap + indexes) / MIB:.1f}")
    print(f"{'all, of one account':24} {'':10} {'':8} {'':8} {total / size:8.0f}   {total / MIB:.1f}")
    print(f"{'milliseconds a request':24} {'answered':>8} {'server':>8} {'database':>8}")


def _costs(postgresql: PostgreSQL, target: Target, size: int, count: int) -> Iterator[tuple[str, Cost]]:
    client = Client(target.port)
    admin = client.call("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})["access_token"]
    people = [f"user{number}" for number in range(1, size + 1, max(1, size // PEOPLE))][:PEOPLE]
    signed_in = [client.call("POST", "/api/auth/login", {"username": name, "password": PASSWORD}) for name in people]
    users = itertools.cycle(signed_in)
    names = itertools.cycle(people)
    refresh = itertools.cycle(range(len(signed_in)))
    pages = itertools.cycle(_cursors(client, admin))

    def rotate() -> None:
        place = next(refresh)
        signed_in[place].update(
            client.call("POST", "/api/auth/refresh", {"refresh_token": signed_in[place]["refresh_token"]})
        )

    def register() -> None:
        name = f"new{secrets.token_hex(6)}"
        client.call("POST", "/api/users", {"username": name, "email": f"{name}@example.org", "password": PASSWORD})

    def listed(query: Callable[[], str]) -> Callable[[], object]:
        return lambda: client.call("GET", f"/api/users?limit=50&{query()}", token=admin)

    kinds: Sequence[tuple[str, Callable[[], object]]] = (
        ("own profile", lambda: client.call("GET", "/api/users/me", token=next(users)["access_token"])),
        ("account by id", lambda: client.call("GET", f"/api/users/{next(users)['user']['id']}", token=admin)),
        ("first page of 50", listed(lambda: "sort=created_at")),
        ("page of 50 from within", listed(lambda: f"sort=-username&cursor={next(pages)}")),
        ("prefix search, 50", listed(lambda: f"sort=username&q={next(names)}")),
        ("own activity", lambda: client.call("GET", "/api/users/me/activity", token=next(users)["access_token"])),
        ("refresh", rotate),
        ("sign-in without hash", lambda: client.call("POST", "/api/auth/login", _credentials(next(names)))),
        ("register without hash", register),
    )
    for name, act in kinds:
        yield name, _cost(postgresql, target, act, count)


def _credentials(name: str) -> dict[str, str]:
    return {"username": name, "password": PASSWORD}


def _cursors(client: Client, admin: str) -> list[str]:
    """Where pages begin within the list by username."""
    found, path = list[str](), "/api/users?limit=50&sort=-username"
    page = client.call("GET", path, token=admin)
    while page["next_cursor"] is not None and len(found) < PAGES:
        found.append(urllib.parse.quote(page["next_cursor"]))
        page = client.call("GET", f"{path}&cursor={found[-1]}", token=admin)
    return found


def _cost(postgresql: PostgreSQL, target: Target, act: Callable[[], object], count: int) -> Cost:
    for _ in range(count):
        act()
    before = target.cpu_seconds(), _database_seconds(postgresql)
    started = time.perf_counter()
    for _ in range(count):
        act()
    elapsed = time.perf_counter() - started
    used = target.cpu_seconds() - before[0], _database_seconds(postgresql) - before[1]
    return Cost(*(1000 * seconds / count for seconds in (elapsed, *used)))


def _database_seconds(postgresql: PostgreSQL) -> float:
    """What the server's connections have used of processors: each is a process of PostgreSQL."""
    found = postgresql.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'usermgmt'")
    ticks = 0
    for pid in found.split():
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


if __name__ == "__main__":
    main()
