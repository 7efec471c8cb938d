"""The routes of an application, found in its URL map: a new one is tested without anybody listing it."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from quart import Quart
from werkzeug.routing import Rule

from usermgmt.http.access import Marks, View, marks_of
from usermgmt.http.binding import Inputs, inputs_of

ABSENT_ID = UUID("01900000-0000-7000-8000-000000000000")
SAMPLES = {
    "user_id": "me",
    "session_id": str(ABSENT_ID),
    "group_id": str(ABSENT_ID),
    "rule_id": str(ABSENT_ID),
    "role": "no-such-role",
    "name": "no-such-role",
}
AUTOMATIC = {"HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    rule: str
    path: str
    endpoint: str
    view: View
    marks: Marks
    inputs: Inputs

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"


def routes_of(app: Quart) -> list[Route]:
    """Every route, sorted; paths are filled with the caller's own id and with names that nothing has."""
    found = [route for rule in app.url_map.iter_rules() for route in _methods(app, rule)]
    return sorted(found, key=str)


def routes_with_body(app: Quart) -> list[Route]:
    """The routes that read a body."""
    found = [route for route in routes_of(app) if route.inputs.body is not None]
    assert len(found) >= 8, "the walk must find the routes that exist today"
    return found


def _methods(app: Quart, rule: Rule) -> Iterator[Route]:
    view = app.view_functions[rule.endpoint]
    path = rule.rule
    for name in rule.arguments:
        path = "/".join(SAMPLES.get(name, "x") if step.endswith(f"{name}>") else step for step in path.split("/"))
    for method in sorted((rule.methods or set()) - AUTOMATIC):
        yield Route(method, rule.rule, path, rule.endpoint, view, marks_of(view), inputs_of(view))
