"""Time as an argument: what is built once per process asks this clock, so that tests can move it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""Before it nothing has happened that anybody could tell of."""
LEEWAY = timedelta(minutes=1)
"""How far the clock of another machine may go before this one's."""


def whole_milliseconds(moment: datetime) -> datetime:
    """The time as it is stored, and as clients read it. The last of the calendar, which a driver takes for infinity, is
    not among them.
    """
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Clock(Protocol):
    """Tells the present time."""

    def now(self) -> datetime:
        """The present time, aware, in UTC, in whole milliseconds: what is stored is exactly what clients read."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present time, aware, in UTC, in whole milliseconds."""
        # as `whole_milliseconds` of the present, at a third of its cost
        return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1_000, UTC)
