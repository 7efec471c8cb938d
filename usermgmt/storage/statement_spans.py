"""A span for each statement of a traced request, whether SQLAlchemy runs it or the driver alone."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from usermgmt.telemetry import tracing

if TYPE_CHECKING:
    from usermgmt.telemetry.spans import Step

_SPAN: "ContextVar[Step | None]" = ContextVar("statement_span", default=None)


def trace_statements(engine: AsyncEngine) -> None:
    """Make a span of each statement: its text, which has placeholders, and never the values in their places."""
    system = engine.dialect.name

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(*told: Any) -> None:  # SQLAlchemy's event passes its own things; the third is the text
        _SPAN.set(tracing.begin_statement(system, told[2]))

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(*_: Any) -> None:
        if (span := _taken()) is not None:
            span.end()

    @event.listens_for(engine.sync_engine, "handle_error")
    def fail(fault: ExceptionContext) -> None:
        fail_statement(fault.original_exception)


def fail_statement(error: BaseException) -> None:
    """End the span of the statement that failed so, marked by the kind of its fault."""
    if (span := _taken()) is not None:
        state = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
        span.fail(state or type(error).__name__)
        span.end()


def _taken() -> "Step | None":
    """The span of the statement that runs here, to be ended once: a commit that fails has none."""
    span = _SPAN.get()
    _SPAN.set(None)
    return span
