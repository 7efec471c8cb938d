"""Files that are made to cost much: without an end of a line, with nothing but bad rows, many at once."""

import asyncio
import io
import threading
import tracemalloc
from typing import Any

import pytest

from tests.imports.test_import_route import CSV, IMPORT, NDJSON, count, lines, person, rows
from tests.people import PASSWORD, Person, Server
from tests.problems import problem_of
from usermgmt.imports import queries, reading, service
from usermgmt.imports.reading import MAX_COLUMNS, MAX_LINE_BYTES, MAX_ROW_CHARACTERS, Format, UnreadableFile, read_lines

HEADER = b"username,email\n"
ADA, BOB = b"ada,ada@example.com\n", b"bob,bob@example.com\n"
MEBIBYTE = 1 << 20


@pytest.fixture
async def admin(server: Server) -> Person:
    """Who imports."""
    return await server.person("chief", roles=["admin"])


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.CSV, b"x" * 30 * MEBIBYTE),
        (Format.CSV, HEADER + b"x" * 30 * MEBIBYTE),
        (Format.CSV, HEADER + b'"' + b"x" * 30 * MEBIBYTE),
        (Format.CSV, HEADER + b'"' + b"x\n" * 15 * MEBIBYTE),
        (Format.CSV, HEADER + b'"a\n",' * 5 * MEBIBYTE),
        (Format.CSV, b"," * 30 * MEBIBYTE),
        (Format.NDJSON, b"x" * 30 * MEBIBYTE),
        (Format.NDJSON, b"[" * 30 * MEBIBYTE),
    ],
)
def test_no_more_than_a_row_is_in_memory(form: Format, text: bytes) -> None:
    file = io.BytesIO(text)
    tracemalloc.start()
    try:
        problems = [line.problem for line in read_lines(file, form)]
    except UnreadableFile as problem:
        problems = [problem]
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert problems
    assert None not in problems
    assert peak < 8 * MEBIBYTE


async def test_a_csv_file_without_line_ends_is_refused_whole(server: Server, admin: Person):
    for text in (b"username,email" * MAX_ROW_CHARACTERS, b'"' + b"x" * 2 * MAX_ROW_CHARACTERS):
        await problem_of(await admin.post(IMPORT, data=text, headers=CSV), 400, "unreadable_file")
    assert await count(server) == 1


async def test_a_row_that_is_too_long_is_refused_and_the_others_are_made(server: Server, admin: Person):
    long = b"x" * (MAX_ROW_CHARACTERS + 1) + b"\n"
    first, bad, last, total = await lines(await admin.post(IMPORT, data=HEADER + ADA + long + BOB, headers=CSV))
    assert (first["outcome"], last["outcome"], total["refused"]) == ("created", "created", 1)
    assert (bad["line"], bad["code"], last["line"]) == (3, "unreadable_row", 4)
    long = b"x" * (MAX_LINE_BYTES + 1) + b"\n"
    text = rows(person("eve")) + long + rows(person("tim"))
    first, bad, last, total = await lines(await admin.post(IMPORT, data=text, headers=NDJSON))
    assert (first["outcome"], bad["code"], last["outcome"]) == ("created", "unreadable_row", "created")
    assert await count(server) == 5


async def test_a_quote_that_does_not_end_says_where_the_file_ends(server: Server, admin: Person):
    text = HEADER + ADA + b'"' + b"x,y\n" * MAX_ROW_CHARACTERS
    *_, total = await lines(await admin.post(IMPORT, data=text, headers=CSV))
    assert (total["code"], total["created"]) == ("unreadable_file", 0)
    assert await count(server) == 1


async def test_columns_have_a_number(admin: Person):
    names = [f"attributes.a{number}" for number in range(MAX_COLUMNS - 2)]
    header = ",".join(["username", "email", *names])
    row = "ada,ada@example.com," + "," * (MAX_COLUMNS - 3)
    first, _ = await lines(await admin.post(IMPORT, data=f"{header}\n{row}\n".encode(), headers=CSV))
    assert first["outcome"] == "created"
    text = f"{header},attributes.more\n{row},\n".encode()
    problem = await problem_of(await admin.post(IMPORT, data=text, headers=CSV), 400, "unreadable_file")
    assert str(MAX_COLUMNS) in problem["detail"]


