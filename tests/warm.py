"""What an application works out anew at each start, though it comes out the same: once for all tests of a process.

A test starts an application of its own. Compiling its routes and its statements took two thirds of that.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from usermgmt.storage import engines

STATEMENTS = 4_000  # more than all of them


def keep_compiled() -> None:
    """Compile each route and each statement once. The engines, their pools and listeners stay apart."""
    Rule._compile_builder = _kept_builders(Rule._compile_builder)  # type: ignore[method-assign]
    engines.create_async_engine = _kept_dialects(engines.create_async_engine)  # type: ignore[attr-defined]


def _kept_builders(compile_builder: Callable[..., Any]) -> Callable[..., Any]:
    """The function that writes a route's address depends on the route alone."""
    built: dict[Any, Any] = {}

    def kept(rule: Rule, append_unknown: bool = True) -> Any:
        key = (rule.rule, repr(rule.defaults), tuple(rule._trace), append_unknown)
        if key not in built:
            built[key] = compile_builder(rule, append_unknown)
        return built[key]

    return kept


def _kept_dialects(create: Callable[..., AsyncEngine]) -> Callable[..., AsyncEngine]:
    """A statement is compiled for a dialect: engines whose dialects are equal share what was compiled. The dialects
    themselves stay apart, since listeners belong to them.
    """
    ready: dict[Any, Dialect] = {}
    compiled: LRUCache[Any, Any] = LRUCache(STATEMENTS)

    def kept(url: Any, **options: Any) -> AsyncEngine:
        engine = create(url, **options)
        sync = engine.sync_engine
        own, kind = sync.dialect, (sync.dialect.name, options.get("json_deserializer"))
        own.__class__ = _equal(cast("Any", type(own)), kind)
        first = ready.setdefault(kind, own)
        if getattr(first, "server_version_info", None) is not None:  # it has seen its server
            own.__dict__.update({name: value for name, value in vars(first).items() if name != "dispatch"})
            own.initialize = _nothing_more  # type: ignore[method-assign]
            sync._compiled_cache = compiled
        return engine

    return kept


def _nothing_more(connection: Any) -> None:
    """What an engine does at its first connection was done by another one."""


@cache
def _equal(dialect: Any, kind: Any) -> type[Dialect]:
    """A class whose dialects are equal."""
    body = {
        "__eq__": lambda self, other: type(self) is type(other),
        "__hash__": lambda _: hash(kind),
        "supports_statement_cache": True,
    }
    return type(dialect.__name__, (dialect,), body)
