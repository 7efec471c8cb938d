"""What goes into and out of the route that imports accounts."""

from typing import Literal
from uuid import UUID

import msgspec
from pydantic import Field

from usermgmt.errors import ApiError
from usermgmt.http.fields import RequestModel
from usermgmt.imports.batches import RowReport
from usermgmt.imports.service import Totals


class ImportQuery(RequestModel):
    """How a file is imported."""

    dry_run: bool = Field(default=False, description="Check everything, change nothing.")
    report: Literal["all", "refused"] = Field("all", description="Which rows are reported.")


class ImportedRowError(msgspec.Struct, omit_defaults=True):
    """What is wrong with one field of a row."""

    pointer: str | None
    code: str
    detail: str


class ImportedRow(msgspec.Struct, omit_defaults=True):
    """What became of the row that begins on a line."""

    line: int
    outcome: str
    id: UUID | None = None
    code: str | None = None
    detail: str | None = None
    errors: list[ImportedRowError] = []

    @classmethod
    def of(cls, report: RowReport) -> "ImportedRow":
        """One row's outcome as a document."""
        errors = [ImportedRowError(each.pointer, each.code, each.detail) for each in report.errors]
        return cls(report.line, str(report.outcome), report.user_id, report.code, report.detail, errors)


class ImportOut(msgspec.Struct, omit_defaults=True):
    """The last line: how many rows had which outcome, and what cut the import short, if anything did."""

    created: int
    exists: int
    refused: int
    is_dry_run: bool = msgspec.field(name="dry_run")
    code: str | None = None
    detail: str | None = None

    @classmethod
    def of(cls, totals: Totals, *, is_dry_run: bool, fault: ApiError | None = None) -> "ImportOut":
        """The sum of an import."""
        code, detail = (fault.code, fault.detail) if fault is not None else (None, None)
        return cls(totals.created, totals.exists, totals.refused, is_dry_run, code, detail)
