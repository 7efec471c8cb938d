"""The parent of `usermgmt serve --workers N`: keeps N workers on one set of sockets, serves nothing itself. The first
worker that can answer has them listen: until then connections are refused, and whoever can goes elsewhere.

A worker that dies or whose loop hangs is replaced, with growing pauses. SIGHUP replaces them one by one, each only when
its successor is ready, so that no request fails; what changed in the settings then holds. The first SIGTERM or SIGINT
drains, a second one ends at once. What a client does keeps nobody alive beyond `server.graceful_timeout` + 1 s.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from usermgmt.operator import service_manager, worker
from usermgmt.operator.console import Exit
from usermgmt.operator.hangup import Hangup
from usermgmt.settings import Settings
from usermgmt.telemetry import metrics

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
SECONDS_OVER_GRACE = 1.0
LONGEST_START_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 10.0  # a worker that lived longer did not die of its start
MOST_FAILURES = 6
LONGEST_SLEEP_SECONDS = 5.0
SUPERVISOR_ONLY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

log = structlog.get_logger("usermgmt.supervisor")


@dataclass(slots=True, eq=False)
class Worker:
    """One process and what is known of it. Times are those of the monotonic clock."""

    process: "subprocess.Popen[bytes]"
    link: socket.socket
    born: float
    heard: float
    is_awake: bool = False
    is_ready: bool = False
    is_leaving: bool = False
    kill_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs workers until told to end. One per process, on its main thread."""

    settings: Settings
    sockets: Sequence[socket.socket]
    config: Path | None
    flags: dict[str, Any]
    tell_serving: Callable[[], None]
    counts: str | None = None
    _workers: list[Worker] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _failures: int = 0
    _spawn_at: float = 0.0
    _is_serving: bool = False
    _outgoing: list[Worker] = field(default_factory=list)
    _successor: Worker | None = None
    _ending: signal.Signals | None = None
    _exit_code: int | None = None
    _hangup: Hangup = field(default_factory=Hangup)

    def run(self) -> int:
        """Supervise; the exit code of the process."""
        with self._signals() as wake:
            self._selector.register(wake, selectors.EVENT_READ)
            watchdog = service_manager.watchdog_seconds()
            while not self._is_over():
                for key, _ in self._selector.select(min(self._sleep(), watchdog or LONGEST_SLEEP_SECONDS)):
                    if key.fileobj is wake:
                        for number in wake.recv(64):
                            self._receive(signal.Signals(number))
                    else:
                        self._hear(key.data)
                if watchdog:
                    service_manager.notify(service_manager.ALIVE)
                self._bury()
        self._kill(self._workers)
        assert self._exit_code is not None
        return self._exit_code

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Signals as bytes of a socket, so that one `select` waits for all there is."""
        wake, waker = socket.socketpair()
        for end in (wake, waker):
            end.settimeout(0)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(-1)
            wake.close()
            waker.close()

    def _receive(self, number: signal.Signals) -> None:
        is_reload = number == signal.SIGHUP and not self._hangup.is_terminal_gone
        if is_reload and self._ending is None:
            self._reload()
        elif number != signal.SIGCHLD and not is_reload:
            self._end(number)

    def _end(self, number: signal.Signals) -> None:
        if self._ending is not None:
            self._exit_code = 128 + number
            return
        self._ending = number
        service_manager.notify(service_manager.STOPPING)
        log.info("draining", seconds=self._grace)
        self._kill([each for each in self._workers if not each.is_awake])  # it would be long until it serves who waits
        for sock in self.sockets:  # the last to close a socket must be one who takes what waits in it
            sock.close()
        for each in self._workers:
            self._dismiss(each, worker.DRAIN)

    def _reload(self) -> None:
        """Replace every worker that there is now; a successor that starts already, last. What was asked for before is
        done first.
        """
        service_manager.notify(*service_manager.reloading())
        log.info("reloading", workers=len(self._workers))
        self._outgoing = self._staying()
        if self._successor is not None:
            self._outgoing.append(self._successor)
        self._failures = 0
        self._spawn_at = 0.0

    def _is_over(self) -> bool:
        """Whether there is nothing left to supervise, having seen to those that there are."""
        if self._exit_code is None:
            self._see_to_workers()
        return self._exit_code is not None

    def _see_to_workers(self) -> None:
        """Kill who does not answer, start who is missing, end when nobody is left."""
        now = time.monotonic()
        for each in self._workers:
            if each.kill_at is None and self._is_hanging(each, now):
                log.error("worker_hangs", worker=each.process.pid, seconds=round(now - each.heard, 1))
                each.kill_at = now
            if each.kill_at is not None and each.kill_at <= now:
                each.process.kill()
        if self._ending is not None:
            if not self._workers:
                self._exit_code = Exit.OK
            return
        if now < self._spawn_at:
            return
        staying = self._staying()
        for _ in range(self.settings.server.workers - len(staying)):
            self._spawn()
        if self._outgoing and self._successor is None and all(each.is_ready for each in staying):
            self._successor = self._spawn()

    def _staying(self) -> list[Worker]:
        """Who serves or will, without the successor of one of them."""
        return [each for each in self._workers if not each.is_leaving and each is not self._successor]

    def _is_hanging(self, each: Worker, now: float) -> bool:
        if each.is_ready or each.is_leaving:
            return now - each.heard > self.settings.server.worker_timeout.total_seconds()
        return now - each.born > LONGEST_START_SECONDS + self.settings.database.start_timeout.total_seconds()

    def _sleep(self) -> float:
        """Seconds until something is to be done that nobody announces."""
        moments = [each.kill_at for each in self._workers if each.kill_at is not None]
        moments += [each.heard + self.settings.server.worker_timeout.total_seconds() for each in self._workers]
        moments.append(
            self._spawn_at if self._spawn_at > time.monotonic() else time.monotonic() + LONGEST_SLEEP_SECONDS
        )
        return max(0.02, min(moments) - time.monotonic())

    def _spawn(self) -> Worker:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        descriptors = [sock.fileno() for sock in self.sockets]
        task = worker.Task(theirs.fileno(), descriptors, str(self.config) if self.config else None, self.flags)
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", worker.__name__, task.written()],
            pass_fds=(*descriptors, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            env={
                **{name: value for name, value in os.environ.items() if name not in SUPERVISOR_ONLY},
                **({metrics.DIRECTORY: self.counts} if self.counts else {}),
            },
        )
        theirs.close()
        now = time.monotonic()
        born = Worker(process, ours, born=now, heard=now)
        self._workers.append(born)
        self._selector.register(ours, selectors.EVENT_READ, born)
        return born

    def _hear(self, each: Worker) -> None:
        try:
            words = each.link.recv(256)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            self._selector.unregister(each.link)
            return
        each.heard, each.is_awake = time.monotonic(), True
        if worker.READY in words and not each.is_ready:
            each.is_ready = True
            self._welcome(each)

    def _welcome(self, each: Worker) -> None:
        """A worker takes requests from now on."""
        log.info("worker_ready", worker=each.process.pid)
        if each is self._successor:
            self._successor = None
            self._dismiss(self._outgoing.pop(0), worker.LEAVE)
        if self._outgoing or not all(each.is_ready for each in self._workers if not each.is_leaving):
            return
        if not self._is_serving:
            self._is_serving = True
            self.tell_serving()
        service_manager.notify(service_manager.READY)

    def _dismiss(self, each: Worker, order: bytes) -> None:
        if each.is_leaving and order != worker.DRAIN:
            return
        each.is_leaving = True
        each.kill_at = each.kill_at or time.monotonic() + self._grace + SECONDS_OVER_GRACE
        with contextlib.suppress(OSError):
            each.link.send(order)

    def _bury(self) -> None:
        """Take note of those who ended."""
        for each in [each for each in self._workers if each.process.poll() is not None]:
            self._workers.remove(each)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(each.link)
            each.link.close()
            if self.counts:
                metrics.forget_worker(each.process.pid, Path(self.counts))
            if not each.is_leaving and self._ending is None:
                self._mourn(each)

    def _mourn(self, each: Worker) -> None:
        """A worker ended that should not have."""
        code, now = each.process.returncode, time.monotonic()
        log.error("worker_died", worker=each.process.pid, code=code, seconds=round(now - each.born, 1))
        if each is self._successor:
            self._lose_successor(each, code)
            return
        if each in self._outgoing:
            self._outgoing.remove(each)
            self._successor = None  # who would have followed another takes this place instead
        self._failures = 1 if each.is_ready and now - each.born > STEADY_SECONDS else self._failures + 1
        is_alone = not any(other.is_ready for other in self._workers)
        if is_alone and (code == Exit.CONFIGURATION or self._failures >= MOST_FAILURES):
            log.critical("gave_up", failures=self._failures)
            self._exit_code = Exit.CONFIGURATION if code == Exit.CONFIGURATION else Exit.FAILURE
        pause = FIRST_PAUSE_SECONDS * 2 ** (self._failures - 2) if self._failures > 1 else 0.0
        self._spawn_at = now + min(pause, LONGEST_PAUSE_SECONDS)

    def _lose_successor(self, each: Worker, code: int) -> None:
        """A successor ended before it served. If a reload was asked for since it began, that one goes on."""
        self._successor = None
        if each in self._outgoing:
            log.error("reload_failed", code=code, remedy="the reload that was asked for since is tried now")
            self._outgoing.remove(each)
            return
        log.error("reload_failed", code=code, remedy="the workers of before go on; mend the settings and reload")
        self._outgoing = []
        service_manager.notify(service_manager.READY)

    def _kill(self, workers: Sequence[Worker]) -> None:
        for each in workers:
            each.process.kill()
        for each in workers:
            each.process.wait()

    @property
    def _grace(self) -> float:
        return self.settings.server.graceful_timeout.total_seconds()
