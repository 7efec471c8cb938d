"""The specification is valid, complete, and says what the marks say."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.conftest import settings_for
from usermgmt.app import create_app
from usermgmt.http.access import Who, marks_of
from usermgmt.http.binding import inputs_of
from usermgmt.http.openapi import HIDDEN_BLUEPRINT, document, shared_errors

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def app():
    return create_app(settings_for("sqlite+aiosqlite:///:memory:"))


@pytest.fixture(scope="module")
def spec(app) -> dict[str, Any]:
    return json.loads(document(app))


def operations(app, spec: dict[str, Any]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Every route that is documented: its rule, its handler, its operation."""
    found = {op["operationId"]: op for path in spec["paths"].values() for op in path.values()}
    for rule in app.url_map.iter_rules():
        name = rule.endpoint.replace(".", "_")
        if not rule.endpoint.startswith(f"{HIDDEN_BLUEPRINT}."):
            yield rule, app.view_functions[rule.endpoint], found[name]


def test_it_is_valid_openapi_3_1(spec):
    assert spec["openapi"].startswith("3.1")
    validate(spec)


def test_every_route_is_in_it(app, spec):
    documented = {(path, method) for path, item in spec["paths"].items() for method in item.keys() & METHODS}
    routed = {
        (rule.rule.replace("<user_ref:", "{").replace("<role_name:", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith(f"{HIDDEN_BLUEPRINT}.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert documented == routed


def test_operation_ids_are_unique(spec):
    names = [operation["operationId"] for item in spec["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_bodies_and_answers_are_named_components(app, spec):
    for _, view, operation in operations(app, spec):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["schema"] == {"$ref": f"#/components/schemas/{inputs_of(view).body.__name__}"}
        for status, response in operation["responses"].items():
            if status.startswith("2") and "content" in response:
                assert response["content"]["application/json"]["schema"]["$ref"].startswith("#/components/schemas/")


def test_every_refusal_that_marks_imply_or_name_is_documented(app, spec):
    for rule, view, operation in operations(app, spec):
        marks = marks_of(view)
        for error in [*shared_errors(rule, marks, inputs_of(view)), *marks.errors]:
            content = operation["responses"][str(error.status)]["content"]["application/problem+json"]
            assert error.code in content["schema"]["properties"]["code"]["enum"], (rule, error)
            assert content["examples"][error.code]["value"]["code"] == error.code


def test_security_says_who_has_to_sign_in(app, spec):
    for _, view, operation in operations(app, spec):
        rule = marks_of(view).access
        if rule.who is Who.ANYONE:
            assert operation["security"] == []
        elif rule.who is Who.SIGNED_IN and rule.or_when is None:
            assert operation["security"] == [{"bearer": []}]
        else:
            assert operation["security"] == [{"bearer": []}, {}]


def test_the_seeds_bodies_are_the_examples(spec):
    content = spec["paths"]["/api/users"]["post"]["requestBody"]["content"]["application/json"]
    assert content["example"] == {"username": "newuser", "email": "user@example.com", "password": "secure_password"}


async def test_examples_of_bodies_are_accepted(spec, server, admin):
    body = spec["paths"]["/api/roles"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await admin.post("/api/roles", json=body)).status_code == 201
