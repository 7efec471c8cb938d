"""What schemathesis must know and no schema can tell: our formats, and who signs out."""

import json
import os
import string
from typing import Any
from urllib.request import Request, urlopen

import schemathesis
from hypothesis import strategies as st

LETTERS = st.text(string.ascii_lowercase, min_size=1, max_size=12)
ENTITY_TAG = st.builds('{}"{}"'.format, st.sampled_from(["", "W/"]), st.text("0123456789abc", max_size=4))
LARGEST = 10**18
SPECIFIED_TOKEN = "umr1_AYkKXayW…"  # the example of the specification, which no server can have given

schemathesis.openapi.format("username", st.builds("{}{}".format, LETTERS, st.integers(0, 10**9)))
schemathesis.openapi.format("email", st.builds("{}{}@example.com".format, LETTERS, st.integers(0, 10**9)))
schemathesis.openapi.format("display-name", st.text("Ada Lovelace é漢", min_size=1, max_size=30))
schemathesis.openapi.format("password", st.text(string.ascii_letters + "é漢🔑 ", min_size=20, max_size=60))
schemathesis.openapi.format("entity-tags", st.one_of(st.just("*"), ENTITY_TAG))
schemathesis.openapi.format("idempotency-key", st.text(string.ascii_letters + string.digits, min_size=8, max_size=40))


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """A cursor is good for one list only: a made-up one is refused, as the specification says it is (400)."""
    if query:
        query.pop("cursor", None)
    return query


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Numbers of a user's attributes have at most 19 digits, which a schema of free-form documents cannot say."""
    return _bounded(body)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A made-up refresh token is never good: the specification's example stands for one that is."""
    if case.operation.path == "/api/auth/refresh" and case.body == {"refresh_token": SPECIFIED_TOKEN}:
        case.body = {"refresh_token": _tokens()["refresh_token"]}


@schemathesis.auth(refresh_interval=None)
class Caller:
    """Calls as the account of FUZZ_TOKEN, or as nobody; whoever signs out is somebody else, or it would be the end."""

    def get(self, case: Any, context: Any) -> str | None:
        """The access token to call with."""
        if "FUZZ_TOKEN" not in os.environ:
            return None
        return _tokens()["access_token"] if case.operation.path == "/api/auth/logout" else os.environ["FUZZ_TOKEN"]

    def set(self, case: Any, data: str | None, context: Any) -> None:
        """Put it where it belongs."""
        if data is not None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return value % LARGEST
    return value


def _tokens() -> dict[str, str]:
    """Sign the second account in."""
    address = f"{os.environ['FUZZ_URL']}/api/auth/login"
    body = json.dumps({"username": os.environ["FUZZ_USERNAME"], "password": os.environ["FUZZ_PASSWORD"]}).encode()
    with urlopen(Request(address, body, {"Content-Type": "application/json"})) as answer:
        tokens: dict[str, str] = json.load(answer)
        return tokens
