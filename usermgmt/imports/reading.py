"""Reading files of accounts, a row at a time: one JSON object a line (NDJSON), or CSV with a header.

Every row comes with the number of the line that it begins on. What cannot be read is a row that says so; reading goes
on with the next, except where a file is not what its format says at all. No more than a row is in memory, whatever a
file is: one without an end of a line, or with nothing else.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, BinaryIO

from usermgmt.errors import ApiError, FieldError, InvalidBody, Malformed, ValidationFailed
from usermgmt.strict_json import MAX_DEPTH, NUL, escaped, parse_object

MAX_LINE_BYTES = 64 * 1024
MAX_ROW_CHARACTERS = 256 * 1024  # of CSV, with its quotes
MAX_COLUMNS = 1_000
MAX_EMPTY_LINES = 100_000
LISTS = ("roles", "groups")
ATTRIBUTE = "attributes."
TRUTHS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_BEGINS = r"(?<![^;\t\r\n])"  # a cell, whichever sign a spreadsheet takes for the end of the one before
_FORMULA = r"(?='*[=+\-@\t\r])"
UNMARKED = re.compile(_BEGINS + _FORMULA)
_MARKED = re.compile(_BEGINS + "'" + _FORMULA)


class Format(StrEnum):
    """The formats of a file of accounts."""

    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Line:
    """One row as it was read: its fields, or what keeps it from being read."""

    number: int
    fields: Mapping[str, Any]
    problem: ApiError | None = None


class UnreadableFile(Malformed):
    """The file as a whole cannot be read: nothing in it can."""

    code = "unreadable_file"
    detail = "The file is not of the format that it is said to be."


class UnreadableRow(Malformed):
    """One row of a file cannot be read."""

    code = "unreadable_row"
    detail = "The row cannot be read."


def read_lines(file: BinaryIO, form: Format) -> Iterator[Line]:
    """The rows of a file, in order. Memory does not grow with them. Raises `UnreadableFile`."""
    return _ndjson(file) if form is Format.NDJSON else _csv(file)


def _ndjson(file: BinaryIO) -> Iterator[Line]:
    number = empty = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Line(number, {}, UnreadableRow(f"The line is longer than {MAX_LINE_BYTES} bytes."))
            continue
        text = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
        if not text:
            empty = _counted(empty)
            continue
        try:
            yield Line(number, parse_object(text))
        except ApiError as problem:
            yield Line(number, {}, problem)


def _csv(file: BinaryIO) -> Iterator[Line]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    lines = _RowLines(text)
    reader = csv.reader(lines, strict=True)
    empty = 0
    try:
        header = next(reader, None)
        if header is None:
            return
        names = [name.strip() for name in header]
        _check_header(names)
        while True:
            lines.begin_row()
            number = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                yield _row(number, names, cells)
            elif lines.is_dropped:
                yield Line(number, {}, UnreadableRow(f"The row is longer than {MAX_ROW_CHARACTERS} characters."))
            else:
                empty = _counted(empty)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFile(f"After line {reader.line_num}: {error}.") from error
    finally:
        text.detach()  # whose file it is closes it


class _RowLines:
    """The lines of a CSV file, of which those of one row have a length. What is longer is dropped where its end is
    clear, which it is without quotes; elsewhere the file ends.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.begin_row()

    def begin_row(self) -> None:
        """What comes from now on is another row."""
        self._left = MAX_ROW_CHARACTERS
        self.is_dropped = False

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        if not line:
            raise StopIteration
        if len(line) > self._left:
            self._drop(line)
            return "\n"
        self._left -= len(line)
        return line

    def _drop(self, line: str) -> None:
        self.is_dropped = self._left == MAX_ROW_CHARACTERS
        while line:
            if not self.is_dropped or '"' in line:
                raise csv.Error(f"a row is longer than {MAX_ROW_CHARACTERS} characters")
            line = "" if line.endswith(("\n", "\r")) else self._text.readline(MAX_ROW_CHARACTERS)


def _counted(empty: int) -> int:
    """One more line that is empty."""
    if empty == MAX_EMPTY_LINES:
        raise UnreadableFile(f"More than {MAX_EMPTY_LINES} lines are empty.")
    return empty + 1


def _check_header(names: list[str]) -> None:
    if len(names) == 1 and ";" in names[0]:
        raise UnreadableFile("The columns are separated by semicolons; export them with commas.")
    if not names:
        raise UnreadableFile("The first line is empty, or too long to name columns.")
    if "username" not in names or "email" not in names:
        raise UnreadableFile("The first line must name the columns, username and email among them.")
    if len(names) > MAX_COLUMNS:
        raise UnreadableFile(f"The first line names more than {MAX_COLUMNS} columns.")
    if len(set(names)) != len(names):
        raise UnreadableFile("The first line names a column twice.")
    if any("\x00" in name for name in names):
        raise UnreadableFile("The first line has a NUL in a name.")


def _row(number: int, names: list[str], cells: list[str]) -> Line:
    if len(cells) != len(names):
        return Line(number, {}, UnreadableRow(f"The row has {len(cells)} columns, the first line {len(names)}."))
    if nul := [name for name, cell in zip(names, cells, strict=True) if "\x00" in cell]:
        return Line(number, {}, ValidationFailed([FieldError(*NUL, _pointer(name)) for name in nul]))
    fields: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    try:
        for name, cell in zip(names, cells, strict=True):
            if cell == "":
                continue
            if name.startswith(ATTRIBUTE):
                attributes[name.removeprefix(ATTRIBUTE)] = cell
            else:
                fields[name] = _cell(name, cell)
    except ValueError as error:
        return Line(number, {}, UnreadableRow(f"{name}: {error}."))
    except ValidationFailed as problem:
        return Line(number, {}, problem)
    if attributes:
        fields["attributes"] = {**fields.get("attributes", {}), **attributes}
    return Line(number, fields)


def _cell(name: str, cell: str) -> Any:
    """A cell as the type of its column."""
    if name in LISTS:
        return [each.strip() for each in cell.split(",") if each.strip()]
    if name == "email_verified":
        if cell.lower() not in TRUTHS:
            raise ValueError("must be true or false")
        return TRUTHS[cell.lower()]
    if name == "attributes":
        return _object(name, cell)
    return cell if name == "password" else _MARKED.sub("", cell)  # no export has passwords


def _object(name: str, cell: str) -> dict[str, Any]:
    """A cell of JSON, as strict as a line of NDJSON would be in its place."""
    try:
        return parse_object(cell.encode(), depth=MAX_DEPTH - 1)
    except InvalidBody as problem:
        raise ValueError(problem.detail.rstrip(".")) from None
    except ValidationFailed as problem:
        errors = [replace(each, pointer=f"{_pointer(name)}{each.pointer}") for each in problem.errors]
        raise ValidationFailed(errors) from None


def _pointer(name: str) -> str:
    """Where a column's value is in the row that it makes."""
    if name.startswith(ATTRIBUTE):
        return f"/attributes/{escaped(name.removeprefix(ATTRIBUTE))}"
    return f"/{escaped(name)}"
