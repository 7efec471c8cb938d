"""Cells of CSV that hold what no line of NDJSON could: each has a row of its own, between two that are good."""

import csv
import io

COLUMNS = ["username", "email", "display_name", "password", "attributes", "attributes.plan"]
UNREADABLE, INVALID = "unreadable_row", "validation_failed"

# the column, the cell, the code of the row, the pointer of its first error
BAD_CELLS: list[tuple[str, str, str, str | None]] = [
    ("attributes", '{"a":' * 20_000 + "1" + "}" * 20_000, UNREADABLE, None),
    ("attributes", '{"a":' * 32 + "1" + "}" * 32, UNREADABLE, None),  # a line's attributes are its second level
    ("attributes", "[" * 60_000, UNREADABLE, None),
    ("attributes", r'{"a": "\ud800"}', UNREADABLE, None),
    ("attributes", '{"a": NaN}', UNREADABLE, None),
    ("attributes", '{"a": 1e999}', UNREADABLE, None),
    ("attributes", '{"a": ' + "1" * 20 + "}", UNREADABLE, None),
    ("attributes", '{"a": 1, "a": 2}', UNREADABLE, None),
    ("attributes", "{", UNREADABLE, None),
    ("attributes", "[]", INVALID, "/attributes"),
    ("attributes", r'{"a": "\u0000"}', INVALID, "/attributes/a"),
    ("attributes", '{"a": "\0"}', INVALID, "/attributes"),
    ("attributes.plan", "pro\0", INVALID, "/attributes/plan"),
    ("password", "a quite long\0password", INVALID, "/password"),
]


def bad_cells() -> str:
    """The file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerow({"username": "first", "email": "first@example.com"})
    for number, (column, cell, _, _) in enumerate(BAD_CELLS):
        writer.writerow({"username": f"bad{number}", "email": f"bad{number}@example.com", column: cell})
    writer.writerow({"username": "last", "email": "last@example.com", "attributes": '{"a":' * 31 + "1" + "}" * 31})
    return text.getvalue()
