"""The application: its pipeline in order, its blueprints, and the checks that it does not start without."""

import asyncio
from collections.abc import AsyncGenerator

import structlog
from quart import Quart
from quart_cors import cors

from usermgmt.audit import service as audit
from usermgmt.auth import service as auth
from usermgmt.auth.routes import blueprint as auth_routes
from usermgmt.health.routes import blueprint as health_routes
from usermgmt.http import binding, budgets, context, documentation, openapi, pipeline, problems
from usermgmt.http.access import marks_of
from usermgmt.http.converters import CONVERTERS
from usermgmt.http.routing import Application
from usermgmt.roles.routes import blueprint as role_routes
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.settings import Settings
from usermgmt.signing_keys import service as signing_keys
from usermgmt.signing_keys.routes import blueprint as signing_key_routes
from usermgmt.users.routes import blueprint as user_routes

BLUEPRINTS = (auth_routes, user_routes, role_routes, signing_key_routes, health_routes, documentation.blueprint)
EXPOSED_HEADERS = ("ETag", "Location", "Link", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID")
ALLOWED_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = structlog.get_logger("usermgmt")


class MarksMissing(RuntimeError):
    """A route says neither who may call it nor what it costs, so the application does not start."""


def create_app(settings: Settings, runtime: Runtime | None = None) -> Quart:
    """Build the application. Nothing is connected before it starts serving.

    Raises `MarksMissing` when a route lacks its access mark or its budget.
    """
    app = Application("usermgmt", static_folder=None)
    app.extensions[context.EXTENSION] = runtime or build_runtime(settings)
    app.config["MAX_CONTENT_LENGTH"] = settings.server.max_body_bytes
    app.config["BODY_TIMEOUT"] = settings.server.request_timeout.total_seconds()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.converters.update(CONVERTERS)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    _bind_views(app, settings)
    openapi.install(app)
    problems.install(app)
    _install_pipeline(app, settings)
    _install_lifecycle(app)
    return app


def _install_pipeline(app: Quart, settings: Settings) -> None:
    """The order of things. Steps before a handler run from top to bottom, steps after it from bottom to top."""
    app.after_request(pipeline.finish)
    cors(
        app,
        allow_origin=list(settings.cors.origins),
        allow_credentials=settings.cors.credentials,
        allow_headers=ALLOWED_HEADERS,
        allow_methods=METHODS,
        expose_headers=EXPOSED_HEADERS,
        max_age=600,
    )
    app.before_request(pipeline.identify_client)
    app.before_request(pipeline.read_credentials)
    app.before_request(pipeline.note_budget)
    budgets.install(app, app.extensions[context.EXTENSION])
    app.before_request(pipeline.authorise(auth.load_principal))
    app.after_request(pipeline.record_refusals(audit.record_refusal))


def _bind_views(app: Quart, settings: Settings) -> None:
    """Check each route's marks, then put the reading of bodies and queries before its handler."""
    unmarked = []
    for endpoint, view in app.view_functions.items():
        marks = marks_of(view)
        if marks.access is None or marks.budget is None:
            unmarked.append(endpoint)
            continue
        bound = binding.bound(view)
        budgets.declare(bound, marks.budget, settings)
        app.view_functions[endpoint] = bound
    if unmarked:
        raise MarksMissing(f"routes without an access mark or a budget: {', '.join(sorted(unmarked))}")


def _install_lifecycle(app: Quart) -> None:
    """Load the key ring before the first request and keep it fresh; close everything after the last."""

    @app.while_serving
    async def serve() -> AsyncGenerator[None, None]:
        runtime: Runtime = app.extensions[context.EXTENSION]
        runtime.ring = await signing_keys.prepare_ring(runtime)
        keeping = asyncio.create_task(_keep_ring(runtime))
        yield
        keeping.cancel()
        await runtime.close()


async def _keep_ring(runtime: Runtime) -> None:
    """Read the key ring again and again, so that a rotation elsewhere is known here before it signs."""
    while True:
        await asyncio.sleep(signing_keys.RELOAD_INTERVAL.total_seconds())
        try:
            runtime.ring = await signing_keys.load_ring(runtime)
        except Exception as error:  # noqa: BLE001 - whatever it is, the ring that is loaded stays good
            log.warning("key_ring_not_reloaded", reason=type(error).__name__)
