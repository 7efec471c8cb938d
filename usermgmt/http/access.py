"""The marks above a handler: who may call it, what it costs, what it records, what it answers.

A mark stores a value on the function and gives the same function back, so no order of decorators can make it inert.
`pipeline` enforces the marks, `openapi` documents them, and the application does not start while one is missing.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from usermgmt.audit.events import Event
from usermgmt.errors import ApiError
from usermgmt.permissions import Permission
from usermgmt.settings import Settings

View = Callable[..., Any]  # handlers differ in their parameters; `binding` reads them
V = TypeVar("V", bound=View)

ACCESS, BUDGET, EVENTS, ERRORS, ANSWERS, HEADERS, MEDIA_TYPES = (
    f"_usermgmt_{name}" for name in ("access", "budget", "events", "errors", "answers", "headers", "media_types")
)


class BudgetName(StrEnum):
    """The rate budgets that settings define, one per name."""

    LOGIN = "login"
    REGISTER = "register"
    REFRESH = "refresh"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    UNKNOWN = "unknown"  # of paths and methods that do not exist
    NONE = "none"


class Who(StrEnum):
    """The three ways a route looks at credentials."""

    ANYONE = "anyone"  # credentials are not looked at
    IDENTIFIED = "identified"  # credentials are read, and refused by the use case if they do not do
    SIGNED_IN = "signed in"  # good credentials are required


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Who may call a route. Read as: somebody signed in who holds `permission`, or whose own account `or_self` names;
    or anybody at all when the settings say so (`or_when`). `confinable`: holding it over one group is enough to call,
    and the use case confines what is done to that group. `rule_set`: the set of IP rules that the caller's address must
    pass.
    """

    who: Who
    permission: Permission | None = None
    or_self: str | None = None
    or_when: Callable[[Settings], bool] | None = None
    fresh: bool = False
    confinable: bool = False
    rule_set: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """One success of a route: its status, the model of its body if it has one, and whether that may be or always is a
    stream of documents.
    """

    status: int
    model: type[Any] | None = None
    is_streamed: bool = False
    is_lines: bool = False


def public(view: V) -> V:
    """Anyone may call; credentials are not looked at."""
    return _mark(view, ACCESS, AccessRule(Who.ANYONE))


def identified(view: V) -> V:
    """Anyone may call; who it is, is found out if it can be, and the use case decides."""
    return _mark(view, ACCESS, AccessRule(Who.IDENTIFIED))


def authenticated(view: V) -> V:
    """Whoever is signed in may call."""
    return _mark(view, ACCESS, AccessRule(Who.SIGNED_IN))


def require(
    permission: Permission,
    *,
    or_self: str | None = None,
    or_when: Callable[[Settings], bool] | None = None,
    fresh: bool = False,
    confinable: bool = False,
    rule_set: str | None = None,
) -> Callable[[V], V]:
    """Whoever holds the permission may call, or the owner of the account that the path parameter `or_self` names.

    `or_when` opens the route to everybody where the settings say so. `fresh` demands a recent sign-in. `confinable`
    lets in who holds the permission over a group only; `rule_set` demands an address that passes that set of IP rules.
    """
    rule = AccessRule(
        Who.SIGNED_IN,
        permission,
        or_self=or_self,
        or_when=or_when,
        fresh=fresh,
        confinable=confinable,
        rule_set=rule_set,
    )
    return lambda view: _mark(view, ACCESS, rule)


def limited(budget: str) -> Callable[[V], V]:
    """The budget that a call spends from."""
    return lambda view: _mark(view, BUDGET, BudgetName(budget))


def unlimited(view: V) -> V:
    """No budget: probes and public keys."""
    return _mark(view, BUDGET, BudgetName.NONE)


def emits(*events: Event) -> Callable[[V], V]:
    """The events that a call may record."""
    return lambda view: _mark(view, EVENTS, events)


def refuses(*errors: type[ApiError]) -> Callable[[V], V]:
    """The refusals of the use case, beyond those that every route shares."""
    return lambda view: _mark(view, ERRORS, errors)


def answers(
    status: int, model: type[Any] | None = None, *, is_streamed: bool = False, is_lines: bool = False
) -> Callable[[V], V]:
    """A success of the route. May stand more than once. `is_streamed`: a client may ask for a document a line;
    `is_lines`: it is always answered so.
    """

    def mark(view: V) -> V:
        return _mark(view, ANSWERS, (*getattr(view, ANSWERS, ()), Answered(status, model, is_streamed, is_lines)))

    return mark


def receives(*media_types: str) -> Callable[[V], V]:
    """The body is a file of one of these types."""
    return lambda view: _mark(view, MEDIA_TYPES, media_types)


def accepts_header(*names: str) -> Callable[[V], V]:
    """The request headers that change what the route does, for the documentation."""
    return lambda view: _mark(view, HEADERS, names)


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands above a handler."""

    access: AccessRule | None
    budget: BudgetName | None
    events: tuple[Event, ...]
    errors: tuple[type[ApiError], ...]
    answers: tuple[Answered, ...]
    headers: tuple[str, ...]
    media_types: tuple[str, ...] = ()


@functools.cache
def marks_of(view: View) -> Marks:
    """Read the marks; `access` and `budget` are None where one is missing."""
    return Marks(
        access=getattr(view, ACCESS, None),
        budget=getattr(view, BUDGET, None),
        events=getattr(view, EVENTS, ()),
        errors=getattr(view, ERRORS, ()),
        answers=tuple(reversed(getattr(view, ANSWERS, ()))),
        headers=getattr(view, HEADERS, ()),
        media_types=getattr(view, MEDIA_TYPES, ()),
    )


def _mark(view: V, name: str, value: object) -> V:
    setattr(view, name, value)
    return view
