"""How long a request waited for the database, summed up beside it."""

from contextvars import ContextVar

_waited: ContextVar[list[float] | None] = ContextVar("database_seconds", default=None)


def begin() -> None:
    """Sum up from nothing, for what runs in this context."""
    _waited.set([0.0])


def add(seconds: float) -> None:
    """Add a wait; without a sum that was begun, nothing."""
    waited = _waited.get()
    if waited is not None:
        waited[0] += seconds


def spent() -> float:
    """The sum, in seconds."""
    waited = _waited.get()
    return waited[0] if waited is not None else 0.0
