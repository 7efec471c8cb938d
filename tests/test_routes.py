"""What stands above each handler: nothing is missing, nothing is forgotten, nothing is left over."""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from quart import Blueprint, Quart, Response

import usermgmt
from tests.conftest import settings_for
from tests.walks import Route, routes_of
from usermgmt import app as application
from usermgmt.app import MarksMissing, create_app
from usermgmt.audit.events import Event, Outcome
from usermgmt.errors import CATALOGUE, ApiError
from usermgmt.http.access import (
    BudgetName,
    Who,
    answers,
    authenticated,
    identified,
    limited,
    public,
    require,
    unlimited,
)
from usermgmt.http.answers import no_content
from usermgmt.http.openapi import HIDDEN_BLUEPRINT
from usermgmt.http.openapi_answers import shared_errors
from usermgmt.permissions import BUILT_IN_ROLES, DESCRIPTIONS, Permission
from usermgmt.security.secrets import Purpose

PACKAGE = Path(usermgmt.__file__).parent


@pytest.fixture(scope="module")
def app() -> Quart:
    """An application that nobody calls."""
    return create_app(settings_for("sqlite+aiosqlite:///unused.db"))


@pytest.fixture(scope="module")
def routes(app: Quart) -> list[Route]:
    """Every route of it."""
    found = routes_of(app)
    assert len(found) >= 25
    return found


# Marks


def test_every_route_says_who_may_call_it_and_what_it_costs(routes: list[Route]):
    for route in routes:
        assert route.marks.access is not None, str(route)
        assert route.marks.budget is not None, str(route)


def test_every_route_says_what_it_answers_and_what_it_is_for(routes: list[Route]):
    for route in routes:
        assert route.marks.answers, str(route)
        statuses = [answered.status for answered in route.marks.answers]
        assert sorted(set(statuses)) == sorted(statuses)
        assert any(200 <= status < 300 for status in statuses), str(route)
        sentence = (inspect.getdoc(route.view) or "").partition("\n")[0]
        assert re.fullmatch(r"[A-Z].+\.", sentence), str(route)
        for answered in route.marks.answers:
            assert (answered.model is None) == (answered.status in (204, 304) or _is_page(route)), str(route)


def _is_page(route: Route) -> bool:
    return route.endpoint.startswith(f"{HIDDEN_BLUEPRINT}.")


def test_every_route_that_changes_something_says_which_events_it_records(routes: list[Route]):
    for route in routes:
        if route.method != "GET" or route.rule.endswith("/export"):  # handing out personal data is on record
            assert route.marks.events, str(route)
        else:
            assert route.marks.events == (), str(route)


def test_only_probes_keys_and_pages_are_free(routes: list[Route]):
    free = {route.path for route in routes if route.marks.budget is BudgetName.NONE}
    assert {path for path in free if path.startswith("/api/")} == set()
    assert {route.path for route in routes if not route.path.startswith("/api/")} == free


def test_what_anybody_may_call_is_a_short_list(routes: list[Route]):
    public_ones = {str(route) for route in routes if route.marks.access and route.marks.access.who is not Who.SIGNED_IN}
    assert {name for name in public_ones if " /api/" in name} == {
        "POST /api/auth/login",
        "POST /api/auth/refresh",
        "POST /api/auth/logout",
    }
    opened = {str(route) for route in routes if route.marks.access and route.marks.access.or_when is not None}
    assert opened == {"POST /api/users"}


def test_a_right_over_oneself_names_a_parameter_of_the_path(routes: list[Route]):
    for route in routes:
        if route.marks.access is not None and route.marks.access.or_self is not None:
            assert f":{route.marks.access.or_self}>" in route.rule


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("nothing", []),
        ("only-access", [public]),
        ("only-a-budget", [unlimited]),
        ("only-answers", [answers(204)]),
        ("access-and-answers", [require(Permission.USERS_READ), answers(204)]),
        ("a-budget-and-answers", [limited("read"), answers(204)]),
    ],
)
def test_an_application_with_a_route_that_lacks_a_mark_does_not_start(
    monkeypatch: pytest.MonkeyPatch, name: str, marks: list[Callable[[Any], Any]]
):
    with pytest.raises(MarksMissing, match=rf"odd\.{name}"):
        _with_route(monkeypatch, name, marks)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("access", [public, identified, authenticated, require(Permission.USERS_READ)])
def test_in_which_order_the_marks_stand_does_not_matter(monkeypatch: pytest.MonkeyPatch, access: Any, first: bool):
    marks = [access, limited("read")]
    app = _with_route(monkeypatch, "fine", marks if first else marks[::-1])
    (route,) = [route for route in routes_of(app) if route.endpoint == "odd.fine"]
    assert route.marks.access is not None
    assert route.marks.budget is BudgetName.READ


def test_a_budget_that_no_setting_defines_is_refused_where_it_is_named():
    with pytest.raises(ValueError, match="plenty"):
        limited("plenty")(no_content)


