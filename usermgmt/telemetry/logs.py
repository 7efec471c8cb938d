"""Logs: one line a record, JSON for machines or pretty for people, from us and from the libraries alike.

Every line that is written for a request has its id, and its trace where requests are traced. No secret and no control
character gets into a line, whatever a library says.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from usermgmt.settings import LogsSettings
from usermgmt.telemetry import current_request, tracing
from usermgmt.telemetry.scrubbing import HIDDEN, clean, hides

LIBRARIES = (
    "aiosqlite",
    "alembic",
    "asyncio",
    "asyncpg",
    "hypercorn.access",
    "sqlalchemy",
    "urllib3",
)
ACCESS = "usermgmt.access"
"""The logger of the requests' lines, which hold nothing but what was checked: they are not searched for secrets."""

_Record = MutableMapping[str, Any]


def configure_logs(settings: LogsSettings, *, worker: int | None = None) -> None:
    """Send every record, the standard library's included, through one formatter to standard output.

    `worker` is the process id that every line of one of several workers tells.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request,
        *([_adding(worker=worker)] if worker is not None else []),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if settings.format == "json":
        last: Any = structlog.processors.JSONRenderer()
    else:
        plain = structlog.dev.plain_traceback  # the richer one shows local variables, passwords among them
        last = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _clean,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    hush_libraries()


def hush_libraries() -> None:
    """Keep out of the log what libraries say at their lower levels: among it every value of every statement."""
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    for told_by_us in ("opentelemetry", "sentry_sdk"):  # each fault once, not at every attempt
        logging.getLogger(told_by_us).setLevel(logging.CRITICAL)


def _add_request(_: Any, __: str, record: _Record) -> _Record:
    """Tell for which request a line is written, and in which trace."""
    request_id = current_request.request_id()
    if request_id is not None:
        record.setdefault("request_id", request_id)
    if tracing.is_on():
        record.update(tracing.ids())
    return record


def _adding(**facts: object) -> Any:
    def add(_: Any, __: str, record: _Record) -> _Record:
        record.update(facts)
        return record

    return add


def _clean(_: Any, __: str, record: _Record) -> _Record:
    """Take out what no line may have."""
    if record.get("logger") == ACCESS:
        return record
    return {
        key: HIDDEN if hides(key) else clean(value, keep_breaks=key in ("exception", "stack"))
        for key, value in record.items()
    }
