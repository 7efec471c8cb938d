"""Probes, without credentials, budgets and lines in the log. And what was counted, for Prometheus: on the management
listener for whoever reaches it, elsewhere for a token.
"""

import asyncio
import hmac

from quart import Blueprint, Response, request

from usermgmt.errors import InvalidToken, MissingCredentials, NoSuchRoute
from usermgmt.health import service
from usermgmt.health.measures import sample
from usermgmt.health.schemas import LiveOut, ReadyOut
from usermgmt.http.access import answers, public, refuses, unlimited
from usermgmt.http.answers import answer
from usermgmt.http.context import runtime
from usermgmt.http.management import METRICS, is_managing
from usermgmt.telemetry import metrics

blueprint = Blueprint("health", __name__)
metrics_blueprint = Blueprint(METRICS, __name__)


@blueprint.get("/health/live")
@blueprint.get("/livez")
@blueprint.get("/healthz")
@public
@unlimited
@answers(200, LiveOut)
async def live() -> Response:
    """Tell that the process answers; asks nothing of anything else."""
    return answer(LiveOut())


@blueprint.get("/health/ready")
@blueprint.get("/readyz")
@public
@unlimited
@answers(200, ReadyOut)
@answers(503, ReadyOut)
async def ready() -> Response:
    """Tell whether requests can be served now."""
    readiness = await service.check_readiness(runtime())
    body = ReadyOut("ok" if readiness.is_ready else "unavailable", readiness.checks)
    if readiness.is_ready:
        return answer(body)
    return answer(body, 503, headers={"Retry-After": "1"})


@metrics_blueprint.get("/metrics")
@public
@unlimited
@answers(200)
@refuses(NoSuchRoute, MissingCredentials, InvalidToken)
async def tell_metrics() -> Response:
    """Return what was counted, in the text format of Prometheus."""
    if not is_managing():
        _require_token()
    await sample(runtime())
    return Response(await asyncio.to_thread(metrics.exposition), content_type=metrics.CONTENT_TYPE)


def _require_token() -> None:
    """Refuse who does not have `metrics.token`; without one there is nothing here."""
    expected = runtime().settings.metrics.token.get_secret_value()
    if not expected:
        raise NoSuchRoute
    given = request.headers.get("Authorization", "")
    if not given:
        raise MissingCredentials
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {expected}".encode()):
        raise InvalidToken