def _with_route(monkeypatch: pytest.MonkeyPatch, name: str, marks: list[Callable[[Any], Any]]) -> Quart:
    async def view() -> Response:
        return no_content()

    for mark in marks:
        view = mark(view)
    odd = Blueprint("odd", __name__)
    odd.add_url_rule(f"/{name}", name, view)
    monkeypatch.setattr(application, "BLUEPRINTS", (*application.BLUEPRINTS, odd))
    return create_app(settings_for("sqlite+aiosqlite:///unused.db"))


# Refusals: what a handler can raise is found by following its calls through our modules

# what the walk finds on ways that are never taken: these write an account but none of its names, and hold its row,
# so that its version cannot change meanwhile
NOT_TAKEN = {
    "DELETE /api/users/<user_ref:user_id>": {"username_taken", "email_taken"},
    "POST /api/users/<user_ref:user_id>/restore": {"username_taken", "email_taken", "user_changed"},
    "PUT /api/users/<user_ref:user_id>/roles/<role_name:role>": {"username_taken", "email_taken", "user_changed"},
    "DELETE /api/users/<user_ref:user_id>/roles/<role_name:role>": {"username_taken", "email_taken", "user_changed"},
}
NOT_TAKEN["POST /api/users/import"] = {"invalid_json", "unreadable_row"}  # told of a row, never of the request
EVERYWHERE = {"database_unavailable", "outcome_unknown", "internal_error", "took_too_long"}


@cache
def functions_of(module: ModuleType) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    tree = ast.parse(inspect.getsource(module))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def named(module: ModuleType, node: ast.expr) -> Any:
    """What a name or a dotted name in a module stands for, as far as that can be told without running it."""
    if isinstance(node, ast.Name):
        return getattr(module, node.id, None)
    if isinstance(node, ast.Attribute):
        owner = named(module, node.value)
        return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
    return None


def reached(function: FunctionType) -> Iterator[tuple[ModuleType, ast.AST]]:
    """Every function of ours that a function calls, directly or not, with the module it stands in. A private class is
    reached with all its methods.
    """
    todo: list[Any] = [inspect.unwrap(function)]
    seen: set[Any] = set()
    while todo:
        here = todo.pop()
        module = importlib.import_module(here.__module__)
        node = functions_of(module).get(here.__name__)
        if node is None or here in seen:
            continue
        seen.add(here)
        yield module, node
        for part in ast.walk(node):
            if isinstance(part, ast.Name | ast.Attribute):
                target = named(module, part)
                if isinstance(target, FunctionType) and inspect.unwrap(target).__module__.startswith("usermgmt."):
                    todo.append(inspect.unwrap(target))
                elif isinstance(target, type) and target.__module__ == module.__name__ and target.__name__[0] == "_":
                    todo.append(target)


def refusals_of(view: FunctionType) -> set[type[ApiError]]:
    """The errors that are raised, or made to be raised, on the way."""
    found: set[type[ApiError]] = set()
    for module, node in reached(view):
        for part in ast.walk(node):
            target = None
            if isinstance(part, ast.Raise) and part.exc is not None:
                target = named(module, part.exc.func if isinstance(part.exc, ast.Call) else part.exc)
            elif isinstance(part, ast.Call):
                target = named(module, part.func)
            if isinstance(target, type) and issubclass(target, ApiError) and "code" in vars(target):
                found.add(target)
            hashes = isinstance(part, ast.Attribute) and part.attr in ("hash", "verify")
            if hashes and ast.unparse(part).startswith("runtime.hasher."):
                found.add(CATALOGUE["overloaded"])
    return found


def documented(route: Route, app: Quart) -> set[type[ApiError]]:
    """The errors that a route is documented to answer."""
    (rule,) = [rule for rule in app.url_map.iter_rules() if rule.rule == route.rule and route.method in rule.methods]
    shared = set(shared_errors(rule, route.marks, route.inputs))
    return shared | set(route.marks.errors)


def test_the_walk_finds_what_can_be_seen(routes: list[Route]):
    found = {str(route): {error.code for error in refusals_of(route.view)} for route in routes}
    assert {"invalid_credentials", "overloaded"} <= found["POST /api/auth/login"]
    assert {"invalid_refresh_token", "session_revoked", "session_expired"} <= found["POST /api/auth/refresh"]
    assert {"username_taken", "email_taken", "exceeds_own_rights"} <= found["POST /api/users"]
    assert {"last_admin", "user_changed"} <= found["PUT /api/users/<user_ref:user_id>"]


def test_every_refusal_that_a_handler_can_reach_is_documented(routes: list[Route], app: Quart):
    for route in (route for route in routes if not _is_page(route)):  # pages document, and are not documented
        hidden = refusals_of(route.view) - documented(route, app)
        assert {error.code for error in hidden} - EVERYWHERE - NOT_TAKEN.get(str(route), set()) == set(), str(route)


def test_every_refusal_that_is_documented_can_be_reached(routes: list[Route]):
    for route in routes:
        unreachable = set(route.marks.errors) - refusals_of(route.view)
        assert {error.code for error in unreachable} == set(), str(route)


def test_every_refusal_is_documented_with_a_status_that_is_no_success(routes: list[Route], app: Quart):
    for route in routes:
        for error in documented(route, app):
            assert error.status >= 400
            assert error.__doc__


