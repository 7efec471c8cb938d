"""Time as an argument: what is built once per process asks this clock, so that tests can move it."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the present time."""

    def now(self) -> datetime:
        """The present time, aware, in UTC, in whole milliseconds: what is stored is exactly what clients read."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present time, aware, in UTC, in whole milliseconds."""
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
