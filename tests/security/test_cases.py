"""Every attack and fault case has a test that names it, or says why not yet."""

import re
import tomllib
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))
LATER = {case for case, row in CASES.items() if "later" in row}


def covering() -> dict[str, set[str]]:
    """Which test files name which case."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("*.py"):
        if path == Path(__file__):
            continue
        for case in re.findall(r"\b[A-N][0-9]{2}\b", path.read_text(encoding="utf-8")):
            found.setdefault(case, set()).add(str(path.relative_to(TESTS)))
    return found


def test_there_are_123_cases():
    assert len(CASES) == 123
    assert all(row["case"] for row in CASES.values())


def test_every_case_is_covered_or_says_why_not():
    found = covering()
    assert {case for case in CASES if case not in found and case not in LATER} == set()


def test_what_is_left_for_later_is_a_short_list_that_nobody_forgets():
    assert set(covering()) & LATER == set(), "these are covered: take `later` away"
    assert all(len(CASES[case]["later"]) > 20 for case in LATER)
    assert len(LATER) <= 8
