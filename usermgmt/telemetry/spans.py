"""Spans by OpenTelemetry's SDK. Only `telemetry.tracing` imports this, when a collector is named.

Spans wait in a bounded queue for a thread that sends them; when the collector is away they are dropped, the log says so
once, and requests notice nothing.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from uuid import uuid4

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from usermgmt import __version__
from usermgmt.settings import TracingSettings

EXPORT_SECONDS = 5.0
CLOSE_SECONDS = 2.0
LONGEST_STATEMENT = 2_000
_SUMMARY = re.compile(r"\s*(\w+)(?:.*?\b(?:FROM|INTO|UPDATE)\s+\"?(\w+))?", re.DOTALL)
_UPDATE = re.compile(r"\s*UPDATE\s+\"?(\w+)")

log = structlog.get_logger("usermgmt.tracing")


class Step:
    """A span that was begun."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def is_recorded(self) -> bool:
        """Whether what is noted is kept; it is not when the request was not chosen to be traced."""
        return self._span.is_recording()

    def note(self, **attributes: str | int) -> None:
        """Add attributes; `__` stands for a dot."""
        self._span.set_attributes({name.replace("__", "."): value for name, value in attributes.items()})

    def fail(self, kind: str) -> None:
        """Mark it as failed, by a kind of a bounded set: never by a message, which could tell a secret."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """It took until now."""
        self._span.end()


class Spans:
    """Begins spans and has them sent."""

    def __init__(self, settings: TracingSettings) -> None:
        exporter = _Exporter(OTLPSpanExporter(f"{settings.otlp_endpoint}/v1/traces", timeout=EXPORT_SECONDS))
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)), resource=_resource(), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("usermgmt", __version__)
        self._callers = TraceContextTextMapPropagator()

    def begin_request(self, name: str, caller: Mapping[str, str], attributes: Mapping[str, str | int]) -> Step:
        """Begin a span of the trace that the caller's headers name, and make it the one that others are within."""
        parent = self._callers.extract(caller, context=Context())
        span = self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER, attributes=dict(attributes))
        contexts.attach(trace.set_span_in_context(span))  # until the task of the request ends
        return Step(span)

    def begin_statement(self, system: str, statement: str) -> Step | None:
        """Begin a span, if this code runs within one that is recorded."""
        if not trace.get_current_span().is_recording():
            return None
        operation, table = _summary(statement)
        attributes = {
            "db.system.name": system,
            "db.operation.name": operation,
            "db.query.text": statement[:LONGEST_STATEMENT],
            **({"db.collection.name": table} if table else {}),
        }
        name = f"{operation} {table}" if table else operation
        return Step(self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A span around the block, if it runs within one that is recorded."""
        if not trace.get_current_span().is_recording():
            yield
            return
        span = self._tracer.start_span(name)
        try:
            yield
        except BaseException as error:
            Step(span).fail(type(error).__name__)
            raise
        finally:
            span.end()

    def ids(self) -> dict[str, str]:
        """The ids of the current span and its trace."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return {}
        return {"trace_id": f"{current.trace_id:032x}", "span_id": f"{current.span_id:016x}"}

    def close(self) -> None:
        """Send what waits, unless the collector takes longer than `CLOSE_SECONDS`."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


class _Exporter(SpanExporter):
    """Sends spans, and tells once that the collector does not take them, and once that it does again."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            log.warning("traces_not_taken", remedy="look at tracing.otlp_endpoint; requests go on, spans are dropped")
        elif self._is_failing and not is_failing:
            log.info("traces_taken_again")
        self._is_failing = is_failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _resource() -> Resource:
    """Who sends the spans; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME are stronger."""
    ours = Resource.create(
        {
            "service.name": "usermgmt",
            "service.version": __version__,
            "service.instance.id": str(uuid4()),
            "process.pid": os.getpid(),
        }
    )
    return ours.merge(OTELResourceDetector().detect())


@lru_cache(maxsize=512)
def _summary(statement: str) -> tuple[str, str | None]:
    """The operation of a statement and the first table it names."""
    if (updated := _UPDATE.match(statement)) is not None:
        return "UPDATE", updated[1]
    found = _SUMMARY.match(statement)
    return (found[1].upper(), found[2]) if found is not None else ("OTHER", None)
