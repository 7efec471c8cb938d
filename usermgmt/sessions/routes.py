"""The routes of sessions: who is signed in where."""

from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.errors import UserNotFound
from usermgmt.http.access import answers, emits, limited, refuses, require
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, principal, runtime
from usermgmt.permissions import Permission
from usermgmt.roles.service import ExceedsOwnRights
from usermgmt.sessions import service
from usermgmt.sessions.schemas import RevokeSessions, SessionsOut
from usermgmt.sessions.service import SessionNotFound, WhichSessions

blueprint = Blueprint("sessions", __name__, url_prefix="/api/users/<user_ref:user_id>/sessions")


@blueprint.get("")
@require(Permission.SESSIONS_MANAGE, or_self="user_id", confinable=True)
@limited("read")
@answers(200, SessionsOut)
@refuses(UserNotFound)
async def list_sessions(user_id: UUID) -> Response:
    """List the live sessions of a user, newest first."""
    sessions = await service.list_sessions(runtime(), caller(), user_id)
    return answer(SessionsOut.of(sessions, current=principal().session_id))


@blueprint.delete("")
@require(Permission.SESSIONS_MANAGE, or_self="user_id", confinable=True)
@limited("write")
@emits(Event.SESSION_REVOKED)
@answers(204)
@refuses(UserNotFound, ExceedsOwnRights)
async def revoke_sessions(user_id: UUID, query: RevokeSessions) -> Response:
    """End all sessions of a user, or with `scope=others` all but this one."""
    keep_current = query.scope is WhichSessions.OTHERS
    await service.revoke_sessions(runtime(), caller(), user_id, keep_current=keep_current)
    return no_content()


@blueprint.delete("/<id:session_id>")
@require(Permission.SESSIONS_MANAGE, or_self="user_id", confinable=True)
@limited("write")
@emits(Event.SESSION_REVOKED)
@answers(204)
@refuses(UserNotFound, ExceedsOwnRights, SessionNotFound)
async def revoke_session(user_id: UUID, session_id: UUID) -> Response:
    """End one session."""
    await service.revoke_session(runtime(), caller(), user_id, session_id)
    return no_content()
