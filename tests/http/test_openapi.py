"""The specification is valid, complete, and says what the marks say."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from quart import Quart

from tests.conftest import settings_for
from usermgmt.app import create_app
from usermgmt.http.access import Who, marks_of
from usermgmt.http.binding import inputs_of
from usermgmt.http.examples import FORMATS
from usermgmt.http.openapi import HIDDEN_BLUEPRINT, document
from usermgmt.http.openapi_answers import shared_errors

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
        (
            rule.rule.replace("<user_ref:", "{").replace("<role_name:", "{").replace("<id:", "{").replace(">", "}"),
            method.lower(),
        )
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.startswith(f"{HIDDEN_BLUEPRINT}.")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert documented == routed


def test_every_tag_is_described_by_a_sentence_and_used(spec):
    used = {tag for item in spec["paths"].values() for operation in item.values() for tag in operation["tags"]}
    assert {tag["name"] for tag in spec["tags"]} == used
    assert all(tag["description"].endswith(".") and " " in tag["description"] for tag in spec["tags"])


def test_summaries_are_plain_text(spec):
    assert "`" not in "".join(operation["summary"] for item in spec["paths"].values() for operation in item.values())


def test_operation_ids_are_unique(spec):
    names = [operation["operationId"] for item in spec["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def test_bodies_and_answers_are_named_components(app, spec):
    for _, view, operation in operations(app, spec):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            if media in marks_of(view).media_types:
                assert content["schema"] == {}
                continue
            assert content["schema"] == {"$ref": f"#/components/schemas/{inputs_of(view).body.__name__}"}
        for status, response in operation["responses"].items():
            if status.startswith("2") and "content" in response and marks_of(view).answers[0].is_lines:
                assert set(response["content"]) - {"application/problem+json"} == {"application/x-ndjson"}
            elif status.startswith("2") and "content" in response:
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
            assert operation["security"] == [{"bearerAuth": []}]
        else:
            assert operation["security"] == [{"bearerAuth": []}, {}]


def test_the_seeds_bodies_are_the_examples(spec):
    content = spec["paths"]["/api/users"]["post"]["requestBody"]["content"]["application/json"]
    assert content["example"] == {"username": "newuser", "email": "user@example.com", "password": "secure_password"}


def examples_of(operation: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every schema of a body, a success or a refusal with an example of it; None where there is none."""
    contents = list(operation.get("requestBody", {}).get("content", {}).values())
    contents += [
        content for response in operation["responses"].values() for content in response.get("content", {}).values()
    ]
    for content in contents:
        for example in content.get("examples", {"": {"value": content.get("example")}}).values():
            yield content["schema"], example["value"]


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(app, spec):
    for _, _, operation in operations(app, spec):
        for schema, example in examples_of(operation):
            assert example is not None, (operation["operationId"], schema)
            checked = {**schema, "components": spec["components"]}
            assert not list(Draft202012Validator(checked).iter_errors(example)), operation["operationId"]


def keywords_of(schema: Any) -> Iterator[str]:
    """Every keyword of a schema and of those within it."""
    if isinstance(schema, bool):
        return
    yield from schema
    yield from (name for inner in schema.get("properties", {}).values() for name in keywords_of(inner))
    yield from (name for kind in ("anyOf", "oneOf") for inner in schema.get(kind, ()) for name in keywords_of(inner))
    yield from (name for kind in ("items", "additionalProperties") for name in keywords_of(schema.get(kind, True)))


def test_schemas_have_only_keywords_of_json_schema(spec):
    known = {*Draft202012Validator.VALIDATORS, "title", "description", "default"}
    parameters = [p["schema"] for item in spec["paths"].values() for op in item.values() for p in op["parameters"]]
    for schema in [*spec["components"]["schemas"].values(), *parameters]:
        assert set(keywords_of(schema)) <= known, schema


def test_null_is_no_ones_default(spec):
    assert '"default":null' not in json.dumps(spec, separators=(",", ":"))


def test_formats_of_our_own_say_what_they_demand(spec):
    fields = [
        field for schema in spec["components"]["schemas"].values() for field in schema.get("properties", {}).values()
    ]
    named = [
        (field, option["format"])
        for field in fields
        for option in (field, *field.get("anyOf", ()))
        if "format" in option
    ]
    ours = {(kind, FORMATS[kind] in field["description"]) for field, kind in named if kind in FORMATS}
    formats = ("username", "display-name", "password", "ip-network", "group-name")
    assert ours == {(name, True) for name in formats}
    assert {kind for _, kind in named} - FORMATS.keys() == {"email", "date-time"}


def test_headers_stand_where_they_occur(spec):
    headers = {
        (operation["operationId"], status): set(response["headers"])
        for item in spec["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
    }
    assert all("X-Request-ID" in names for names in headers.values())
    assert all("WWW-Authenticate" in names for (_, status), names in headers.items() if status == "401")
    assert all("Retry-After" in names for (_, status), names in headers.items() if status in ("429", "503"))
    assert {"ETag", "Location", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed"} <= headers[
        "users_create_user", "201"
    ]
    assert "ETag" in headers["users_get_user", "304"]
    assert "Link" in headers["users_list_users", "200"]
    assert "RateLimit" not in headers["health_live", "200"]


def test_a_merge_patch_has_its_own_media_type_and_an_optional_body_is_optional(spec):
    patch = spec["paths"]["/api/users/{user_id}"]["patch"]["requestBody"]
    assert patch["content"].keys() == {"application/json", "application/merge-patch+json"}
    assert patch["required"]
    assert not spec["paths"]["/api/users/{user_id}"]["delete"]["requestBody"]["required"]


def test_it_is_built_once(app):
    assert document(app) is document(app)


def test_answers_are_not_searched_for_models(app):
    assert app.make_response.__func__ is Quart.make_response


async def test_examples_of_bodies_are_accepted(spec, server, admin):
    body = spec["paths"]["/api/roles"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert (await admin.post("/api/roles", json=body)).status_code == 201
