"""The steps before and after every handler. `app.py` lists them in their order; this module says what each does.

Cheap refusals come first: until `authorise` nothing touches the database, so a flood costs no connection.
"""

import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from quart import Request, Response, current_app, g, request
from quart.globals import request_ctx

from usermgmt.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidToken,
    MissingCredentials,
    PermissionMissing,
    RecentSignInRequired,
    SessionEnded,
    Unauthenticated,
)
from usermgmt.http import management
from usermgmt.http.access import AccessRule, Who, marks_of
from usermgmt.http.clients import Clients
from usermgmt.http.context import caller, claims, runtime
from usermgmt.http.converters import ME
from usermgmt.http.problems import problem_response
from usermgmt.permissions import Permission
from usermgmt.runtime import Runtime
from usermgmt.security.principal import MAX_USER_AGENT, Caller, Client, Principal, Renew
from usermgmt.security.tokens import AccessClaims
from usermgmt.telemetry import current_request, metrics
from usermgmt.telemetry.logs import ACCESS

PrincipalLoader = Callable[[Runtime, AccessClaims], Awaitable[Principal | None]]
ClientRefuser = Callable[[Runtime, Client, str | None], None]
PrincipalRefuser = Callable[[Runtime, Caller], None]
RefusalRecorder = Callable[[Runtime, Caller, str, str], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{8,128}")
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9._~+/=-]+)")
_CSP = "default-src 'none'; frame-ancestors 'none'"
_TELLING = ("debug", "info")  # the levels at which a request has its line
_HSTS = "max-age=31536000; includeSubDomains"

log = structlog.get_logger(ACCESS)


def identify_client(clients: Clients) -> Callable[[], Awaitable[None]]:
    """The step that finds who is at the other end, and the id of the request; a sane incoming one is kept."""

    async def identify() -> None:
        state, asked = g._get_current_object(), request_ctx.request
        state.started = time.perf_counter()
        given = asked.headers.get("X-Request-ID", "")
        state.request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(96):024x}"  # no secret
        current_request.begin(state.request_id)
        agent = asked.headers.get("User-Agent", "")[:MAX_USER_AGENT]
        state.caller = Caller(client=Client(clients.address_of(asked), agent or None, state.request_id))
        state.rule = _rule_of(asked)

    return identify


def enforce_ip_rules(refuse: ClientRefuser) -> Callable[[], Awaitable[None]]:
    """The step that refuses addresses that may not call at all, or not this route, before anything is verified.

    Health probes are never refused: they say nothing, and a rule must not take a server out of its balancer.
    """

    async def check() -> None:
        if request.blueprint == management.HEALTH or management.is_managing():
            return
        rule = g.rule
        refuse(runtime(), caller().client, rule.rule_set if rule is not None else None)

    return check


async def read_credentials() -> None:
    """Verify the access token's signature and claims, without any I/O. Whether it is needed, `authorise` says."""
    rule = g.rule
    if rule is None or rule.who is Who.ANYONE:
        return
    try:
        g.claims = _verified(request.headers.getlist("Authorization"))
    except Unauthenticated as error:
        g.credentials_error = error


def authorise(
    load_principal: PrincipalLoader, refuse_principal: PrincipalRefuser, clients: Clients
) -> Callable[[], Awaitable[None]]:
    """The step that loads the principal and checks the route's rule; `me` in the path becomes the caller's id."""

    async def check() -> None:
        rule = g.rule
        if rule is None or rule.who is Who.ANYONE:
            return
        principal = await _load(load_principal, rule)
        if principal is not None:
            g.caller = replace(caller(), principal=principal)
            clients.note(caller().client.address, principal.user_id)
            refuse_principal(runtime(), caller())
            _resolve_me(principal)
            g.renew = _renewal(load_principal, refuse_principal, rule)
        if rule.who is Who.SIGNED_IN and not (_is_open(rule) and principal is None):
            _check(rule, principal)

    return check


def record_refusals(record: RefusalRecorder) -> Callable[[Response], Awaitable[Response]]:
    """The step that puts every refusal of a known caller on record. What is not on record did not happen: if the
    record cannot be written the answer is 503.
    """

    async def note(response: Response) -> Response:
        problem = g.get("problem")
        if isinstance(problem, Forbidden) and caller().principal is not None:
            route = request.url_rule.rule if request.url_rule is not None else request.path
            try:
                await record(runtime(), caller(), f"{request.method} {route}", problem.code)
            except DatabaseUnavailable as error:
                return problem_response(error)
        return response

    return note


