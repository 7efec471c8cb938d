"""Finding the route of a request: by its path and its method, and by nothing else that a client sends."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from quart import Quart
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import MapAdapter, Rule

NOWHERE = " "  # no path has a space
FUNCTIONS = 1_024
PATHS, LONGEST_PATH = 1_024, 128  # that are remembered, at most

Match = tuple[Any | Rule, Mapping[str, Any]]
Matches = dict[tuple[str, str], Match]


class Application(Quart):
    """A Quart application that looks neither at `Host` nor at the query to find a route.

    The framework does, and fails before any of our code runs when a host is no domain name (`Host: .`) or a query is
    not UTF-8. It also drops the slashes of `//api/users`, which a proxy's rules for `/api/` would not have matched.
    """

    def __init__(self, *options: Any, **more: Any) -> None:
        super().__init__(*options, **more)
        self._ensured = lru_cache(FUNCTIONS)(super().ensure_async)
        self._matches: Matches = {}

    def ensure_async(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function as one that can be awaited. It is looked at once, and not at each of the ten times a request."""
        return self._ensured(func)

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
        if options or more != {"return_rule": True}:
            return super().match(*options, **more)
        asked = (self.default_method, self.path_info)
        found = self._matches.get(asked)
        if found is None:
            found = super().match(return_rule=True)
            if len(self.path_info) <= LONGEST_PATH:
                if len(self._matches) >= PATHS:
                    self._matches.clear()
                self._matches[asked] = found
        rule, arguments = found
        return rule, dict(arguments)
