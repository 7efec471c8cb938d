"""The routes of personal data: what is held about an account, and erasing it."""

from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.errors import UserNotFound
from usermgmt.http.access import answers, emits, limited, refuses, require
from usermgmt.http.answers import answer, no_content
from usermgmt.http.context import caller, runtime
from usermgmt.permissions import Permission
from usermgmt.personal_data import service
from usermgmt.personal_data.schemas import ExportOut
from usermgmt.roles.service import ExceedsOwnRights
from usermgmt.users.service import LastAdmin

blueprint = Blueprint("personal_data", __name__, url_prefix="/api/users/<user_ref:user_id>")


@blueprint.get("/export")
@require(Permission.USERS_EXPORT, or_self="user_id", confinable=True)
@limited("write")
@emits(Event.USER_EXPORTED)
@answers(200, ExportOut)
@refuses(UserNotFound)
async def export_user(user_id: UUID) -> Response:
    """Return everything that is held about a user."""
    export = await service.export_user(runtime(), caller(), user_id)
    return answer(ExportOut.of(export))


@blueprint.post("/erase")
@require(Permission.USERS_ERASE, confinable=True)
@limited("write")
@emits(Event.USER_ERASED)
@answers(204)
@refuses(UserNotFound, ExceedsOwnRights, LastAdmin)
async def erase_user(user_id: UUID) -> Response:
    """Erase a user for good, deleted before or not."""
    await service.erase_user(runtime(), caller(), user_id)
    return no_content()