async def finish(response: Response) -> Response:
    """The headers that every answer has, and its line in the log."""
    headers, state = response.headers, g._get_current_object()
    present = {name.lower() for name, _ in headers}  # `setdefault` makes an exception for each that is not
    headers.add("X-Request-ID", state.request_id)
    headers.add("X-Content-Type-Options", "nosniff")
    headers.add("Referrer-Policy", "no-referrer")
    if "content-security-policy" not in present:
        headers.add("Content-Security-Policy", _CSP)
    if "cache-control" not in present:
        headers.add("Cache-Control", "no-store")
    if _is_secure():
        headers.add("Strict-Transport-Security", _HSTS)
    if state.rule is not None and state.rule.who is not Who.ANYONE:
        vary = headers.get("Vary")
        headers["Vary"] = f"{vary}, Authorization" if vary else "Authorization"
    _count(response)
    _log(response)
    return response


def _rule_of(asked: Request) -> AccessRule | None:
    """The rule of the matched route; None for preflights and for paths and methods that no route has."""
    if asked.routing_exception is not None or asked.endpoint is None or asked.method == "OPTIONS":
        return None
    view = current_app.view_functions.get(asked.endpoint)
    return marks_of(view).access if view is not None else None


def _verified(headers: list[str]) -> AccessClaims:
    """The claims of the one bearer token (RFC 6750, section 2.1); tokens elsewhere are not looked for."""
    if not headers:
        raise MissingCredentials
    match = _BEARER.fullmatch(headers[0])
    if len(headers) > 1 or match is None:
        raise InvalidToken
    return runtime().access_tokens.verify(match.group(1), now=runtime().clock.now())


async def _load(load_principal: PrincipalLoader, rule: AccessRule) -> Principal | None:
    """The principal of the token; what is wrong with it is raised where a route demands a good one."""
    error: Unauthenticated | None = g.get("credentials_error")
    verified = claims()
    principal = await load_principal(runtime(), verified) if verified is not None else None
    if principal is not None or rule.who is Who.IDENTIFIED:
        return principal
    if isinstance(error, MissingCredentials) and _is_open(rule):
        return None
    raise error or SessionEnded()


def _renewal(load_principal: PrincipalLoader, refuse_principal: PrincipalRefuser, rule: AccessRule) -> Renew:
    """What `renewal` gives: everything that it needs is taken from the request now."""
    at, before, verified = runtime(), caller(), claims()

    async def renew() -> Caller:
        principal = await load_principal(at, verified) if verified is not None else None
        if principal is None:
            raise SessionEnded
        if rule.permission is not None and not _holds(principal, rule, rule.permission):
            raise PermissionMissing
        renewed = replace(before, principal=principal)
        refuse_principal(at, renewed)
        return renewed

    return renew


def _is_open(rule: AccessRule) -> bool:
    return rule.or_when is not None and rule.or_when(runtime().settings)


def _check(rule: AccessRule, principal: Principal | None) -> None:
    if principal is None:
        raise MissingCredentials
    if rule.permission is not None and not _holds(principal, rule, rule.permission):
        is_own = rule.or_self is not None and (request.view_args or {}).get(rule.or_self) == principal.user_id
        if not is_own and not _is_open(rule):
            raise PermissionMissing
    if rule.fresh and not principal.is_fresh(runtime().settings.tokens.fresh_lifetime, at=runtime().clock.now()):
        raise RecentSignInRequired


def _holds(principal: Principal, rule: AccessRule, permission: Permission) -> bool:
    return permission in principal.rights.permissions or (rule.confinable and principal.rights.has_anywhere(permission))


def _resolve_me(principal: Principal) -> None:
    arguments = request.view_args or {}
    for name, value in arguments.items():
        if value is ME:
            arguments[name] = principal.user_id


def _is_secure() -> bool:
    return request.scheme == "https" or runtime().settings.server.public_url.startswith("https:")


def _count(response: Response) -> None:
    """Count the answer, and the token that it was asked with."""
    if not runtime().settings.metrics.enabled:
        return
    asked, state = request_ctx.request, g._get_current_object()
    route = asked.url_rule.rule if asked.url_rule is not None else None
    metrics.observe_request(asked.method, route, response.status_code, time.perf_counter() - state.started)
    verified = claims()
    if verified is not None:
        metrics.observe_token(verified.key_id)
    elif isinstance(state.get("credentials_error"), InvalidToken):
        metrics.observe_token(None)


def _log(response: Response) -> None:
    """One line a request, by the route and never by what a client put into a path or a query."""
    asked, state = request_ctx.request, g._get_current_object()
    if asked.blueprint in management.BLUEPRINTS or runtime().settings.logs.level not in _TELLING:
        return
    principal, problem = state.caller.principal, state.get("problem")
    log.info(
        "request",
        method=asked.method if asked.method in metrics.METHODS else "other",
        route=asked.url_rule.rule if asked.url_rule is not None else None,
        status=response.status_code,
        milliseconds=round((time.perf_counter() - state.started) * 1000, 1),
        database_milliseconds=round(current_request.waited() * 1000, 1),
        address=state.caller.client.address,
        user_id=str(principal.user_id) if principal is not None else None,
        request_id=state.request_id,
        code=problem.code if problem is not None else None,
    )
