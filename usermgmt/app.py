"""The application: its pipeline in order, its blueprints, and the checks that it does not start without."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from usermgmt.audit import seals
from usermgmt.audit import service as audit
from usermgmt.audit.routes import blueprint as audit_routes
from usermgmt.auth import service as auth
from usermgmt.auth.routes import blueprint as auth_routes
from usermgmt.chores import own_chores, shared_chores
from usermgmt.groups.routes import blueprint as group_routes
from usermgmt.health.routes import blueprint as health_routes
from usermgmt.health.routes import metrics_blueprint as metrics_routes
from usermgmt.http import (
    binding,
    budgets,
    connection,
    context,
    cross_origin,
    documentation,
    management,
    openapi,
    pipeline,
    plugins,
    problems,
    traces,
    uploads,
)
from usermgmt.http.access import marks_of
from usermgmt.http.clients import Clients
from usermgmt.http.converters import CONVERTERS
from usermgmt.http.routing import Application
from usermgmt.imports.routes import blueprint as import_routes
from usermgmt.ip_rules import in_force as ip_rules
from usermgmt.ip_rules.routes import blueprint as ip_rule_routes
from usermgmt.maintenance.service import doing
from usermgmt.personal_data.routes import blueprint as personal_data_routes
from usermgmt.roles.routes import blueprint as role_routes
from usermgmt.root_secrets import service as root_secrets
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.sessions.routes import blueprint as session_routes
from usermgmt.settings import Settings
from usermgmt.signing_keys import service as signing_keys
from usermgmt.signing_keys.routes import blueprint as signing_key_routes
from usermgmt.telemetry import error_tracking, tracing
from usermgmt.users.routes import blueprint as user_routes

BLUEPRINTS = (
    auth_routes,
    user_routes,
    import_routes,
    session_routes,
    personal_data_routes,
    role_routes,
    group_routes,
    ip_rule_routes,
    audit_routes,
    signing_key_routes,
    health_routes,
    documentation.blueprint,
)


class MarksMissing(RuntimeError):
    """A route does not say who may call it, or what it costs, so the application does not start."""


def create_app(settings: Settings, runtime: Runtime | None = None) -> Application:
    """Build the application. Nothing is connected before it starts serving.

    Raises `MarksMissing` when a route lacks its access mark or its budget, `PluginRefused` when a plugin cannot be
    served.
    """
    app = Application("usermgmt", static_folder=None)
    app.extensions[context.EXTENSION] = runtime or build_runtime(settings)
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body_bytes
    app.config["BODY_TIMEOUT"] = settings.server.request_timeout.total_seconds()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    connection.install(app, settings.server.transfer_seconds, is_fast=settings.server.fast_path)
    app.url_map.merge_slashes = False
    app.url_map.converters.update(CONVERTERS)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    if settings.metrics.enabled:
        app.register_blueprint(metrics_routes)
    owners = plugins.install(app, settings.plugins.blueprints)
    _bind_views(app, settings, owners)
    uploads.install(app, _upload_paths(app), settings.server.max_upload_bytes)
    openapi.install(app)
    problems.install(app)
    _install_pipeline(app, settings)
    _install_lifecycle(app, settings)
    return app


def _install_pipeline(app: Application, settings: Settings) -> None:
    """The order of things. Steps before a handler run from top to bottom, steps after it from bottom to top."""
    app.after_request(pipeline.finish)
    cross_origin.install(app, settings.cors)
    clients = Clients(settings.network)
    app.before_request(pipeline.identify_client(clients))
    if settings.tracing.otlp_endpoint:
        traces.install(app)
    if settings.server.management_bind:
        app.before_request(management.confine)
    app.before_request(pipeline.enforce_ip_rules(ip_rules.refuse_client))
    app.before_request(pipeline.read_credentials)
    budgets.install(app, app.extensions[context.EXTENSION])
    app.before_request(pipeline.authorise(auth.load_principal, ip_rules.refuse_principal, clients))
    app.after_request(pipeline.record_refusals(audit.record_refusal))


def _bind_views(app: Application, settings: Settings, owners: Mapping[str, str]) -> None:
    """Check each route's marks, then put the reading of bodies and queries before its handler."""
    unmarked = []
    for endpoint, view in app.view_functions.items():
        marks = marks_of(view)
        if marks.access is None or marks.budget is None:
            unmarked.append(f"{endpoint} (of {owners[endpoint]})" if endpoint in owners else endpoint)
            continue
        bound = binding.bound(view)
        budgets.declare(bound, marks.budget, settings)
        app.view_functions[endpoint] = bound
    if unmarked:
        raise MarksMissing(f"routes without an access mark or a budget: {', '.join(sorted(unmarked))}")


def _upload_paths(app: Application) -> frozenset[str]:
    """The paths whose bodies are files."""
    views = app.view_functions
    return frozenset(r.rule for r in app.url_map.iter_rules() if marks_of(views[r.endpoint]).media_types)


def _install_lifecycle(app: Application, settings: Settings) -> None:
    """Load what is kept in memory before the first request, keep it fresh, and close everything after the last."""

    @app.while_serving
    async def serve() -> AsyncGenerator[None, None]:
        runtime: Runtime = app.extensions[context.EXTENSION]
        tracing.begin(settings.tracing)
        error_tracking.begin(settings.errors)
        if tracing.is_on():
            runtime.database.trace_statements()
        await root_secrets.note_roots(runtime)
        runtime.ring = await signing_keys.prepare_ring(runtime)
        await ip_rules.refresh_rule_book(runtime)
        async with doing(runtime, own_chores(settings), shared_chores(settings)):
            yield
        await seals.log_checkpoint(runtime)
        await runtime.close()
        await asyncio.gather(asyncio.to_thread(tracing.end), asyncio.to_thread(error_tracking.end))
