"""The second listener, `server.management_bind`: probes and metrics, and nothing else."""

from quart import request

from usermgmt.errors import NoSuchRoute
from usermgmt.http.context import runtime

HEALTH, METRICS = "health", "metrics"
BLUEPRINTS = (HEALTH, METRICS)
"""What answers there; elsewhere too, without a line in the log."""


def is_managing() -> bool:
    """Whether this request came through the second listener."""
    bind = runtime().settings.server.management_bind
    server = request.scope.get("server")
    return bool(bind) and server is not None and bind.rpartition(":")[2] == str(server[1])


async def confine() -> None:
    """Refuse everything else there."""
    if is_managing() and request.blueprint not in BLUEPRINTS:
        raise NoSuchRoute
