"""The public signing keys, by which other services verify access tokens without calling us (RFC 7517)."""

from quart import Blueprint, Response

from usermgmt.http.access import answers, public, unlimited
from usermgmt.http.answers import answer
from usermgmt.http.context import runtime
from usermgmt.signing_keys.schemas import KeySetOut

blueprint = Blueprint("signing_keys", __name__)

CACHED_SECONDS = 30  # less than the time between publishing a key and signing with it


@blueprint.get("/.well-known/jwks.json")
@public
@unlimited
@answers(200, KeySetOut)
async def key_set() -> Response:
    """Return the public signing keys."""
    keys = [dict(key) for key in runtime().ring.jwks(runtime().clock.now())]
    return answer(KeySetOut(keys), headers={"Cache-Control": f"public, max-age={CACHED_SECONDS}"})
