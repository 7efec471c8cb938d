"""What checks of an installation and of a deployment share: how they are listed, and that one cannot be made."""

from collections.abc import Iterator
from typing import Generic, TypeVar

Check = TypeVar("Check")


class NotChecked(Exception):
    """A check could not be made, and why; it says nothing about what would have been found."""


class Checks(Generic[Check]):
    """Checks in the order of their making."""

    def __init__(self) -> None:
        self._checks: list[Check] = []

    def append(self, check: Check) -> None:
        """List one more."""
        self._checks.append(check)

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)
