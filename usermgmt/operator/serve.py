"""`usermgmt serve`: one process that serves, or one that supervises several, in production or for a first look."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from socket import socket
from typing import Any

import click
import structlog

from usermgmt import __version__
from usermgmt.operator import server as serving
from usermgmt.operator import service_manager
from usermgmt.operator.addresses import local_url
from usermgmt.operator.configuration import log_farewells, production_settings, reason_of, unfit, unusable
from usermgmt.operator.console import Console, Reason
from usermgmt.operator.development import Banner, development_settings
from usermgmt.operator.grammar import command, pass_console
from usermgmt.operator.startup import Prepared, built, plugin_reasons, prepare, refuse_unfit
from usermgmt.operator.supervisor import Supervisor
from usermgmt.permissions import ADMIN
from usermgmt.security.principal import OPERATOR
from usermgmt.settings import Settings
from usermgmt.settings.problems import common_problems
from usermgmt.settings.sources import SettingsError
from usermgmt.telemetry.logs import configure_logs
from usermgmt.users import service as users
from usermgmt.users.lists import Count, Filters, Order
from usermgmt.users.models import Status

OTHERS = 0o077  # what nobody else may do with the files of this process

log = structlog.get_logger("usermgmt.server")


@dataclass(slots=True)
class Start:
    """One start of the server: in which mode, with which flags."""

    console: Console
    is_development: bool
    flags: Mapping[str, object] = field(default_factory=dict)


@command()
@click.option("--dev", "is_development", is_flag=True, help="A first look: SQLite, generated secrets, a first admin.")
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=int, help="TCP port to listen on; 0 takes a free one (server.port).")
@click.option("--workers", type=int, help="Number of processes (server.workers).")
@click.option("--server", type=click.Choice(["hypercorn", "granian"]), help="Which server answers (server.server).")
@click.option("--migrate", is_flag=True, help="Apply pending migrations first (database.migrate).")
@click.option("--allow-sqlite", is_flag=True, help="Accept SQLite in production (database.allow_sqlite).")
@pass_console
def serve(
    console: Console,
    is_development: bool,
    host: str | None,
    port: int | None,
    workers: int | None,
    server: str | None,
    migrate: bool,
    allow_sqlite: bool,
) -> None:
    """Run the server.

    Without --dev it starts only when nothing is wrong, and otherwise tells every reason at once (exit code 78). SIGTERM
    and SIGINT let running requests finish within server.graceful_timeout; a second one ends at once. With several
    workers one that dies is replaced, and SIGHUP replaces all of them, one by one, with the settings of that moment;
    one process only reads its TLS certificate again. Exit codes: 0 ended as asked, 1 no worker could be kept alive, 78
    the settings are wrong.

    With --dev it keeps everything in server.data_dir: a SQLite database and a secret that it makes; the password of
    the first administrator is printed once.
    """
    flags = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "server.server": server,
        "database.migrate": migrate or None,
        "database.allow_sqlite": allow_sqlite or None,
    }
    start = Start(console, is_development, flags)
    settings = serving.run(lambda: _settings(start))
    configure_logs(settings.logs)
    log_farewells(settings)
    if settings.server.workers > 1:
        _supervise(start, settings)
    else:
        serving.run(lambda: _serve(start, settings))


def _supervise(start: Start, settings: Settings) -> None:
    """Bring everything to where workers can start, then keep them alive; ends the process."""
    with serving.bound_sockets(settings.server) as sockets, _counts(settings) as counts:
        if not serving.run(lambda: _prepare_shared(settings)):
            return
        url = local_url(settings.server.host, sockets[0].getsockname()[1], is_tls=settings.server.is_tls)
        flags = {**start.flags, "database.migrate": None}
        supervisor = Supervisor(
            settings,
            sockets,
            start.console.config,
            flags,
            lambda: log.info("serving", url=url, version=__version__, workers=settings.server.workers),
            counts,
        )
        sys.exit(supervisor.run())


@contextmanager
def _counts(settings: Settings) -> Iterator[str | None]:
    """A directory in which the workers count together, if they count."""
    if not settings.metrics.enabled:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="usermgmt-metrics-") as directory:
        yield directory


async def _prepare_shared(settings: Settings) -> bool:
    """Prepare what several processes share; False when a signal was faster."""
    ending = serving.Ending(settings.server.graceful_timeout.total_seconds())
    ending.obey_signals()

    async def once() -> None:
        await (await prepare(settings)).runtime.close()

    return not await ending.interrupts(once())


async def _serve(start: Start, settings: Settings) -> None:
    """One life of the server, from settings to the last answer."""
    ending = serving.Ending(settings.server.graceful_timeout.total_seconds())
    ending.obey_signals()
    found: list[Prepared] = []

    async def start_up() -> None:
        found.append(await prepare(settings, is_development=start.is_development))

    with serving.bound_sockets(settings.server) as sockets:
        if start.is_development:  # whoever makes the first administrator must be who prints its password
            serving.listen(sockets)
        if await ending.interrupts(start_up()):
            return
        try:
            await _serve_prepared(start, found[0], sockets, ending)
        finally:
            await found[0].runtime.close()


async def _serve_prepared(start: Start, prepared: Prepared, sockets: Sequence[socket], ending: serving.Ending) -> None:
    settings = prepared.runtime.settings
    app = built(settings, prepared.runtime)
    serving.listen(sockets)
    port: int = sockets[0].getsockname()[1]
    await _greet(start, prepared, local_url(settings.server.host, port, is_tls=settings.server.is_tls))
    tell_ready = partial(service_manager.notify, service_manager.READY)
    await serving.serve(app, prepared.runtime, sockets, ending, tell_ready=tell_ready)


async def _settings(start: Start) -> Settings:
    """The settings to start with; refused with every reason there is."""
    if start.is_development:
        return _development_settings(start)
    settings, reasons = production_settings(start.flags, start.console.config)
    await refuse_unfit(settings, reasons)
    assert settings is not None
    return settings


def _development_settings(start: Start) -> Settings:
    os.umask(OTHERS)
    try:
        settings = development_settings(start.flags, start.console.config)
    except SettingsError as error:
        raise unusable(error.problems) from None
    if reasons := [*map(reason_of, common_problems(settings)), *plugin_reasons(settings)]:
        raise unfit(reasons)
    if settings.server.workers > 1:
        raise unfit([Reason("must be 1 with --dev", "server.workers")])
    return settings


async def _greet(start: Start, prepared: Prepared, url: str) -> None:
    """Say that the server is up: with the banner in development, in the log otherwise."""
    settings = prepared.runtime.settings
    if not start.is_development:
        made: dict[str, Any] = {"made_admin": prepared.made_admin.username} if prepared.made_admin else {}
        log.info("serving", url=url, version=__version__, **made)
        return
    admin = prepared.made_admin.username if prepared.made_admin is not None else await _an_admin(prepared)
    banner = Banner(settings, url, prepared.made_admin, admin)
    start.console.show(banner.document, banner.text)


async def _an_admin(prepared: Prepared) -> str:
    """The name of one active administrator."""
    filters = Filters(role=ADMIN, status=Status.ACTIVE)
    found = await users.list_users(
        prepared.runtime, OPERATOR, filters, order=Order.CREATED, position=None, limit=1, count=Count.NONE
    )
    return found.page.items[0].user.username if found.page.items else ADMIN
