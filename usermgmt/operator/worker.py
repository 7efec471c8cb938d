"""A worker: one of the processes that `usermgmt serve --workers` runs on its sockets.

It is told everything by its supervisor: what to serve with in its first argument, when to leave over the link between
them. The link's end means that the supervisor is gone. Signals are the supervisor's; a worker ignores them.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from usermgmt.operator import server
from usermgmt.operator.configuration import production_settings
from usermgmt.operator.console import Refusal, tell_refusal
from usermgmt.operator.startup import built, prepare, refuse_unfit
from usermgmt.telemetry.logs import configure_logs

BEAT_SECONDS = 0.5
READY = b"r"
BEAT = b"."
DRAIN = b"d"
LEAVE = b"l"
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker serves with: inherited descriptors, and where its settings come from."""

    link: int
    sockets: list[int]
    config: str | None
    flags: dict[str, Any]

    def written(self) -> str:
        """The task as an argument of a process."""
        return json.dumps(asdict(self))


class Link:
    """The worker's end of what connects it with its supervisor."""

    def __init__(self, descriptor: int, ending: server.Ending) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(0)
        self._ending = ending
        self._is_serving = False
        asyncio.get_running_loop().add_reader(descriptor, self._receive)

    def tell(self, word: bytes) -> None:
        """Say something; to a supervisor that is gone or does not listen, nothing."""
        with contextlib.suppress(OSError):
            self._socket.send(word)

    def tell_ready(self) -> None:
        """Say that requests are answered from now on."""
        self._is_serving = True
        self.tell(READY)

    async def beat(self) -> None:
        """Show that the event loop turns."""
        while True:
            self.tell(BEAT)
            await asyncio.sleep(BEAT_SECONDS)

    def _receive(self) -> None:
        try:
            order = self._socket.recv(16)
        except BlockingIOError:
            return
        except OSError:
            order = b""
        if not self._is_serving:  # nobody was taken in yet, and the others do not wait for us
            server.leave(0)
        self._ending.ask(is_replaced=order == LEAVE)
        if not order:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())


async def _work(task: Task) -> None:
    settings, reasons = production_settings(task.flags, Path(task.config) if task.config else None)
    await refuse_unfit(settings, reasons)
    assert settings is not None
    configure_logs(settings.logs, worker=os.getpid())
    ending = server.Ending(settings.server.graceful_timeout.total_seconds())
    link = Link(task.link, ending)
    beating = asyncio.create_task(link.beat())
    prepared = await prepare(settings)
    try:
        app = built(settings, prepared.runtime)
        sockets = [socket.socket(fileno=descriptor) for descriptor in task.sockets]
        server.listen(sockets)  # only now: who came earlier would wait for the start, and think that it hangs
        await server.serve(app, prepared.runtime, sockets, ending, tell_ready=link.tell_ready)
    finally:
        beating.cancel()
        await prepared.runtime.close()


def main() -> None:
    """Serve until told to leave; ends the process."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    code = 0
    try:
        server.run(lambda: _work(Task(**json.loads(sys.argv[1]))))
    except Refusal as refusal:
        tell_refusal(refusal, is_json=False)
        code = refusal.exit_code
    server.leave(code)


if __name__ == "__main__":
    main()
