"""Cursors open the list they were made for and no other, and pages neither lose nor repeat a row."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from usermgmt.security.encoding import decode, encode
from usermgmt.security.secrets import Secrets
from usermgmt.storage.pages import (
    MAX_CURSOR,
    InvalidCursor,
    Page,
    Position,
    list_digest,
    page_of,
    read_cursor,
    write_cursor,
)

settings.register_profile("unhurried", deadline=None)  # a busy machine is no finding
settings.load_profile("unhurried")

OLD, NEW, OTHER = ("old-" * 10, "new-" * 10, "other-" * 10)
SECRETS = Secrets([NEW])
DIGEST = list_digest("ada", "created_at", None)

keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=320)  # as long as the longest key
times = st.datetimes(timezones=st.just(UTC))
positions = st.builds(Position, value=keys | times, row_id=st.uuids(), backwards=st.booleans())


@given(positions)
def test_a_cursor_is_read_as_it_was_written(position: Position):
    assert (
        read_cursor(write_cursor(position, digest=DIGEST, secrets=SECRETS), digest=DIGEST, secrets=SECRETS) == position
    )


@given(positions)
@example(Position("字" * 320, UUID(int=1)))
@example(Position("😀" * 320, UUID(int=1), backwards=True))
def test_a_cursor_is_short_enough_to_be_sent_back(position: Position):
    cursor = write_cursor(position, digest=DIGEST, secrets=SECRETS)
    assert len(cursor) <= MAX_CURSOR
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(positions, st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_a_cursor_opens_no_other_list(position: Position, parts: list[str | None]):  # H09
    cursor = write_cursor(position, digest=DIGEST, secrets=SECRETS)
    digest = list_digest(*parts)
    if digest != DIGEST:
        with pytest.raises(InvalidCursor):
            read_cursor(cursor, digest=digest, secrets=SECRETS)


@given(st.lists(st.text(max_size=5), max_size=5), st.lists(st.text(max_size=5), max_size=5))
def test_two_lists_have_one_digest_only_if_they_are_the_same(one: list[str], other: list[str]):
    assert (list_digest(*one) == list_digest(*other)) == (one == other)


@given(positions, st.data())
def test_a_cursor_that_was_changed_is_refused(position: Position, data: st.DataObject):  # H09
    cursor = write_cursor(position, digest=DIGEST, secrets=SECRETS)
    place = data.draw(st.integers(0, len(cursor) - 1))
    changed = data.draw(
        st.sampled_from([cursor[:place], cursor[place:], cursor[:place] + cursor[place + 1 :], cursor + "A"])
        | st.sampled_from("ABC-_=+/. é").map(lambda letter: cursor[:place] + letter + cursor[place + 1 :])
    )
    if changed != cursor:
        with pytest.raises(InvalidCursor):
            read_cursor(changed, digest=DIGEST, secrets=SECRETS)


@given(st.text(max_size=3_000) | st.binary(max_size=1_500).map(encode))
def test_no_text_is_taken_for_a_cursor(text: str):
    with pytest.raises(InvalidCursor):
        read_cursor(text, digest=DIGEST, secrets=SECRETS)


@given(positions)
def test_a_cursor_of_another_installation_is_refused_and_one_of_an_old_secret_is_not(position: Position):  # H09
    made_before = write_cursor(position, digest=DIGEST, secrets=Secrets([OLD]))
    assert read_cursor(made_before, digest=DIGEST, secrets=Secrets([NEW, OLD])) == position
    for secrets in (SECRETS, Secrets([OTHER]), Secrets([OTHER, NEW])):
        with pytest.raises(InvalidCursor):
            read_cursor(made_before, digest=DIGEST, secrets=secrets)


def test_a_signature_of_nothing_is_refused():
    cursor = write_cursor(Position("a", UUID(int=1)), digest=DIGEST, secrets=SECRETS)
    raw = decode(cursor) or b""
    for part in (raw[:16], raw[:17], b"", b"\0" * 16, b"\0" * 100):
        with pytest.raises(InvalidCursor):
            read_cursor(encode(part), digest=DIGEST, secrets=SECRETS)


# Pages

Row = tuple[str, UUID]
rows_of = st.lists(st.tuples(st.sampled_from("abc"), st.uuids()), max_size=40, unique_by=lambda row: row[1])


def find(rows: Sequence[Row], position: Position | None, limit: int) -> list[Row]:
    """What `page_statement` asks of a database, asked of a list."""
    if position is None:
        return sorted(rows)[: limit + 1]
    here = (str(position.value), position.row_id)
    if position.backwards:
        return sorted((row for row in rows if row < here), reverse=True)[: limit + 1]
    return sorted(row for row in rows if row > here)[: limit + 1]


def page(rows: Sequence[Row], position: Position | None, limit: int) -> Page[Row]:
    return page_of(find(rows, position, limit), position, limit, lambda row: row)


@given(rows_of, st.integers(1, 10))
def test_pages_forward_give_every_row_once_in_order(rows: list[Row], limit: int):
    seen: list[Row] = []
    here: Position | None = None
    while True:
        got = page(rows, here, limit)
        seen += got.items
        assert len(got.items) <= limit
        assert (got.previous is None) == (here is None or not got.items)
        if got.next is None:
            break
        assert len(got.items) == limit
        here = got.next
    assert seen == sorted(rows)


@given(rows_of, st.integers(1, 10))
def test_pages_backward_give_the_same_rows(rows: list[Row], limit: int):
    got = page(rows, None, limit)
    while got.next is not None:
        got = page(rows, got.next, limit)
    seen = list(got.items)
    while got.previous is not None:
        got = page(rows, got.previous, limit)
        seen = [*got.items, *seen]
        assert got.next is not None
    assert seen == sorted(rows)


@given(rows_of, st.integers(1, 5), st.tuples(st.sampled_from("abc"), st.uuids()), st.data())
def test_rows_that_come_or_go_between_pages_shift_nothing(
    rows: list[Row], limit: int, newcomer: Row, data: st.DataObject
):
    first = page(rows, None, limit)
    if first.next is None:
        return
    leaver = data.draw(st.sampled_from(first.items))
    now = [row for row in rows if row != leaver] + ([newcomer] if newcomer not in rows else [])
    second = page(now, first.next, limit)
    assert set(second.items) & set(first.items) == set()
    assert list(second.items) == [row for row in sorted(now) if row > first.items[-1]][:limit]


def test_a_time_keeps_its_microseconds_and_its_zone():
    position = Position(datetime(2026, 11, 23, 12, 0, 0, 1, UTC), UUID(int=1))
    cursor = write_cursor(position, digest=DIGEST, secrets=SECRETS)
    assert read_cursor(cursor, digest=DIGEST, secrets=SECRETS) == position
