"""What schemathesis must know and no schema can tell: our formats, and who signs out."""

import json
import os
import re
import secrets
import string
import threading
import time
from typing import Any
from urllib.request import Request, urlopen

import schemathesis
from hypothesis import strategies as st

from usermgmt.http import examples

LETTERS = st.text(string.ascii_lowercase, min_size=1, max_size=12)
ENTITY_TAG = st.builds('{}"{}"'.format, st.sampled_from(["", "W/"]), st.text("0123456789abc", max_size=4))
LARGEST = 10**18
RENEWAL_SECONDS = 300
RENEWING = threading.Lock()
OWN: dict[str, Any] = {
    "access_token": os.environ.get("FUZZ_TOKEN"),
    "refresh_token": os.environ.get("FUZZ_REFRESH_TOKEN"),
    "since": time.monotonic(),
}
ID = re.compile("[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
ROLE = re.compile("[a-z][a-z0-9_-]{0,63}")
RESTORE = "/api/users/{user_id}/restore"

schemathesis.openapi.format("username", st.builds("{}{}".format, LETTERS, st.integers(0, 10**9)))
schemathesis.openapi.format("email", st.builds("{}{}@example.com".format, LETTERS, st.integers(0, 10**9)))
schemathesis.openapi.format("display-name", st.text("Ada Lovelace é漢", min_size=1, max_size=30))
schemathesis.openapi.format("password", st.text(string.ascii_letters + "é漢🔑 ", min_size=20, max_size=60))
schemathesis.openapi.format("entity-tags", st.one_of(st.just("*"), ENTITY_TAG))
schemathesis.openapi.format("group-name", st.builds("{} {}".format, LETTERS, st.integers(0, 10**9)))
schemathesis.openapi.format("ip-address", st.ip_addresses().map(str))
schemathesis.openapi.format("ip-network", st.ip_addresses(network="203.0.113.0/24").map(str))
schemathesis.openapi.format("idempotency-key", st.text(string.ascii_letters + string.digits, min_size=8, max_size=40))


@schemathesis.serializer(*examples.FILES)
def as_file(context: Any, value: Any) -> bytes:
    """A file as it is; what is none, as JSON."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """A cursor is good for one list only: a made-up one is refused, as the specification says it is (400). And nobody
    locks the run out by force.
    """
    if query:
        query.pop("cursor", None)
        query.pop("force", None)
    return query


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Numbers of a user's attributes have at most 19 digits, which a schema of free-form documents cannot say. And
    nobody locks the run out by force.
    """
    if isinstance(body, dict) and body.get("force") is True:
        body = {**body, "force": False}
    return _bounded(body)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """What a schema can make up never signs anybody in: the specification's examples stand for credentials that do."""
    if (case.operation.path, case.body) == ("/api/auth/login", examples.BODIES["LogIn"]):
        case.body = _registered()
    elif (case.operation.path, case.body) == ("/api/auth/refresh", examples.BODIES["Refresh"]):
        case.body = {"refresh_token": _signed_in()["refresh_token"]}
    elif case.media_type == "text/csv":
        case.body = examples.FILES["text/csv"]  # no schema tells that the first line names the columns
    elif case.operation.path == RESTORE and _is_somebody((case.path_parameters or {}).get("user_id")):
        case.path_parameters["user_id"] = _deleted()  # whoever calls is not deleted, and who is cannot be made up
    if "FUZZ_TOKEN" in os.environ:
        _fill(case.operation.method.upper(), case.operation.path, case.path_parameters or {})
        if case.operation.path.endswith("/roles/{role}") and _is_id((case.query or {}).get("group")):
            case.query["group"] = _made("/api/groups", {"name": f"group {secrets.token_hex(8)}"})


def _fill(method: str, path: str, parameters: dict[str, Any]) -> None:
    """Put ids of what exists where well-formed ones stand, and somebody else where it would be the caller's end."""
    if _is_id(parameters.get("group_id")):
        parameters["group_id"] = _made("/api/groups", {"name": f"group {secrets.token_hex(8)}"})
    if _is_id(parameters.get("rule_id")):
        parameters["rule_id"] = _made("/api/ip-rules", {"network": "203.0.113.77", "action": "deny"})
    if _is_id(parameters.get("user_id")) and ("/members/" in path or path.endswith("/roles/{role}")):
        parameters["user_id"] = _signed_in()["user"]["id"]
    if path.endswith("/roles/{role}") and ROLE.fullmatch(str(parameters.get("role"))):
        parameters["role"] = "user"
    is_ending = (method == "DELETE" and "/sessions" in path) or path.endswith("/erase")
    if is_ending and (parameters.get("user_id") == "me" or _is_id(parameters.get("user_id"))):
        leaver = _signed_in()
        parameters["user_id"] = leaver["user"]["id"]
        if _is_id(parameters.get("session_id")):
            session = _call("GET", "/api/auth/session", token=leaver["access_token"])
            parameters["session_id"] = session["session"]["id"]


def _is_somebody(value: object) -> bool:
    return value == "me" or _is_id(value)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def _made(path: str, body: dict[str, str]) -> str:
    """The id of something that the caller makes."""
    return str(_call("POST", path, body, token=_own_token())["id"])


@schemathesis.auth(refresh_interval=None)
class Caller:
    """Calls as the account of FUZZ_TOKEN, or as nobody; whoever signs out is a new account, or it would be the end."""

    def get(self, case: Any, context: Any) -> str | None:
        """The access token to call with."""
        if "FUZZ_TOKEN" not in os.environ:
            return None
        return _signed_in()["access_token"] if case.operation.path == "/api/auth/logout" else _own_token()

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


def _own_token() -> str:
    """The caller's access token; a long run needs a fresh one now and then."""
    with RENEWING:
        if time.monotonic() - OWN["since"] > RENEWAL_SECONDS:
            pair = _call("POST", "/api/auth/refresh", {"refresh_token": OWN["refresh_token"]})
            OWN.update(pair, since=time.monotonic())
        return str(OWN["access_token"])


def _registered() -> dict[str, str]:
    """Make an account that nothing else knows; its credentials."""
    credentials = {"username": f"leaver{secrets.token_hex(8)}", "password": "correct horse battery staple"}
    _call("POST", "/api/users", {**credentials, "email": f"{credentials['username']}@example.com"})
    return credentials


def _signed_in() -> dict[str, Any]:
    """Such an account, and its tokens."""
    signed_in: dict[str, Any] = _call("POST", "/api/auth/login", _registered())
    return signed_in


def _deleted() -> str:
    """The id of such an account that is deleted."""
    signed_in = _signed_in()
    _call("DELETE", "/api/users/me", token=signed_in["access_token"])
    return str(signed_in["user"]["id"])


def _call(method: str, path: str, body: dict[str, str] | None = None, *, token: str | None = None) -> Any:
    """What the server answers; anything but a success is an error of the run."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers |= {"Authorization": f"Bearer {token}"} if token is not None else {}
    content = json.dumps(body).encode() if body is not None else None
    with urlopen(Request(f"{os.environ['FUZZ_URL']}{path}", content, headers, method=method)) as answer:
        return json.loads(answer.read() or b"null")
