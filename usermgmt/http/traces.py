"""The span of a request: begun when its client is known, named by its route, ended when it is answered.

Installed only where a collector is named, so that elsewhere a request takes no step more.
"""

from typing import Any

from quart import Quart, Request, Response, g
from quart.globals import request_ctx

from usermgmt.http import management
from usermgmt.telemetry import metrics, tracing

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"


def install(app: Quart) -> None:
    """Trace requests. Call where the pipeline has it, after the step that finds the client."""
    app.before_request(begin)
    app.after_request(note_answer)
    app.teardown_request(end)


async def begin() -> None:
    """Begin the span, within the trace of who calls (W3C Trace Context); probes and scrapes have none.

    Names and attributes are those of the semantic conventions, but for `url.path` and `url.query`: a client may have
    put anything there.
    """
    asked = request_ctx.request
    if asked.blueprint in management.BLUEPRINTS:
        return
    method = asked.method if asked.method in metrics.METHODS else "_OTHER"
    route = asked.url_rule.rule if asked.url_rule is not None else None
    name = "HTTP" if method == "_OTHER" else method
    client = g.caller.client
    g.span = tracing.begin_request(
        f"{name} {route}" if route else name,
        _trace_of(asked),
        {
            "http.request.method": method,
            "url.scheme": asked.scheme,
            "network.protocol.version": asked.http_version,
            "client.address": client.address or "",
            "usermgmt.request_id": client.request_id or "",
            **({"http.route": route} if route else {}),
        },
    )


async def note_answer(response: Response) -> Response:
    """Note how it was answered, and whom."""
    span = g.get("span")
    if span is None or not span.is_recorded:
        return response
    span.note(http__response__status_code=response.status_code)
    g.is_answered = True
    principal, problem = g.caller.principal, g.get("problem")
    if principal is not None:
        span.note(user__id=str(principal.user_id))
    if response.status_code >= 500:
        span.fail(problem.code if problem is not None else str(response.status_code))
    elif problem is not None:
        span.note(usermgmt__problem=problem.code)
    return response


async def end(_: BaseException | None) -> None:
    """End the span; one that was not answered has lost its client."""
    span = g.get("span")
    if span is None:
        return
    if span.is_recorded and not g.get("is_answered"):
        span.fail("client_left")
    span.end()


def _trace_of(asked: Request) -> dict[str, Any]:
    """The headers of the caller's trace; none when there are several, which mean nothing."""
    parents = asked.headers.getlist(TRACEPARENT)
    if len(parents) != 1:
        return {}
    return {TRACEPARENT: parents[0], TRACESTATE: ",".join(asked.headers.getlist(TRACESTATE))}
