"""`python -m benchmarks.micro`: the processor time of the parts that a request is made of, one by one, in microseconds.

In one process, on PostgreSQL from its wheel or, with --database sqlite, on a file. What PostgreSQL itself uses is not
in it. The figures of one run are to be compared with those of another on the same machine.
"""

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from benchmarks.server import SECRET, away_from_the_server, database, environment, prepare
from usermgmt.auth.queries import fetch_live_sessions
from usermgmt.http.answers import encode
from usermgmt.operator.server import run
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.settings import load_settings
from usermgmt.signing_keys.service import prepare_ring
from usermgmt.storage.pages import Position, list_digest, read_cursor, write_cursor
from usermgmt.users.lists import Filters, Order, list_page
from usermgmt.users.reads import fetch_users
from usermgmt.users.schemas import ListUsers, UserPageOut
from usermgmt.users.service import UserView

USERS = 10_000
NOBODY = UUID(int=0)
Act = Callable[[], Awaitable[object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each part")
    options = parser.parse_args()
    away_from_the_server()
    with database(options.database) as url:
        prepare(environment(url), USERS)
        settings = load_settings(flags={"database.url": url, "secret.keys": SECRET}, environ={}, config=None)
        run(lambda: _measure(build_runtime(settings), options.seconds))


async def _measure(runtime: Runtime, seconds: float) -> None:
    try:
        runtime.ring = await prepare_ring(runtime)
        for name, act in {**_tokens(runtime), **await _reads(runtime)}.items():
            await act()
            print(f"{name:48} {await _cost(act, seconds):10.1f} µs", flush=True)
    finally:
        await runtime.close()


async def _cost(act: Act, seconds: float) -> float:
    """Microseconds of processor time of one act."""
    count, began, until = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        await act()
        count += 1
    return (time.process_time() - began) / count * 1e6


def _tokens(runtime: Runtime) -> dict[str, Act]:
    now = runtime.clock.now()
    token = runtime.access_tokens.issue(NOBODY, NOBODY, now=now)
    digest = list_digest(NOBODY)
    cursor = write_cursor(Position(now, NOBODY), digest=digest, secrets=runtime.secrets)

    def issue() -> object:
        return runtime.access_tokens.issue(NOBODY, NOBODY, now=now)

    return {
        "access token, signed (ES256)": _awaited(issue),
        "access token, signed and verified": _awaited(lambda: runtime.access_tokens.verify(str(issue()), now=now)),
        "access token, verified before": _awaited(lambda: runtime.access_tokens.verify(token, now=now)),
        "cursor, read": _awaited(lambda: read_cursor(cursor, digest=digest, secrets=runtime.secrets)),
    }


async def _reads(runtime: Runtime) -> dict[str, Act]:
    query = ListUsers()

    async def page() -> Any:  # the rows of a list
        async with runtime.database.read_rows() as rows:
            return await list_page(rows, Filters(), order=Order.CREATED, position=None, limit=50)

    found = (await page())[:50]
    ids = [user.id for user in found]

    def users(count: int) -> Act:
        async def read() -> object:
            async with runtime.database.read_rows() as rows:
                return await fetch_users(rows, ids[:count])

        return read

    def sessions(count: int) -> Act:
        async def read() -> object:
            async with runtime.database.read_rows() as rows:
                return await fetch_live_sessions(rows, [(each, each) for each in ids[:count]])

        return read

    def encoded() -> object:
        items = query.listed([UserView(user, user.roles, user.groups) for user in found])
        return encode(UserPageOut(items=items, next_cursor=None, prev_cursor=None))

    return {
        "session check, one statement for 1 caller": sessions(1),
        "session check, one statement for 16 callers": sessions(16),
        "account by id, one statement for 1": users(1),
        "account by id, one statement for 16": users(16),
        "a page of 50, read": page,
        "a page of 50, encoded": _awaited(encoded),
    }


def _awaited(act: Callable[[], object]) -> Act:
    async def awaited() -> object:
        return act()

    return awaited


if __name__ == "__main__":
    main()
