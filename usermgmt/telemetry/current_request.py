"""The request that this code runs for, if any: its id, and how long it waited for the database."""

from contextvars import ContextVar


class _Request:
    """What is known of a request while it is answered."""

    __slots__ = ("id", "waited")

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.waited = 0.0


_current: ContextVar[_Request | None] = ContextVar("request", default=None)


def begin(request_id: str) -> None:
    """Sum up from nothing, for what runs in this context."""
    _current.set(_Request(request_id))


def add_wait(seconds: float) -> None:
    """Add a wait for the database; outside of a request, nothing."""
    request = _current.get()
    if request is not None:
        request.waited += seconds


def waited() -> float:
    """How long it waited for the database, in seconds."""
    request = _current.get()
    return request.waited if request is not None else 0.0


def request_id() -> str | None:
    """The id of the request; None outside of one."""
    request = _current.get()
    return request.id if request is not None else None
