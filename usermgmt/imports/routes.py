"""The route that imports accounts from a file."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from itertools import chain

from quart import Blueprint, Response

from usermgmt.audit.events import Event
from usermgmt.errors import ApiError
from usermgmt.http.access import answers, emits, limited, receives, refuses, require
from usermgmt.http.context import caller, renewal, runtime
from usermgmt.http.streams import NDJSON, streamed
from usermgmt.http.uploads import Upload
from usermgmt.imports import service
from usermgmt.imports.batches import RowOutcome, RowReport
from usermgmt.imports.reading import Format, Line, UnreadableFile, read_lines
from usermgmt.imports.schemas import ImportedRow, ImportOut, ImportQuery
from usermgmt.imports.service import TooManyRefused, Totals
from usermgmt.permissions import Permission
from usermgmt.runtime import Runtime
from usermgmt.security.principal import Caller, Renew

blueprint = Blueprint("imports", __name__, url_prefix="/api/users")

FORMATS = {NDJSON: Format.NDJSON, "text/csv": Format.CSV}


@blueprint.post("/import")
@require(Permission.USERS_WRITE)
@limited("admin")
@receives(*FORMATS)
@emits(Event.USERS_IMPORTED)
@answers(200, ImportOut, is_lines=True)
@refuses(UnreadableFile, TooManyRefused)
async def import_users(upload: Upload, query: ImportQuery) -> Response:
    """Import users from a file, and answer line by line what becomes of each row; the last line is the sum.

    The file is received whole before its first row is looked at. Rows that are refused are reported, the others are
    made, until more than 100,000 are refused. An account that is there already under the same names is left as it is,
    so that a file can be sent again.
    """
    rows = await _rows(upload)
    return streamed(_documents(runtime(), caller(), renewal(), upload, rows, query))


async def _rows(upload: Upload) -> Iterator[Line]:
    """The rows of a file, the first of them read: one whose header cannot be read is refused as a whole."""
    lines = read_lines(upload.file, FORMATS[upload.media_type])
    try:
        first = await asyncio.to_thread(next, lines, None)
    except BaseException:
        upload.file.close()
        raise
    return chain([first] if first is not None else [], lines)


async def _documents(
    runtime: Runtime, caller: Caller, renew: Renew, upload: Upload, rows: Iterator[Line], query: ImportQuery
) -> AsyncIterator[Sequence[ImportedRow | ImportOut]]:
    totals = Totals()
    fault: ApiError | None = None
    with upload.file:
        try:
            async with aclosing(
                service.import_users(runtime, caller, rows, renew=renew, is_dry_run=query.dry_run)
            ) as batches:
                async for reports in batches:
                    totals.add(reports)
                    yield [ImportedRow.of(report) for report in reports if _is_told(report, query)]
        except ApiError as error:
            fault = error
        yield [ImportOut.of(totals, is_dry_run=query.dry_run, fault=fault)]


def _is_told(report: RowReport, query: ImportQuery) -> bool:
    return query.report == "all" or report.outcome is RowOutcome.REFUSED
