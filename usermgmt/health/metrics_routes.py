"""What was counted, for Prometheus: on the management listener for whoever reaches it, elsewhere for a token."""

import asyncio
import hmac

from quart import Blueprint, Response, request

from usermgmt.errors import InvalidToken, MissingCredentials, NoSuchRoute
from usermgmt.health.measures import sample
from usermgmt.http.access import answers, public, refuses, unlimited
from usermgmt.http.context import runtime
from usermgmt.http.management import METRICS, is_managing
from usermgmt.telemetry import metrics

blueprint = Blueprint(METRICS, __name__)


@blueprint.get("/metrics")
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
