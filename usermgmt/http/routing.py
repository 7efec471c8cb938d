"""Finding the route of a request: by its path and its method, and by nothing else that a client sends."""

from collections.abc import Callable, Mapping
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any

from quart import Quart
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import MapAdapter, Rule

NOWHERE = " "  # no path has a space
REMEMBERED_PATHS = 1_024
LONGEST_REMEMBERED = 128  # characters of a path

Match = tuple[Rule, Mapping[str, Any]]
Matches = dict[tuple[str, str], Match]


class Application(Quart):
    """A Quart application that looks neither at `Host` nor at the query to find a route.

    The framework does, and fails before any of our code runs when a host is no domain name (`Host: .`) or a query is
    not UTF-8. It also drops the slashes of `//api/users`, which a proxy's rules for `/api/` would not have matched.
    """

    def __init__(self, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        self._matches: Matches = {}

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as one that can be awaited. Most are coroutine functions, which is told by a look at a flag: the
        framework looks for marks and wrappers first, ten times a request.
        """
        if isinstance(func, FunctionType) and func.__code__.co_flags & CO_COROUTINE:
            return func
        return super().ensure_async(func)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Bind the routes to a request."""
        if request is None:
            return super().create_url_adapter(None)
        path = NOWHERE if request.scope["path"].startswith("//") else request.path
        return _Adapter(self._matches, self.url_map, "", request.root_path, "", request.scheme, path, request.method)


class _Adapter(MapAdapter):
    """The routes as one request sees them. Method and path alone decide, so that what they lead to is remembered."""

    def __init__(self, matches: Matches, *options: Any) -> None:
        super().__init__(*options)
        self._matches = matches

    def match(self, *options: Any, **more: Any) -> Match:
        """The route of this request; raises as the framework's does."""
        if self.websocket or options or more != {"return_rule": True}:
            return super().match(*options, **more)
        asked = (self.default_method, self.path_info)
        found = self._matches.get(asked)
        if found is None:
            found = super().match(return_rule=True)
            if len(self.path_info) <= LONGEST_REMEMBERED:
                if len(self._matches) >= REMEMBERED_PATHS:
                    self._matches.clear()
                self._matches[asked] = found
        rule, arguments = found
        return rule, dict(arguments)  # a copy: the pipeline puts this caller's id in the place of `me`
