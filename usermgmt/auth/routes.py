"""The routes of signing in and out, and the public signing keys."""

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.auth import service
from usermgmt.auth.schemas import CurrentSessionOut, LogIn, LogOut, Refresh, SignedInOut, TokensOut
from usermgmt.auth.service import (
    InvalidCredentials,
    InvalidRefreshToken,
    Scope,
    SessionExpired,
    SessionRevoked,
)
from usermgmt.errors import MissingCredentials, Overloaded, SessionEnded
from usermgmt.http.access import answers, authenticated, emits, identified, limited, public, refuses
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, claims, principal, runtime
from usermgmt.http.fields import RequestModel

blueprint = Blueprint("auth", __name__, url_prefix="/api/auth")


class LogOutQuery(RequestModel):
    """Which of the caller's sessions end."""

    scope: Scope = Scope.THIS


@blueprint.post("/login")
@public
@limited("login")
@emits(Event.LOGIN_SUCCEEDED, Event.LOGIN_FAILED, Event.PASSWORD_REHASHED)
@answers(200, SignedInOut)
@refuses(InvalidCredentials, Overloaded)
async def log_in(body: LogIn) -> Response:
    """Sign in with a username or an e-mail address."""
    signed_in = await service.log_in(runtime(), caller(), body.name, body.password)
    return answer(SignedInOut.with_user(signed_in))


@blueprint.post("/refresh")
@public
@limited("refresh")
@emits(Event.SESSION_REFRESHED, Event.SESSION_REFRESH_REUSED)
@answers(200, TokensOut)
@refuses(InvalidRefreshToken, SessionExpired, SessionRevoked)
async def refresh(body: Refresh) -> Response:
    """Exchange the refresh token for a new pair."""
    return answer(TokensOut.of(await service.refresh(runtime(), caller(), body.refresh_token)))


@blueprint.post("/logout")
@identified
@limited("refresh")
@emits(Event.SESSION_REVOKED)
@answers(204)
@refuses(MissingCredentials, InvalidRefreshToken, SessionEnded)
async def log_out(query: LogOutQuery, body: LogOut | None) -> Response:
    """End this session, or with `scope` the others or all."""
    if query.scope is not Scope.THIS:
        await service.log_out_everywhere(runtime(), caller(), keep_this=query.scope is Scope.OTHERS)
        return no_content()
    token = body.refresh_token if body is not None else None
    await service.log_out(runtime(), caller(), access_token=claims(), refresh_token=token)
    return no_content()


@blueprint.get("/session")
@authenticated
@limited("read")
@answers(200, CurrentSessionOut)
async def current_session() -> Response:
    """Return the current session, its user, roles and permissions."""
    return answer(CurrentSessionOut.of(await service.get_current_session(runtime(), principal())))
