"""What a command works with: a runtime on the database of the server that it administers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec

import structlog

from usermgmt.operator.configuration import operator_settings, require_secret
from usermgmt.operator.console import Console
from usermgmt.operator.database_state import require_schema
from usermgmt.operator.grammar import pass_console
from usermgmt.root_secrets.service import note_roots
from usermgmt.runtime import Runtime, build_runtime
from usermgmt.settings import Settings

P = ParamSpec("P")
WARNING = 30


def on_runtime(
    work: Callable[Concatenate[Console, Runtime, P], Coroutine[Any, Any, int | None]],
) -> Callable[P, int | None]:
    """Run an asynchronous command with a console and a runtime; what it gives is the exit code. Refused unless settings
    and schema allow it.
    """

    @pass_console
    def call(console: Console, /, *args: P.args, **kwargs: P.kwargs) -> int | None:
        async def run() -> int | None:
            async with opened(operator_settings(console)) as runtime:
                return await work(console, runtime, *args, **kwargs)

        return asyncio.run(run())

    return update_wrapper(call, work)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    """A runtime, closed with everything it started. Raises `DatabaseUnavailable`."""
    _log_to_standard_error()
    require_secret(settings)
    await require_schema(settings.database)
    runtime = build_runtime(settings)
    try:
        await note_roots(runtime)
        yield runtime
    finally:
        await runtime.close()


def _log_to_standard_error() -> None:
    """Keep warnings of the use cases out of what the command prints."""
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(WARNING),
    )
