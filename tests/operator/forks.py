"""Processes of `usermgmt` for tests that start many: forked from one process that has imported everything.

Importing costs a second of processor time, all else of a start a tenth of it. What a forked process does is what one of
its own would do from there on: its arguments, environment, directory, streams and signals are those it was given. What
is read while modules are imported is the exception, so whoever tests that starts a process of its own.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from usermgmt.operator.cli import main

LARGEST_ORDER = 1 << 20
DESCRIPTORS = 4  # standard input, output and error, and where pid and exit code are told
NUMBER_BYTES = 8
IMPORTED = (
    "aiosqlite",
    "asyncpg",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "usermgmt.operator.granian_server",
    "usermgmt.operator.migrations",
    "usermgmt.operator.serve",
)


@dataclass(slots=True)
class Forked:
    """A running program, as `subprocess.Popen` shows one that reads and writes text."""

    args: Sequence[str]
    pid: int
    stdout: IO[str]
    stderr: IO[str]
    _told: socket.socket
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; minus the signal that killed it; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises `subprocess.TimeoutExpired`."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Forget it."""
        for end in (self.stdout, self.stderr, self._told):
            end.close()

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = _number(self._told)
        return self.returncode


@dataclass(slots=True)
class Nursery:
    """The process that everybody is forked from."""

    _orders: socket.socket

    def start(self, words: Sequence[str], *, environ: Mapping[str, str], cwd: Path, stdin: int) -> Forked:
        """Start `words[0]` with the others as its arguments."""
        out, told_out = os.pipe()
        err, told_err = os.pipe()
        ours, theirs = socket.socketpair()
        order = json.dumps({"words": [*words], "environ": {**environ}, "cwd": str(cwd)}).encode()
        given = os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else os.dup(stdin)
        descriptors = [given, told_out, told_err, theirs.detach()]
        socket.send_fds(self._orders, [order], descriptors)
        for each in descriptors:
            os.close(each)
        return Forked(words, _number(ours), os.fdopen(out), os.fdopen(err), ours)


@contextmanager
def nursery(environ: Mapping[str, str]) -> Iterator[Nursery]:
    """A process that has imported everything, until it is not needed any more."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_ORDER)
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(theirs.fileno())],
        env={**environ},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        theirs.close()
        with ours:
            yield Nursery(ours)
        process.wait()


def _number(told: socket.socket) -> int:
    """The next number that was told; the end before one means that the nursery is gone."""
    told.settimeout(None)
    written = told.recv(NUMBER_BYTES, socket.MSG_WAITALL)
    assert len(written) == NUMBER_BYTES, "the process that forks is gone"
    return int.from_bytes(written, "big", signed=True)


def _tell(told: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody asks any more
        told.sendall(number.to_bytes(NUMBER_BYTES, "big", signed=True))


def _become(order: Mapping[str, Any], given: Sequence[int]) -> NoReturn:
    """Be the program from here on, in a process that was just forked."""
    for number, descriptor in enumerate(given):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    os.chdir(order["cwd"])
    sys.argv[:] = order["words"]
    main()


def _serve(orders: socket.socket) -> None:
    """Fork for each order, and tell what became of it, until nobody can ask any more."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by what becomes readable when a process ends
    while True:
        for ready in select.select([orders, *running], [], [])[0]:
            if ready is not orders:
                pid, told = running.pop(ready)
                _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                told.close()
                os.close(ready)
                continue
            order, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER, DESCRIPTORS)
            if not order:
                return
            *given, last = descriptors
            pid = os.fork()
            if pid == 0:
                orders.close()
                for each, (_, told) in running.items():
                    os.close(each)
                    told.close()
                os.close(last)
                _become(json.loads(order), given)
            for each in given:
                os.close(each)
            told = socket.socket(fileno=last)
            _tell(told, pid)
            running[os.pidfd_open(pid)] = (pid, told)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # nothing of this is garbage, in no child
    _serve(socket.socket(fileno=int(sys.argv[1])))