# Vocabularies: closed, listed, and each word used


def sources() -> str:
    """All of the package's code but the places where the words are defined."""
    defining = {PACKAGE / "permissions.py", PACKAGE / "audit" / "events.py"}
    return "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path not in defining)


def test_the_permissions():
    assert {permission.value for permission in Permission} == {
        "users:read",
        "users:write",
        "users:delete",
        "users:erase",
        "users:export",
        "sessions:manage",
        "groups:manage",
        "ip_rules:manage",
        "audit:read",
        "roles:manage",
        "roles:grant",
    }
    assert set(DESCRIPTIONS) == set(Permission)
    assert [role.name for role in BUILT_IN_ROLES] == ["admin", "manager", "user"]


def test_every_permission_opens_something(routes: list[Route]):
    required = {route.marks.access.permission for route in routes if route.marks.access is not None}
    assert set(Permission) - required == set()


def test_the_events():
    assert {event.value for event in Event} == {
        "access.denied",
        "audit.adopted",
        "audit.pruned",
        "group.created",
        "group.deleted",
        "extension.acted",
        "group.member_added",
        "group.member_removed",
        "group.updated",
        "ip_rule.created",
        "ip_rule.deleted",
        "ip_rule.updated",
        "ip_rules.suspended",
        "login.failed",
        "login.from_new_device",
        "login.from_new_network",
        "login.succeeded",
        "login.throttled",
        "reauthentication.failed",
        "reauthentication.throttled",
        "role.created",
        "role.deleted",
        "role.granted",
        "role.revoked",
        "role.updated",
        "session.refresh_reused",
        "session.refreshed",
        "session.revoked",
        "signing_key.created",
        "signing_key.retired",
        "user.created",
        "user.deleted",
        "user.disabled",
        "user.enabled",
        "user.erased",
        "user.exported",
        "user.password_changed",
        "user.password_rehashed",
        "user.restored",
        "user.updated",
        "users.exported",
        "users.imported",
        "users.seeded",
    }
    assert {outcome.value for outcome in Outcome} == {"success", "failure"}


def test_every_event_is_recorded_by_something(routes: list[Route]):
    code = sources()
    assert [event.name for event in Event if not re.search(rf"\bEvent\.{event.name}\b", code)] == []


def test_every_event_that_a_route_says_it_records_can_be_reached(routes: list[Route]):
    for route in routes:
        recorded = {
            part.attr
            for module, node in reached(route.view)
            if not module.__name__.endswith(".routes")
            for part in ast.walk(node)
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "Event"
        }
        assert {event.name for event in route.marks.events} == recorded, str(route)


def test_the_budgets_the_callers_and_the_purposes():
    assert {budget.value for budget in BudgetName} == {
        "login",
        "register",
        "refresh",
        "read",
        "write",
        "admin",
        "unknown",
        "none",
    }
    assert {who.value for who in Who} == {"anyone", "identified", "signed in"}
    assert {purpose.value for purpose in Purpose} == {
        "audit-seal",
        "cursor",
        "idempotency",
        "password-pepper",
        "refresh-token",
        "signing-key-encryption",
        "name",
        "throttle",
    }


def test_every_budget_is_a_setting_and_spent_by_a_route(routes: list[Route]):
    limits = settings_for("sqlite+aiosqlite:///unused.db").limits
    names = {budget.value for budget in BudgetName} - {"none"}
    assert names == set(type(limits).model_fields) - {"enabled"}
    assert {route.marks.budget for route in routes} == set(BudgetName) - {BudgetName.UNKNOWN}


def test_the_error_codes():
    ours = {code for code, kind in CATALOGUE.items() if kind.__module__.startswith("usermgmt.")}
    assert ours == {
        "address_denied",
        "bad_request",
        "body_too_large",
        "cross_site_request",
        "database_unavailable",
        "email_taken",
        "exceeds_own_rights",
        "field_not_permitted",
        "group_name_taken",
        "group_not_found",
        "idempotency_key_reused",
        "internal_error",
        "invalid_credentials",
        "invalid_cursor",
        "invalid_header",
        "invalid_json",
        "invalid_query",
        "invalid_refresh_token",
        "invalid_token",
        "ip_rule_not_found",
        "last_admin",
        "last_signing_key",
        "method_not_allowed",
        "missing_credentials",
        "not_found",
        "outcome_unknown",
        "overloaded",
        "permission_missing",
        "rate_limited",
        "recent_sign_in_required",
        "request_in_progress",
        "request_timeout",
        "role_built_in",
        "role_in_use",
        "role_name_taken",
        "role_not_found",
        "session_ended",
        "session_expired",
        "session_not_found",
        "session_revoked",
        "signing_key_not_found",
        "too_many_attempts",
        "too_many_ip_rules",
        "too_many_refused",
        "took_too_long",
        "unreadable_file",
        "unreadable_row",
        "unsupported_media_type",
        "user_changed",
        "user_not_deleted",
        "user_not_found",
        "username_taken",
        "validation_failed",
        "would_lock_out",
        "wrong_current_password",
    }
