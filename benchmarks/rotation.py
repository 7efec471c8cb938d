"""Is anybody signed out while root secret, pepper and signing key are replaced under load?

    make rotation               # two and a half minutes

A server of two workers on PostgreSQL answers 50 requests a second: what 25 people read, refresh and sign in to.
Meanwhile a new root secret is put in front (SIGHUP), all turn to it, the signing key is rotated, and the old secret is
taken away (SIGHUP) when `usermgmt secrets list` shows that nothing needs it. Ends with 1 when there was a 401 or
another failure.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.load import Client, request
from benchmarks.server import PASSWORD, PROGRAM, Target, database, environment, prepare, serving

PEOPLE = 25
PAUSE = 0.5  # between two requests of one of them: 50 a second
ROLLOUT = 20
WORKERS = 2
STEPS = (
    "steady",
    "new secret in front",
    "all turned to it",
    "signing key rotated",
    "the new key signs",
    "old secret gone",
)


@dataclass
class Phase:
    """What was answered from one step to the next."""

    name: str
    began: float = field(default_factory=time.perf_counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: int = 0
    slowest: float = 0.0

    def row(self, until: float) -> str:
        """One line of the table."""
        failed = sum(count for status, count in self.statuses.items() if status >= 400 and status != 401) + self.faults
        cells = (self.name, f"{until - self.began:.0f}", self.statuses.total(), self.statuses[401], failed)
        return f"| {' | '.join(map(str, cells))} | {self.slowest * 1000:.0f} |"


class Person:
    """Somebody who is always signed in: reads, refreshes every fifth second, signs out and in every fifteenth."""

    def __init__(self, port: int, name: str, phases: list[Phase]) -> None:
        self._client = Client("127.0.0.1", port)
        self._name, self._phases = name, phases
        self._tokens: Mapping[str, Any] = {}

    async def live(self, ended: asyncio.Event) -> None:
        """Call until the end, once signed in."""
        turn = secrets.randbelow(30)
        while not ended.is_set():
            turn += 1
            if turn % 30 == 0:
                await self._call(request("POST", "/api/auth/logout", token=self._tokens["access_token"]))
                await self.sign_in()
            elif turn % 10 == 0:
                body = {"refresh_token": self._tokens["refresh_token"]}
                await self._keep(request("POST", "/api/auth/refresh", body=body))
            else:
                await self._call(request("GET", "/api/users/me", token=self._tokens["access_token"]))
            await asyncio.sleep(PAUSE)
        self._client.close()

    async def sign_in(self) -> None:
        """Sign in, and keep the tokens. Who is asked to come back does."""
        wire = request("POST", "/api/auth/login", body={"username": self._name, "password": PASSWORD})
        while not await self._keep(wire):  # noqa: ASYNC110 - nothing tells when there is room
            await asyncio.sleep(1)

    async def _keep(self, wire: bytes) -> bool:
        """Ask for tokens, and keep them; whether there were any."""
        status, body = await self._call(wire)
        if status == 200:
            self._tokens = json.loads(body)
        return status == 200

    async def _call(self, wire: bytes) -> tuple[int, bytes]:
        phase, began = self._phases[-1], time.perf_counter()
        try:
            status, body = await self._again(wire)
        except (OSError, EOFError):
            phase.faults += 1
            return 0, b""
        phase.statuses[status] += 1
        phase.slowest = max(phase.slowest, time.perf_counter() - began)
        return status, body

    async def _again(self, wire: bytes) -> tuple[int, bytes]:
        """A connection that rested may have been closed by a worker that left: as browsers do, open another one."""
        try:
            return await self._client.call(wire)
        except (OSError, EOFError):
            return await self._client.call(wire)


class Operator:
    """Who replaces the secrets, by what docs/maintenance.md says."""

    def __init__(self, target: Target, environ: Mapping[str, str], file: Path) -> None:
        self._target, self._environ, self._file = target, environ, file

    def put(self, *keys: str) -> None:
        """Write the secrets, and reload."""
        self._file.write_text(",".join(keys), encoding="utf-8")
        self._target.process.send_signal(signal.SIGHUP)

    async def run(self, *words: str) -> list[Any]:
        """The documents that a command prints."""
        command = [PROGRAM, *words, "--json"]
        ended = await asyncio.to_thread(
            subprocess.run, command, env=dict(self._environ), check=True, capture_output=True, text=True
        )
        return [json.loads(line) for line in ended.stdout.splitlines()]

    async def until(self, place: int, **wanted: object) -> None:
        """Wait until a root secret is as it shall be."""
        while True:
            row = (await self.run("secrets", "list"))[place]
            if all(row[name] == value for name, value in wanted.items()):
                return
            await asyncio.sleep(2)


async def drive(target: Target, operator: Operator, old: str, new: str) -> list[Phase]:
    """Everything, step by step, while people call."""
    phases = [Phase("before")]
    ended = asyncio.Event()
    names = ["admin", *(f"user{number}" for number in range(1, PEOPLE))]
    people = [Person(target.port, name, phases) for name in names]
    for person in people:
        await person.sign_in()
    phases[:] = [Phase(STEPS[0])]
    living = [asyncio.create_task(person.live(ended)) for person in people]
    await asyncio.sleep(10)

    phases.append(Phase(STEPS[1]))
    operator.put(new, old)
    await asyncio.sleep(5)
    await operator.until(0, state="making")

    phases.append(Phase(STEPS[2]))
    await asyncio.sleep(10)

    phases.append(Phase(STEPS[3]))
    await operator.run("keys", "rotate")
    await asyncio.sleep(62)

    phases.append(Phase(STEPS[4]))
    await operator.until(1, state="verifying", signing_keys=0, sessions=0, passwords=0)

    phases.append(Phase(STEPS[5]))
    operator.put(new)
    await asyncio.sleep(20)
    phases.append(Phase("end"))
    ended.set()
    await asyncio.gather(*living)
    return phases


@contextmanager
def deployment(file: Path) -> Iterator[tuple[Target, Operator, str]]:
    """A server of two workers, its operator, and its root secret."""
    with database("postgresql") as url:
        settings = {"passwords__bcrypt_cost": "10", "secret__rollout": f"{ROLLOUT}s", "logs__level": "error"}
        environ = environment(url, **settings)
        old = environ.pop("USERMGMT_SECRET_KEYS")
        environ["USERMGMT_SECRET_KEYS_FILE"] = str(file)
        file.write_text(old, encoding="utf-8")
        file.chmod(0o600)
        prepare(environ, PEOPLE - 1)  # and the administrator, who calls too: nobody else has a password
        with serving(environ, "--workers", str(WORKERS)) as target:
            yield target, Operator(target, environ, file), old


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="usermgmt-rotation-") as folder,
        deployment(Path(folder) / "secret.key") as (target, operator, old),
    ):
        phases = asyncio.run(drive(target, operator, old, secrets.token_urlsafe(48)))
    print("| from | seconds | answers | 401 | other failures | slowest ms |\n|---|---|---|---|---|---|")
    for phase, after in pairwise(phases):
        print(phase.row(after.began))
    answers, signed_out = sum(p.statuses.total() for p in phases), sum(p.statuses[401] for p in phases)
    failed = sum(p.faults + sum(n for s, n in p.statuses.items() if s >= 400) for p in phases)
    seconds = phases[-1].began - phases[0].began
    rate = f"{answers} answers in {seconds:.0f} s, {answers / seconds:.0f} a second"
    print(f"\n{rate}: {signed_out} x 401, {failed} failures in all.")
    others = sum((phase.statuses for phase in phases), Counter[int]())
    print(f"By status: {dict(sorted(others.items()))}; {sum(p.faults for p in phases)} without an answer.")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.pop("USERMGMT_CONFIG", None)
    sys.exit(main())
