"""Notes every statement that the application runs, with where it would run and who asked for it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import greenlet
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

import usermgmt
from tests.scaling.placement import PLACES, Reference
from tests.scaling.reach import Reached, reach_of, text_refusals

PACKAGE = Path(usermgmt.__file__).parent
OF_NOBODY = ("storage", "telemetry")  # they run what others ask for


@dataclass(frozen=True, slots=True)
class Noted:
    """A statement that was run: during which operation, by which query, and where it would run."""

    during: str
    query: str
    text: str
    reached: Reached


class Recorder:
    """What was run so far; `during` is the operation that is being driven.

    What no query of the application asks for is the test's own and left out, unless `stranger` names it.
    """

    def __init__(self, *, stranger: str | None = None) -> None:
        self._stranger = stranger
        self.noted: list[Noted] = []
        self.during = ""
        self._next: Any = None
        self._fanned: dict[int, str] = {}  # connections whose transaction asked every node, and what it asked

    def note(
        self, connection: Connection, _cursor: Any, text: str, _parameters: Any, context: Any, _many: bool
    ) -> None:
        """Note one statement, as SQLAlchemy's event tells of it."""
        query = _asked_by(_frames()) or self._stranger
        if query is None:
            return
        statement = getattr(context.compiled, "statement", None) if context is not None else self._next
        statement = getattr(statement, "statement", statement)  # EXPLAIN of another
        if statement is None:
            reached = Reached(refusals=text_refusals(text))
        else:
            reached = reach_of(statement, text)
            self._check_order(connection, query, reached)
        self.noted.append(Noted(self.during, query, text, reached))

    def expect(self, _connection: Connection, statement: Any, *_: Any) -> None:
        """Note what is about to run: the driver runs some statements without a context that knows it."""
        self._next = statement

    def _check_order(self, connection: Connection, query: str, reached: Reached) -> None:
        """A table that is whole on every node cannot be changed in a transaction that asked every node before."""
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return
        before = self._fanned.get(id(connection.connection.dbapi_connection))
        if before is not None and reached.written and isinstance(PLACES[reached.written], Reference):
            reached.refusals.add(f"changes {reached.written} after {before} asked every node")
        if reached.everywhere:
            self._fanned[id(connection.connection.dbapi_connection)] = query

    def end(self, connection: Connection) -> None:
        """A transaction ended."""
        self._fanned.pop(id(connection.connection.dbapi_connection), None)

    @contextmanager
    def listening(self) -> Iterator["Recorder"]:
        """Note everything during the block."""
        event.listen(Engine, "before_execute", self.expect)
        event.listen(Engine, "before_cursor_execute", self.note)
        event.listen(Engine, "commit", self.end)
        event.listen(Engine, "rollback", self.end)
        try:
            yield self
        finally:
            event.remove(Engine, "before_execute", self.expect)
            event.remove(Engine, "before_cursor_execute", self.note)
            event.remove(Engine, "commit", self.end)
            event.remove(Engine, "rollback", self.end)

    def fan_outs(self) -> dict[str, set[str]]:
        """The queries that ask every node, and for which tables."""
        found: dict[str, set[str]] = {}
        for each in self.noted:
            if each.reached.everywhere:
                found.setdefault(each.query, set()).update(each.reached.everywhere)
        return found

    def refusals(self) -> dict[str, set[str]]:
        """The queries that Citus would refuse, and why."""
        found: dict[str, set[str]] = {}
        for each in self.noted:
            if each.reached.refusals:
                found.setdefault(each.query, set()).update(each.reached.refusals)
        return found


def _frames() -> Iterator[FrameType]:
    """Who called, innermost first: SQLAlchemy runs in a greenlet of its own, and the coroutines in its parent."""
    frame: FrameType | None = sys._getframe(1)
    inner: greenlet.greenlet | None = greenlet.getcurrent()
    while inner is not None:
        while frame is not None:
            yield frame
            frame = frame.f_back
        inner = inner.parent
        frame = inner.gr_frame if inner is not None else None


def _asked_by(frames: Iterator[FrameType]) -> str | None:
    """The query that a statement is part of: the innermost public function that is not of the storage."""
    for frame in frames:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(PACKAGE) or path.relative_to(PACKAGE).parts[0] in OF_NOBODY:
            continue
        if not re.match(r"[A-Z_<]|.*<locals>", frame.f_code.co_qualname):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            return f"{module}.{frame.f_code.co_name}"
    return None
