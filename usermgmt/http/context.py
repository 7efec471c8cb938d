"""What a handler may ask about the request it answers."""

from typing import cast

from quart import g, request
from quart.globals import app_ctx

from usermgmt.errors import MissingCredentials
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Client, Principal, Renew
from usermgmt.security.tokens import AccessClaims

EXTENSION = "usermgmt"

# `current_app` and `g` look up their context at each attribute; what every request asks a dozen times is asked of it.


def runtime() -> Runtime:
    """The runtime of the application."""
    return cast("Runtime", app_ctx._get_current_object().app.extensions[EXTENSION])


def caller() -> Caller:
    """Who calls, and from where."""
    return cast("Caller", app_ctx._get_current_object().g.caller)


def client() -> Client:
    """Where the call comes from."""
    return caller().client


def principal() -> Principal:
    """Who is signed in; `MissingCredentials` where nobody has to be and nobody is."""
    found = caller().principal
    if found is None:
        raise MissingCredentials
    return found


def renewal() -> Renew:
    """Asks again who calls, and whether they still may; also when the request itself is over."""
    return cast("Renew", g.renew)


def header(name: str) -> str | None:
    """A header of the request, if it has it."""
    return request.headers.get(name)


def method_and_path() -> str:
    """The request's method and path."""
    return f"{request.method} {request.path}"


def claims() -> AccessClaims | None:
    """What the verified access token says, if there is one."""
    return cast("AccessClaims | None", g.get("claims"))