async def test_the_line_ends_of_every_system_are_ends_of_lines(admin: Person):
    for number, end in enumerate((b"\r\n", b"\r", b"\n")):
        text = end.join([b"username,email,display_name", b'u%d,u%d@example.com,"A' % (number, number), b'B"', b""])
        refused, total = await lines(await admin.post(IMPORT, data=text, headers=CSV))
        assert (refused["line"], refused["code"], total["refused"]) == (
            2,
            "validation_failed",
            1,
        )  # a name has one line


@pytest.mark.parametrize(("headers", "start"), [(NDJSON, b""), (CSV, HEADER)])
async def test_a_file_of_empty_lines_is_given_up(
    admin: Person, headers: dict[str, str], start: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "MAX_EMPTY_LINES", 10)
    some = await admin.post(IMPORT, data=start + b"\n" * 10, headers=headers)
    assert (await lines(some))[-1] == {"created": 0, "exists": 0, "refused": 0, "dry_run": False}
    await problem_of(await admin.post(IMPORT, data=start + b"\n" * 11, headers=headers), 400, "unreadable_file")


async def test_an_import_ends_when_too_many_rows_are_refused(
    server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service, "BATCH", 5)
    monkeypatch.setattr(service, "MOST_REFUSED", 20)
    good, bad = rows(person("ada")), b"{}\n"
    *_, total = await lines(await admin.post(IMPORT, data=good + bad * 20 + rows(person("bob")), headers=NDJSON))
    assert (total["created"], total["refused"], total.get("code")) == (2, 20, None)
    *told, total = await lines(await admin.post(IMPORT, data=rows(person("eve")) + bad * 200, headers=NDJSON))
    assert (total["created"], total["code"]) == (1, "too_many_refused")
    assert 20 < total["refused"] == len(told) - 1 < 50
    assert await count(server) == 4


async def test_rows_whose_password_is_hashed_here_are_in_smaller_batches(
    server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service, "BATCH", 6)
    monkeypatch.setattr(service, "HASHED", 3)
    hashed = [{**person(f"hashed{number}"), "password": PASSWORD} for number in range(4)]
    plain = [person(f"plain{number}") for number in range(6)]
    *_, total = await lines(await admin.post(IMPORT, data=rows(*hashed, *plain), headers=NDJSON))
    assert total["created"] == 10
    assert sorted(event.details["count"] for event in await server.events("users.imported")) == [2, 2, 6]


async def test_rows_that_are_refused_are_not_asked_about(
    server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    listed = queries.list_owners

    async def counted(session: Any, names: Any) -> Any:
        asked.append(len(names))
        return await listed(session, names)

    monkeypatch.setattr(queries, "list_owners", counted)
    assert (await lines(await admin.post(IMPORT, data=b"{}\n" * 50, headers=NDJSON)))[-1]["refused"] == 50
    assert asked == []


async def test_files_that_are_sent_together_take_turns(server: Server, admin: Person, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "BATCH", 100)
    read, busy, met = service._read_batch, threading.Lock(), []

    def alone(*arguments: Any) -> Any:
        met.append(busy.acquire(blocking=False))
        try:
            return read(*arguments)
        finally:
            if met[-1]:
                busy.release()

    monkeypatch.setattr(service, "_read_batch", alone)
    files = [rows(*(person(f"u{each}x{number}") for number in range(1_000))) for each in range(4)]
    answers = await asyncio.gather(
        *(admin.post(f"{IMPORT}?report=refused", data=file, headers=NDJSON) for file in files)
    )
    assert [(await lines(answer))[-1]["created"] for answer in answers] == [1_000] * 4
    assert len(met) >= 40
    assert all(met)
