"""The routes of the record. There is none that writes."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from quart import Blueprint, Response

from usermgmt.audit import service
from usermgmt.audit.models import AuditEvent
from usermgmt.audit.schemas import EventOut, EventPageOut, ListActivity, ListEvents
from usermgmt.errors import UserNotFound
from usermgmt.http.access import accepts_header, answers, limited, refuses, require
from usermgmt.http.answers import answer
from usermgmt.http.context import caller, principal, renewal, runtime
from usermgmt.http.paging import cursors_of, links, read_position
from usermgmt.http.streams import streamed, wants_stream
from usermgmt.permissions import Permission, RuleSet
from usermgmt.storage.pages import InvalidCursor, Page, list_digest

blueprint = Blueprint("audit", __name__, url_prefix="/api")


@blueprint.get("/audit")
@require(Permission.AUDIT_READ, confinable=True, rule_set=RuleSet.ADMIN)
@limited("admin")
@answers(200, EventPageOut, is_streamed=True)
@refuses(InvalidCursor)
@accepts_header("Accept")
async def list_events(query: ListEvents) -> Response:
    """List what is on record, newest first; with `Accept: application/x-ndjson` all of it, a document a line."""
    digest = _digest("audit", query)
    position = read_position(query.cursor, digest)
    if wants_stream():
        return streamed(_documents(service.stream_events(runtime(), caller(), query.filters(), renew=renewal())))
    page = await service.list_events(runtime(), caller(), query.filters(), position=position, limit=query.limit)
    return _page_answer(page, digest, reader=None)


@blueprint.get("/users/<user_ref:user_id>/activity")
@require(Permission.AUDIT_READ, or_self="user_id", confinable=True)
@limited("read")
@answers(200, EventPageOut)
@refuses(UserNotFound, InvalidCursor)
async def list_activity(user_id: UUID, query: ListActivity) -> Response:
    """List what is on record about a user, newest first."""
    digest = _digest(str(user_id), query)
    page = await service.list_activity(
        runtime(), caller(), user_id, query.filters(), position=read_position(query.cursor, digest), limit=query.limit
    )
    return _page_answer(page, digest, reader=service.untold_reader(caller(), user_id))


def _digest(what: str, query: ListActivity) -> bytes:
    """What a cursor is bound to: who lists what, by which conditions."""
    filters = query.model_dump(exclude={"limit", "cursor"})
    return list_digest(what, principal().user_id, *(filters[name] for name in sorted(filters)))


def _page_answer(page: Page[AuditEvent], digest: bytes, *, reader: UUID | None) -> Response:
    following, before = cursors_of(page, digest)
    items = [EventOut.of(event, reader=reader) for event in page.items]
    body = EventPageOut(items=items, next_cursor=following, prev_cursor=before)
    return answer(body, headers=links(following, before))


async def _documents(batches: AsyncIterator[Sequence[AuditEvent]]) -> AsyncIterator[list[EventOut]]:
    async for batch in batches:
        yield [EventOut.of(event) for event in batch]
