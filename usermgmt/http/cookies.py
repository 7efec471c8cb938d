"""The cookie mode for browser clients: the refresh token in a cookie that no script can read and no other site can use.

A cookie travels by itself, so a request that relies on one must say where it comes from: browsers do, in `Origin` and
`Sec-Fetch-Site`, which no page can forge. That replaces a token against request forgery. The name's prefix `__Host-`
makes browsers insist on Secure, on this very host and on the path `/`; only refreshing and signing out look at it.
"""

from urllib.parse import urlsplit

from quart import Response, request

from usermgmt.errors import Forbidden
from usermgmt.http.context import runtime

REFRESH_COOKIE = "__Host-usermgmt-refresh"


class CrossSite(Forbidden):
    """A request that relies on a cookie comes from another site, or does not say from where."""

    code = "cross_site_request"
    detail = "This request must come from a page of an allowed origin."


def is_cookie_mode() -> bool:
    """Whether refresh tokens travel in a cookie."""
    return runtime().settings.tokens.transport == "cookie"


def check_origin() -> None:
    """In cookie mode, refuse with `CrossSite` what an allowed page did not send."""
    if not is_cookie_mode() or request.headers.get("Sec-Fetch-Site") == "same-origin":
        return
    origins = request.headers.getlist("Origin")
    if len(origins) != 1 or origins[0] not in {*runtime().settings.cors.origins, _own_origin()} - {"*"}:
        raise CrossSite


def presented_refresh_token() -> str | None:
    """The refresh token of the cookie; None without one, or where cookies are not used."""
    return request.cookies.get(REFRESH_COOKIE) if is_cookie_mode() else None


def keep_refresh_token(response: Response, token: str, *, seconds: int) -> Response:
    """In cookie mode, have the browser keep a refresh token as long as it is good."""
    if is_cookie_mode():
        response.set_cookie(
            REFRESH_COOKIE, token, max_age=seconds, path="/", secure=True, httponly=True, samesite="Strict"
        )
    return response


def forget_refresh_token(response: Response) -> Response:
    """In cookie mode, have the browser drop the refresh token."""
    if is_cookie_mode():
        response.delete_cookie(REFRESH_COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response


def _own_origin() -> str:
    """The origin of this server's own pages."""
    base = urlsplit(runtime().settings.server.public_url)
    return f"{base.scheme}://{base.netloc}" if base.netloc else f"{request.scheme}://{request.host}"
