"""Sentry's client without anything that it would gather by itself. Only `telemetry.error_tracking` imports this."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import sentry_sdk
import structlog
from sentry_sdk.utils import event_from_exception

from usermgmt import __version__
from usermgmt.settings import ErrorsSettings

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

CLOSE_SECONDS = 2.0
FRAME = (
    "abs_path",
    "filename",
    "function",
    "module",
    "lineno",
    "in_app",
    "context_line",
    "pre_context",
    "post_context",
)
EXCEPTION = ("type", "module", "mechanism")
EVENT = (
    "event_id",
    "timestamp",
    "level",
    "platform",
    "release",
    "environment",
    "server_name",
    "transaction",
    "sdk",
    "tags",
)

log = structlog.get_logger("usermgmt.errors")


class Sentry:
    """Sends faults from a thread of its own, out of a bounded queue; what does not fit is dropped."""

    def __init__(self, settings: ErrorsSettings) -> None:
        self._client = sentry_sdk.Client(
            dsn=settings.sentry_dsn.get_secret_value(),
            environment=settings.environment,
            release=f"usermgmt@{__version__}",
            sample_rate=settings.sample_rate,
            default_integrations=False,  # they gather requests, arguments, variables and lines of the log
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=_chosen,
            shutdown_timeout=CLOSE_SECONDS,
        )

    def tell(self, error: Exception, facts: Mapping[str, str]) -> None:
        """Put a fault into the queue. Whatever goes wrong with that, the request it belongs to goes on."""
        try:
            event, hint = event_from_exception(
                error, client_options=self._client.options, mechanism={"type": "usermgmt", "handled": False}
            )
            event["tags"] = dict(facts)
            if "route" in facts:
                event["transaction"] = f"{facts.get('method', '')} {facts['route']}".strip()
            self._client.capture_event(event, hint)
        except Exception as problem:  # noqa: BLE001 - the fault is in the log already
            log.warning("fault_not_told", reason=type(problem).__name__)

    def close(self) -> None:
        """Send what waits, unless it takes longer than `CLOSE_SECONDS`."""
        self._client.close(timeout=CLOSE_SECONDS)


def _chosen(event: "Event", _: "Hint") -> "Event":
    """The event with nothing but what is named here, whatever else the library of today puts into it."""
    given = cast("dict[str, Any]", event)
    values = given.get("exception", {}).get("values", [])
    chosen = {name: given[name] for name in EVENT if name in given}
    return cast("Event", {**chosen, "exception": {"values": [_exception(value) for value in values]}})


def _exception(value: Mapping[str, Any]) -> dict[str, Any]:
    stack = value.get("stacktrace")
    frames = stack.get("frames", []) if isinstance(stack, dict) else []
    return {
        **{name: value[name] for name in EXCEPTION if name in value},
        "value": "(its message is in the log, under the request id)",
        "stacktrace": {"frames": [{name: frame[name] for name in FRAME if name in frame} for frame in frames]},
    }
