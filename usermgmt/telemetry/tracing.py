"""Traces of requests, their statements and their hashes, sent to a collector by OpenTelemetry, which is an extra.

Without `tracing.otlp_endpoint` nothing of it is imported and nothing is measured: every function here is a test of one
variable. What is sent is chosen here and in `http.traces`: routes and statements as they are written in the code, never
what a client put into a path, a query or a body, nor the values of a statement.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from usermgmt.settings import TracingSettings

if TYPE_CHECKING:
    from usermgmt.telemetry.spans import Spans, Step

_spans: "Spans | None" = None


def begin(settings: TracingSettings) -> None:
    """Trace from now on, if a collector is named."""
    global _spans  # noqa: PLW0603 - one for the process, as its metrics
    if settings.otlp_endpoint:
        from usermgmt.telemetry.spans import Spans  # noqa: PLC0415 - an extra that need not be installed

        _spans = Spans(settings)


def end() -> None:
    """Send what waits, for a moment, and trace no more. Blocks."""
    global _spans
    ending, _spans = _spans, None
    if ending is not None:
        ending.close()


def is_on() -> bool:
    """Whether this process traces."""
    return _spans is not None


def ids() -> dict[str, str]:
    """The ids of the trace and the span that this code runs in, as a line of the log tells them."""
    return _spans.ids() if _spans is not None else {}


def begin_request(name: str, caller: Mapping[str, str], attributes: Mapping[str, str | int]) -> "Step | None":
    """Begin the span of a request, within the trace that its caller's headers name (W3C Trace Context)."""
    return _spans.begin_request(name, caller, attributes) if _spans is not None else None


def begin_statement(system: str, statement: str) -> "Step | None":
    """Begin the span of a statement, within a request that is traced; else None."""
    return _spans.begin_statement(system, statement) if _spans is not None else None


def step(name: str) -> AbstractContextManager[object]:
    """A span around what is done in the block, within a request that is traced."""
    return _spans.step(name) if _spans is not None else nullcontext()


def hashing() -> AbstractContextManager[object]:
    """A span around a hash: its wait for a thread, and its computing."""
    return step("password hash")
