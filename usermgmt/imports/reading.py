"""Reading files of accounts, a row at a time: one JSON object a line (NDJSON), or CSV with a header.

Every row comes with the number of the line that it begins on. What cannot be read is a row that says so; reading goes
on with the next, except where a file is not what its format says at all.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from usermgmt.errors import ApiError, Malformed

MAX_LINE_BYTES = 64 * 1024
LISTS = ("roles", "groups")
ATTRIBUTE = "attributes."
TRUTHS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Parse = Callable[[bytes], Mapping[str, Any]]
"""Reads one JSON object; raises `ApiError` for what is none."""


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


def read_lines(file: BinaryIO, form: Format, parse: Parse) -> Iterator[Line]:
    """The rows of a file, in order. Memory does not grow with them. Raises `UnreadableFile`."""
    return _ndjson(file, parse) if form is Format.NDJSON else _csv(file)


def _ndjson(file: BinaryIO, parse: Parse) -> Iterator[Line]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Line(number, {}, UnreadableRow(f"The line is longer than {MAX_LINE_BYTES} bytes."))
            continue
        text = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
        if not text:
            continue
        try:
            yield Line(number, parse(text))
        except ApiError as problem:
            yield Line(number, {}, problem)


def _csv(file: BinaryIO) -> Iterator[Line]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        names = [name.strip() for name in header]
        _check_header(names)
        while True:
            number = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                yield _row(number, names, cells)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableFile(f"After line {reader.line_num}: {error}.") from error
    finally:
        text.detach()  # whose file it is closes it


def _check_header(names: list[str]) -> None:
    if len(names) == 1 and ";" in names[0]:
        raise UnreadableFile("The columns are separated by semicolons; export them with commas.")
    if "username" not in names or "email" not in names:
        raise UnreadableFile("The first line must name the columns, username and email among them.")
    if len(set(names)) != len(names):
        raise UnreadableFile("The first line names a column twice.")


def _row(number: int, names: list[str], cells: list[str]) -> Line:
    if len(cells) != len(names):
        return Line(number, {}, UnreadableRow(f"The row has {len(cells)} columns, the first line {len(names)}."))
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
        found = json.loads(cell)
        if not isinstance(found, dict):
            raise ValueError("must be a JSON object")
        return found
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def write_cells(document: Mapping[str, Any], columns: list[str]) -> list[str]:
    """A row of CSV. A text that a spreadsheet would take for a formula gets an apostrophe, which reading takes away."""
    return [_written(document.get(column)) for column in columns]


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
