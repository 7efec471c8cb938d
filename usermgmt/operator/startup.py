"""What stands between the settings and the first request: the database, its schema, the roles, the first administrator.

`usermgmt serve` and `hypercorn asgi:app` start through here, so that neither serves what the other would refuse.
"""

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass

import structlog

from usermgmt.app import MarksMissing, create_app
from usermgmt.errors import DatabaseUnavailable
from usermgmt.http import plugins
from usermgmt.http.plugins import PluginRefused
from usermgmt.http.routing import Application
from usermgmt.operator import schema_state
from usermgmt.operator.bootstrap import MadeAdmin, has_active_admin, make_configured_admin, make_generated_admin
from usermgmt.operator.configuration import log_farewells, production_settings, unfit
from usermgmt.operator.connections import limit_connections
from usermgmt.operator.console import Exit, Reason, Refusal, tell_refusal
from usermgmt.operator.database_state import await_database, schema_reason
from usermgmt.operator.development import other_secret
from usermgmt.roles import queries as role_queries
from usermgmt.root_secrets.service import are_strangers, note_roots
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.settings import Settings
from usermgmt.signing_keys.service import prepare_ring
from usermgmt.telemetry.logs import configure_logs

PLUGINS = "plugins.blueprints"

log = structlog.get_logger("usermgmt.start")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A runtime that may serve, and the administrator that this start made, if it made one."""

    runtime: Runtime
    made_admin: MadeAdmin | None


async def prepare(settings: Settings, *, is_development: bool = False) -> Prepared:
    """Wait for the database, bring or check its schema, see to roles and the first administrator.

    Every step may be done by several processes at once. Refused, with nothing left open, when one cannot be done.
    """
    await _bring_schema(settings)
    runtime = build_runtime(settings)
    try:
        if is_development and await are_strangers(runtime):  # in production it is how a secret that leaked is replaced
            raise other_secret(settings)
        await note_roots(runtime)
        await prepare_ring(runtime)  # or each of several workers would make a first key that the others do not know yet
        return Prepared(runtime, await _prepare_accounts(runtime, is_development=is_development))
    except BaseException:
        await runtime.close()
        raise


async def refuse_unfit(settings: Settings | None, found: list[Reason]) -> None:
    """Refuse to start for these reasons, for plugins and, if the database can be asked at once, for its schema too."""
    if settings is not None:
        found = [*found, *plugin_reasons(settings)]
    if not found:
        return
    is_askable = not any(reason.where == "database.url" for reason in found)
    if settings is not None and is_askable and not settings.database.migrate:
        with suppress(DatabaseUnavailable):  # the other reasons are told; this one when they are mended
            reason = schema_reason(await schema_state.state(settings.database))
            if reason is not None:
                found.append(reason)
    raise unfit(found)


def application() -> Application:
    """The application for other ASGI servers, on the settings of the environment.

    Ends the process with exit code 78 and every reason on standard error where `usermgmt serve` would refuse: for its
    settings now, for its database when the server starts.
    """
    settings, reasons = production_settings()
    if settings is not None:
        reasons += plugin_reasons(settings)
    if settings is None or reasons:
        tell_refusal(unfit(reasons), is_json=False)
        sys.exit(Exit.CONFIGURATION)
    configure_logs(settings.logs)
    log_farewells(settings)
    limit_connections(settings.server)  # each worker process of Hypercorn comes here before it takes a connection
    app = built(settings)

    @app.before_serving
    async def check() -> None:
        try:
            prepared = await prepare(settings)
        except Refusal as refusal:
            log.critical("not_started", reasons=list(map(str, refusal.reasons)) or [refusal.message])
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # all there is to say was said
            sys.exit(refusal.exit_code)
        await prepared.runtime.close()

    return app


def built(settings: Settings, runtime: Runtime | None = None) -> Application:
    """The application. Refused as configuration when a route or a plugin is not fit to be served."""
    try:
        return create_app(settings, runtime)
    except MarksMissing as error:
        raise unfit([Reason(str(error))]) from None
    except PluginRefused as error:
        raise unfit([Reason(str(error), PLUGINS)]) from None


def plugin_reasons(settings: Settings) -> list[Reason]:
    """Why plugins cannot be served: of each that cannot be imported, else the first that has another fault."""
    reasons = []
    for path in settings.plugins.blueprints:
        try:
            plugins.load(path)
        except PluginRefused as error:
            reasons.append(Reason(str(error), PLUGINS))
    if not settings.plugins.blueprints or reasons or not settings.secret.keys:
        return reasons
    try:
        built(settings)
    except Refusal as refusal:
        return refusal.reasons
    return []


async def _bring_schema(settings: Settings) -> None:
    state = await await_database(settings.database)
    if state.is_newer_and_fit:
        log.warning("schema_of_a_newer_release", at=state.current, this_release=state.head)
    elif settings.database.migrate:
        if not state.is_current:
            log.info("migrating", at=state.current, to=state.head)
        from usermgmt.operator import migrations  # noqa: PLC0415 - alembic stays in memory: 7 MiB of every process

        with migrations.faults_told():
            await migrations.upgrade(settings.database)
    elif (reason := schema_reason(state)) is not None:
        raise unfit([reason])


async def _prepare_accounts(runtime: Runtime, *, is_development: bool) -> MadeAdmin | None:
    """See to it that new accounts have their role and that somebody may administer."""
    settings = runtime.settings
    async with runtime.database.read() as session:
        role = await role_queries.find_role(session, settings.registration.default_role)
    if role is None:
        raise unfit([Reason("names no role that exists", "registration.default_role")])
    if settings.bootstrap.admin_username:
        return await make_configured_admin(runtime)
    if is_development:
        return await make_generated_admin(runtime)
    if not await has_active_admin(runtime):
        log.warning("no_administrator", remedy="usermgmt admin create NAME EMAIL")
    return None
