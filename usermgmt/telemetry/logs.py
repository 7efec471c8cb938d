"""Logs: one line a record, JSON for machines or pretty for people, from us and from the libraries alike."""

import logging
import sys
from typing import Any

import structlog

from usermgmt.settings import LogsSettings

LIBRARIES = ("aiosqlite", "alembic", "asyncio", "asyncpg", "hypercorn.access", "sqlalchemy")


def configure_logs(settings: LogsSettings) -> None:
    """Send every record, the standard library's included, through one formatter to standard output."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
        last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback  # the richer one shows local variables, passwords among them
        last = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
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
