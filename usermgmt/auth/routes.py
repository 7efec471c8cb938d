"""The routes of signing in and out."""

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.auth import refreshing, service
from usermgmt.auth.refreshing import SessionExpired, SessionRevoked
from usermgmt.auth.schemas import CurrentSessionOut, LogIn, LogOut, LogOutQuery, Refresh, SignedInOut, TokensOut
from usermgmt.auth.service import (
    InvalidCredentials,
    InvalidRefreshToken,
    TokenPair,
)
from usermgmt.errors import FieldError, MissingCredentials, Overloaded, SessionEnded, ValidationFailed
from usermgmt.http import cookies
from usermgmt.http.access import answers, authenticated, emits, identified, limited, public, refuses
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, claims, principal, runtime
from usermgmt.http.cookies import CrossSite
from usermgmt.sessions.service import WhichSessions
from usermgmt.throttle.service import TooManyAttempts

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth")


@blueprint.post("/login")
@public
@limited("login")
@emits(
    Event.LOGIN_SUCCEEDED,
    Event.LOGIN_FROM_NEW_NETWORK,
    Event.LOGIN_FROM_NEW_DEVICE,
    Event.LOGIN_FAILED,
    Event.LOGIN_THROTTLED,
    Event.PASSWORD_REHASHED,
    Event.SESSION_REVOKED,
)
@answers(200, SignedInOut)
@refuses(InvalidCredentials, TooManyAttempts, Overloaded, CrossSite)
async def log_in(body: LogIn) -> Response:
    """Sign in with a username or an e-mail address."""
    cookies.check_origin()
    signed_in = await service.log_in(runtime(), caller(), body.name, body.password)
    out = SignedInOut.with_user(signed_in, is_in_cookie=cookies.is_cookie_mode())
    return _with_tokens(answer(out), signed_in.tokens)


@blueprint.post("/refresh")
@public
@limited("refresh")
@emits(Event.SESSION_REFRESHED, Event.SESSION_REFRESH_REUSED)
@answers(200, TokensOut)
@refuses(InvalidRefreshToken, SessionExpired, SessionRevoked, TooManyAttempts, Overloaded, CrossSite)
async def refresh(body: Refresh | None) -> Response:
    """Exchange the refresh token for a new pair."""
    presented = _presented(body)
    pair = await refreshing.refresh(runtime(), caller(), presented)
    return _with_tokens(answer(TokensOut.of(pair, is_in_cookie=cookies.is_cookie_mode())), pair)


@blueprint.post("/logout")
@identified
@limited("refresh")
@emits(Event.SESSION_REVOKED)
@answers(204)
@refuses(MissingCredentials, InvalidRefreshToken, SessionEnded, CrossSite)
async def log_out(query: LogOutQuery, body: LogOut | None) -> Response:
    """End this session, or with `scope` the others or all."""
    if query.scope is not WhichSessions.THIS:
        await service.log_out_everywhere(runtime(), caller(), keep_this=query.scope is WhichSessions.OTHERS)
        return no_content() if query.scope is WhichSessions.OTHERS else cookies.forget_refresh_token(no_content())
    await service.log_out(runtime(), caller(), access_token=claims(), refresh_token=_presented_if_any(body))
    return cookies.forget_refresh_token(no_content())


@blueprint.get("/session")
@authenticated
@limited("read")
@answers(200, CurrentSessionOut)
async def current_session() -> Response:
    """Return the current session, its user, roles and permissions."""
    return answer(CurrentSessionOut.of(await service.get_current_session(runtime(), principal())))


def _presented(body: Refresh | None) -> str:
    """The refresh token of the body, or in cookie mode of the cookie."""
    presented = _presented_if_any(body)
    if presented is None and cookies.is_cookie_mode():
        raise InvalidRefreshToken
    if presented is None:
        raise ValidationFailed([_TOKEN_REQUIRED])
    return presented


def _presented_if_any(body: Refresh | LogOut | None) -> str | None:
    """A cookie counts only from an allowed page, and only where the body says nothing."""
    if body is not None and body.refresh_token is not None:
        return body.refresh_token
    cookie = cookies.presented_refresh_token()
    if cookie is not None:
        cookies.check_origin()
    return cookie


def _with_tokens(response: Response, pair: TokenPair) -> Response:
    return cookies.keep_refresh_token(response, pair.refresh_token, seconds=pair.refresh_expires_in)


_TOKEN_REQUIRED = FieldError(code="required", detail="This field is required.", pointer="/refresh_token")
