"""Proposing the settings of hashing: from what was measured, whatever the machine."""

from tests.operator.conftest import CommandLine
from usermgmt.operator.calibrate_command import LOWEST, measure, proposed


def test_it_proposes_the_highest_cost_within_the_target() -> None:
    measured = {10: 0.06, 11: 0.12, 12: 0.24, 13: 0.48}
    assert [proposed(measured, target) for target in (0.01, 0.06, 0.3, 0.48, 5)] == [LOWEST, 10, 12, 13, 13]


def test_it_stops_at_the_first_cost_that_is_too_dear() -> None:
    asked: list[int] = []
    measured = measure(0.0, hashed=asked.append)
    assert (list(measured), set(asked)) == ([LOWEST], {LOWEST})


def test_it_tells_what_to_set_and_what_is_set(line: CommandLine) -> None:
    told = line.document("passwords", "calibrate", "--target", "50")
    assert LOWEST <= told["bcrypt_cost"] <= 16
    assert told["now"]["bcrypt_cost"] == 4
    assert told["sign_ins_per_second"] > 0
    text = line.done("passwords", "calibrate", "--target", "50")
    assert f"passwords.bcrypt_cost = {told['now']['bcrypt_cost']}" in text
