"""Which new passwords are accepted: by length and by what everybody would guess, never by composition (SP 800-63B)."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PRODUCT = "usermgmt"
SHIPPED = Path(__file__).with_name("common_passwords.txt")


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """Why a password is refused."""

    code: str
    detail: str


class PasswordPolicy:
    """The rule for new passwords. Existing ones are not measured by it."""

    def __init__(self, *, min_length: int, max_length: int, extra_blocklist: Path | None = None) -> None:
        """Lengths are in code points after NFC. `extra_blocklist` names a file of further refused passwords."""
        self._min_length = min_length
        self._max_length = max_length
        self._common = _shipped() | (_read(extra_blocklist) if extra_blocklist is not None else frozenset())

    def problem(self, password: str, *, names: Iterable[str] = ()) -> PolicyProblem | None:
        """What is wrong with a password, or None. `names` are the account's own."""
        text = unicodedata.normalize("NFC", password)
        if len(text) < self._min_length:
            return PolicyProblem("password_too_short", f"At least {self._min_length} characters.")
        if len(text) > self._max_length:
            return PolicyProblem("password_too_long", f"At most {self._max_length} characters.")
        folded = text.casefold()
        if folded in self._common:
            return PolicyProblem("password_too_common", "This is one of the passwords that everybody tries first.")
        if folded in _forbidden(names):
            return PolicyProblem("password_is_a_name", "A password must not be your own name or address.")
        return None


def _forbidden(names: Iterable[str]) -> set[str]:
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names}
    return folded | {name.partition("@")[0] for name in folded} | {PRODUCT}


@cache
def _shipped() -> frozenset[str]:
    return _read(SHIPPED)


def _read(path: Path) -> frozenset[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(unicodedata.normalize("NFC", line).casefold() for line in lines if line and line[0] != "#")
