"""Finding the route of a request: by its path and its method, and by nothing else that a client sends."""

from quart import Quart
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.routing import MapAdapter

NOWHERE = " "  # no path has a space


class Application(Quart):
    """A Quart application that looks neither at `Host` nor at the query to find a route.

    The framework does, and fails before any of our code runs when a host is no domain name (`Host: .`) or a query is
    not UTF-8. It also drops the slashes of `//api/users`, which a proxy's rules for `/api/` would not have matched.
    """

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Bind the routes to a request."""
        if request is None:
            return super().create_url_adapter(None)
        path = NOWHERE if request.scope["path"].startswith("//") else request.path
        return self.url_map.bind("", request.root_path, None, request.scheme, request.method, path)
