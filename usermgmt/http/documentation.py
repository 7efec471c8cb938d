"""The pages that explain the API: the specification, the interactive page, and one page for each error code.

Nothing is fetched from elsewhere: the interactive page's assets are vendored, and its policy allows no other source.
"""

import inspect
from functools import cache
from pathlib import Path

from quart import Blueprint, Response, render_template

from usermgmt.errors import NoSuchRoute
from usermgmt.http import openapi
from usermgmt.http.access import answers, public, refuses, unlimited
from usermgmt.http.context import runtime
from usermgmt.http.problems import error_named

blueprint = Blueprint("documentation", __name__, template_folder="templates")

ASSETS = Path(__file__).parent / "static" / "swagger-ui"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PROBLEM_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
CACHED = "public, max-age=300"


@blueprint.get("/openapi.json")
@public
@unlimited
@answers(200)
@refuses(NoSuchRoute)
async def specification() -> Response:
    """Return the specification (OpenAPI 3.1)."""
    _require_enabled()
    return Response(openapi.document(), mimetype="application/json", headers={"Cache-Control": CACHED})


@blueprint.get("/docs")
@public
@unlimited
@answers(200)
@refuses(NoSuchRoute)
async def page() -> Response:
    """Return the interactive page."""
    _require_enabled()
    return _html(await render_template("docs.html", title=openapi.TITLE), PAGE_POLICY)


@blueprint.get("/docs/<asset>")
@public
@unlimited
@answers(200)
@refuses(NoSuchRoute)
async def page_asset(asset: str) -> Response:
    """Return a part of the interactive page."""
    _require_enabled()
    found = _assets().get(asset)
    if found is None:
        raise NoSuchRoute
    return Response(found, mimetype=MEDIA_TYPES[Path(asset).suffix], headers={"Cache-Control": CACHED})


@blueprint.get("/problems/<slug>")
@public
@unlimited
@answers(200)
@refuses(NoSuchRoute)
async def problem(slug: str) -> Response:
    """Explain an error code."""
    error = error_named(slug)
    if error is None:
        raise NoSuchRoute
    return _html(await render_template("problem.html", error=error, meaning=inspect.getdoc(error)), PROBLEM_POLICY)


@cache
def _assets() -> dict[str, bytes]:
    """What the interactive page loads, by name: read once, and nothing but these can be asked for."""
    return {path.name: path.read_bytes() for path in ASSETS.iterdir() if path.suffix in MEDIA_TYPES}


def _require_enabled() -> None:
    if not runtime().settings.docs.enabled:
        raise NoSuchRoute


def _html(text: str, policy: str) -> Response:
    headers = {"Content-Security-Policy": policy, "X-Frame-Options": "DENY", "Cache-Control": CACHED}
    return Response(text, mimetype="text/html", headers=headers)
