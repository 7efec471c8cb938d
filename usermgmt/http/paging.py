"""Pages in requests and answers: signed cursors in, cursors and a Link header (RFC 8288) out."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from quart.globals import request_ctx

from usermgmt.http.context import runtime
from usermgmt.storage.pages import Page, Position, read_cursor, write_cursor


def may_lag() -> bool:
    """Whether the client takes a list that is a moment old (RFC 9111, section 5.2.1.4)."""
    return not request_ctx.request.cache_control.no_cache


def read_position(cursor: str | None, digest: bytes) -> Position | None:
    """Where the page begins, or `InvalidCursor`."""
    return read_cursor(cursor, digest=digest, secrets=runtime().secrets) if cursor else None


def cursors_of(page: Page[Any], digest: bytes) -> tuple[str | None, str | None]:
    """The cursors of the next page and of the previous one, whatever is on it."""
    return _cursor(page.next, digest), _cursor(page.previous, digest)


def links(following: str | None, before: str | None) -> Mapping[str, str]:
    """The Link header of a page: the same query with other cursors."""
    asked = request_ctx.request
    kept = urlencode([(name, value) for name, value in asked.args.items() if name != "cursor"])
    base = f"{asked.path}?{kept}&cursor=" if kept else f"{asked.path}?cursor="
    named = (("next", following), ("prev", before))
    found = [f'<{base}{cursor}>; rel="{name}"' for name, cursor in named if cursor is not None]  # cursors are base64url
    return {"Link": ", ".join(found)} if found else {}


def _cursor(position: Position | None, digest: bytes) -> str | None:
    return write_cursor(position, digest=digest, secrets=runtime().secrets) if position is not None else None
