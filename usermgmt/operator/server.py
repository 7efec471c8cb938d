"""Serving in this process, by Hypercorn or Granian: how it listens, and how it ends.

The first SIGTERM or SIGINT drains: readiness answers 503, requests that run are answered, idle connections close. What
is still open after `server.graceful_timeout` is dropped, whatever its client does. A second signal ends at once.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from usermgmt.http.routing import Application
from usermgmt.operator import service_manager
from usermgmt.operator.connections import FrugalConfig, limit_connections
from usermgmt.operator.console import Refusal
from usermgmt.operator.hangup import Hangup
from usermgmt.operator.listening import House, serve_sockets
from usermgmt.runtime import Runtime
from usermgmt.settings import ServerSettings
from usermgmt.telemetry import error_tracking

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75.0  # longer than load balancers keep a connection, so that they are who closes it
KEEP_ALIVE_REQUESTS = 1_000_000
INCOMPLETE_BYTES = 16 * 1024
WATCHDOG_SECONDS = 0.5
COLLECTED_AFTER = (20_000, 20, 20)  # objects, and collections of the younger generation
SIGNALS = (signal.SIGTERM, signal.SIGINT)
OTHER_PORT = " Choose another port: --port 9000, or `make run PORT=9000`."

T = TypeVar("T")
Serve = Callable[..., Coroutine[Any, Any, None]]

log = structlog.get_logger("usermgmt.server")


class Ending:
    """How the process ends: asked once, forced by a second signal or by the watchdog."""

    def __init__(self, patience: float) -> None:
        """`patience` is in seconds, from being asked to the end whatever happens."""
        self.asked = asyncio.Event()
        self.is_replaced = False
        self.is_reload_due = False
        self.reload: Callable[[], None] = self._note_reload
        self._patience = patience

    def obey_signals(self) -> None:
        """Be asked by the first SIGTERM or SIGINT, and end at once with the second. SIGHUP calls `reload`, or asks when
        the terminal is gone.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        hangup = Hangup()
        loop.add_signal_handler(
            signal.SIGHUP, lambda: self._receive(signal.SIGHUP) if hangup.is_terminal_gone else self.reload()
        )

    def ask(self, *, is_replaced: bool = False) -> None:
        """Drain and end; `is_replaced` when another process takes the connections from now on."""
        if self.asked.is_set():
            return
        self.is_replaced = is_replaced
        self.asked.set()
        watchdog = threading.Timer(self._patience + WATCHDOG_SECONDS, leave, (0,))
        watchdog.daemon = True
        watchdog.start()

    async def interrupts(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do work that a signal stops; whether one did."""
        doing = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self.asked.wait())
        await asyncio.wait((doing, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait((doing,))
        if doing.cancelled():
            return True
        doing.result()
        return False

    def _note_reload(self) -> None:
        """Before there is anything to reload: it is done then."""
        self.is_reload_due = True

    def _receive(self, number: int) -> None:
        if self.asked.is_set():
            leave(128 + number)
        self.ask()


@contextlib.contextmanager
def bound_sockets(settings: ServerSettings) -> Iterator[list[socket.socket]]:
    """Sockets on every address of `server.host`, then those of `server.management_bind`, that do not listen yet.
    Refused when one cannot be had.
    """
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(sock) for sock in _sockets(settings.host, settings.port, mend=OTHER_PORT)]
        if settings.management_bind:
            host, _, port = settings.management_bind.rpartition(":")
            bound += [stack.enter_context(sock) for sock in _sockets(host.strip("[]"), int(port))]
        yield bound


def listen(sockets: Sequence[socket.socket]) -> None:
    """Take connections from now on; they wait until `serve` answers them. Refused when another process was faster."""
    for sock in sockets:
        host, port = sock.getsockname()[:2]
        try:
            sock.listen(BACKLOG)
        except OSError as error:
            raise _cannot_listen(f"{host} port {port}", error) from None


async def serve(
    app: Application,
    runtime: Runtime,
    sockets: Sequence[socket.socket],
    ending: Ending,
    *,
    tell_ready: Callable[[], None],
) -> None:
    """Answer requests until the end is asked for, then drain. Refused when the application does not start."""
    settings = runtime.settings.server

    async def drained(house: House) -> None:
        ending.reload = partial(_reload, house, is_tls=settings.is_tls)
        if ending.is_reload_due:
            ending.reload()
        _settle_memory()
        tell_ready()
        await ending.asked.wait()
        if ending.is_replaced:
            return
        runtime.is_draining = True
        log.info("draining", seconds=settings.graceful_timeout.total_seconds())
        service_manager.notify(service_manager.STOPPING)
        await asyncio.sleep(min(settings.drain_delay, settings.graceful_timeout).total_seconds())

    asyncio.get_running_loop().set_exception_handler(_tell_fault)
    limit_connections(settings)
    try:
        async with service_manager.watched():
            serve_them = _granian() if settings.server == "granian" else serve_sockets
            await serve_them(app, _config(settings), sockets, until=drained)
    except (LifespanFailureError, LifespanTimeoutError) as error:
        raise Refusal(f"The server did not start: {error}", code="not_started") from None
    log.info("stopped")


def _granian() -> Serve:
    from usermgmt.operator.granian_server import serve_sockets_by_granian  # noqa: PLC0415 - an extra

    return serve_sockets_by_granian


def _reload(house: House, *, is_tls: bool) -> None:
    """What SIGHUP does to one process: it goes on with the settings of its start, and with a renewed certificate."""
    service_manager.notify(*service_manager.reloading())
    if is_tls:
        house.renew_certificate()
    else:
        log.warning("nothing_reloaded", remedy="restart; or run several workers, which a reload replaces one by one")
    service_manager.notify(service_manager.READY)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in an event loop, uvloop's where it is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - Windows has none

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def _sockets(host: str, port: int, *, mend: str = "") -> Iterator[socket.socket]:
    """A socket on each address of a host; refused at the first that cannot be had, with `mend` where one is taken."""
    try:
        for family, address in _addresses(host, port):
            yield _bound(family, address)
    except OSError as error:
        raise _cannot_listen(f"{host} port {port}", error, mend=mend) from None


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """The addresses of a host; only the first when each would get another free port."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = [(int(family), address) for family, _, _, _, address in found]
    return addresses if port else addresses[:1]


def _bound(family: int, address: Any) -> socket.socket:  # an address has as many parts as its family wants
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(place: str, error: OSError, *, mend: str = "") -> Refusal:
    more = mend if error.errno == errno.EADDRINUSE else ""
    return Refusal(f"Cannot listen on {place}: {error.strerror}.{more}", code="cannot_listen")


def _config(settings: ServerSettings) -> Config:
    """Hypercorn's configuration: our log, no header that names the software."""
    logger = logging.getLogger("hypercorn.error")
    logger.setLevel(logging.WARNING)  # what it says at its start, we say
    config = FrugalConfig()
    config.graceful_timeout = max(0.0, (settings.graceful_timeout - settings.drain_delay).total_seconds())
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS
    config.h11_max_incomplete_size = INCOMPLETE_BYTES
    config.ssl_handshake_timeout = settings.head_timeout.total_seconds()
    if settings.is_tls:
        config.certfile, config.keyfile = settings.tls_certificate, settings.tls_key
        config.alpn_protocols = ["h2", "http/1.1"]
    config.accesslog = None
    config.errorlog = logger
    return config


def _settle_memory() -> None:
    """What the start made stays for good: the collector need not look at it again, nor look so often (a tenth of the
    processor under load).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def _tell_fault(loop: asyncio.AbstractEventLoop, fault: dict[str, Any]) -> None:
    """Log what went wrong outside of a request, but for connections that were dropped at the end or failed TLS."""
    if not isinstance(fault.get("exception"), asyncio.CancelledError | ssl.SSLError):
        loop.default_exception_handler(fault)
        if isinstance(error := fault.get("exception"), Exception):
            error_tracking.tell(error)


def leave(code: int) -> None:
    """End now, whatever still runs. What was logged is written out."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
