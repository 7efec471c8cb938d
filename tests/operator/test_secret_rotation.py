"""Root secret, pepper and sealed keys of a server of two workers are replaced under load, and nobody is signed out."""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET
from tests.operator.calls import call, call_as
from tests.operator.conftest import PASSWORD, CommandLine, Start, environment
from tests.operator.test_supervision import WORKERS, children, until
from tests.servers import PostgreSQL

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

NEW = "tests-only-2b8046e8d24b60a1f7c3d95e7f3a9c51"
PEOPLE = ("ada", "bob", "eve")


@contextmanager
def signed_in(url: str) -> Iterator[Counter[str]]:
    """People who sign in, read, refresh and sign out again and again; how often each ended how."""
    seen: Counter[str] = Counter()
    ended = threading.Event()

    def live(name: str) -> None:
        def told(what: str, answer: tuple[int, Any]) -> Any:
            seen[f"{what} {answer[0]}"] += 1
            time.sleep(0.05)  # people pause; the server has time for the rotation too
            return answer[1]

        while not ended.is_set():
            tokens = told("login", call(f"{url}/api/auth/login", {"username": name, "password": PASSWORD}))
            for _ in range(3):
                told("me", call_as(tokens["access_token"], f"{url}/api/users/me"))
                body = {"refresh_token": tokens["refresh_token"]}
                tokens = told("refresh", call(f"{url}/api/auth/refresh", body))
            told("logout", call_as(tokens["access_token"], f"{url}/api/auth/logout", {}))

    threads = [threading.Thread(target=live, args=(name,)) for name in PEOPLE]
    for each in threads:
        each.start()
    try:
        yield seen
    finally:
        ended.set()
        for each in threads:
            each.join()


def test_nobody_is_signed_out(
    line: CommandLine, start: Start, database_url: str, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    for name in PEOPLE:
        line.create(name)
    file = tmp_path / "secret.key"
    file.write_text(SECRET)
    more = {"limits__enabled": "false", "server__workers": str(WORKERS), "secret_keys_file": str(file)}
    environ = environment(database_url, **more)
    del environ["USERMGMT_SECRET_KEYS"]
    line.environ = environ
    process = start("serve", "--port", "0", environ=environ)
    url = json.loads(process.wait_for('"serving"'))["url"]

    def reload(keys: str) -> None:
        file.write_text(keys)
        before = children(process)
        process.popen.send_signal(signal.SIGHUP)
        until(lambda: not children(process) & before and len(children(process)) == WORKERS)

    def states() -> list[tuple[str, ...]]:
        shown = ("state", "signing_keys", "sessions", "passwords")
        return [tuple(row[name] for name in shown) for row in line.documents("secrets", "list")]

    with signed_in(url) as seen:
        reload(f"{NEW},{SECRET}")
        assert [row[0] for row in states()] == ["waiting", "making"]
        hour_ago = "UPDATE root_secrets SET first_seen_at = first_seen_at - interval '1 hour'"
        postgresql.execute(hour_ago, database=database_url.rpartition("/")[2])  # as if that time had passed
        until(lambda: states()[0][0] == "making")
        assert line.documents("maintain", "--only", "signing_keys")[0]["rows"] in (0, 1)  # unless a worker was faster
        until(lambda: states()[1] == ("verifying", 0, 0, 0))
        reload(NEW)
        after = seen["me 200"]
        until(lambda: seen["me 200"] > after + 10)
    assert {what for what in seen if not what.endswith((" 200", " 204"))} == set(), seen
    assert min(seen.values()) >= len(PEOPLE), seen
    assert process.end(signal.SIGTERM) == 0
