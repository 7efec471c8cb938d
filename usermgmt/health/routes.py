"""Probes. No credentials, no budget, no line in the log."""

from quart import Blueprint, Response

from usermgmt.health import service
from usermgmt.health.schemas import LiveOut, ReadyOut
from usermgmt.http.access import answers, public, unlimited
from usermgmt.http.answers import answer
from usermgmt.http.context import runtime

blueprint = Blueprint("health", __name__)


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
