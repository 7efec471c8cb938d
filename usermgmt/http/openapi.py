"""The specification (OpenAPI 3.1): quart-schema's provider, reading our marks and the handlers' signatures.

Answers are in `openapi_answers`, the schemas of both directions in `openapi_schemas`.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from pydantic import BaseModel
from quart import Quart, current_app
from quart_schema import Info, QuartSchema, Tag
from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import BaseConverter, Rule

from usermgmt import __version__
from usermgmt.http import examples, patterns
from usermgmt.http.access import Marks, View, Who, marks_of
from usermgmt.http.binding import Inputs, inputs_of
from usermgmt.http.body import JSON_TYPES, MERGE_PATCH_TYPES
from usermgmt.http.converters import Id, RoleName, UserRef
from usermgmt.http.management import METRICS
from usermgmt.http.openapi_answers import HEADERS, responses_of
from usermgmt.http.openapi_schemas import REF, model_schema, without_null

TITLE = "usermgmt"
EXTENSION = "usermgmt_openapi"
HIDDEN_BLUEPRINT = "documentation"
BEARER = "bearerAuth"

TAGS = {
    "auth": "Sign in, exchange a refresh token for the next, sign out.",
    "users": "Register, read, list, change and delete accounts, and give them roles.",
    "personal_data": "Give a person all that is kept about them, or erase it.",
    "imports": "Bring many accounts from elsewhere, with the password hashes that they have.",
    "sessions": "See where an account is signed in, and end that.",
    "groups": "Put accounts into groups, over which roles can be held.",
    "roles": "Make roles of permissions, and see which permissions there are.",
    "ip_rules": "Decide which networks may call.",
    "audit": "Read the record of who did what.",
    "signing_keys": "Fetch the public keys that verify access tokens.",
    "health": "Ask whether the server lives and whether it is ready.",
}
REQUEST_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Accept": (
        "A page of JSON, or everything as a stream, a document a line.",
        {"type": "string"},
    ),
    "If-Match": (
        "Only if the resource is at this version.",
        {"type": "string", "format": "entity-tags", "minLength": 1},
    ),
    "If-None-Match": ("Only if the resource is not at this version.", {"type": "string", "format": "entity-tags"}),
    "Idempotency-Key": (
        "Do it once, however often it is asked for, within 24 hours.",
        {"type": "string", "format": "idempotency-key", "minLength": 1, "maxLength": 255},
    ),
}
PARAMETERS: Mapping[type[BaseConverter], str] = {
    UserRef: "The id of a user, or `me`.",
    Id: "An id.",
    RoleName: "The name of a role.",
}


def install(app: Quart) -> None:
    """Let quart-schema know the application; the pages are ours."""
    QuartSchema(
        app,
        openapi_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        openapi_provider_class=Provider,
        info=Info(title=TITLE, version=__version__, description=inspect.cleandoc(examples.INTRODUCTION)),
        tags=[Tag(name=name, description=text) for name, text in TAGS.items()],
        security_schemes={BEARER: {"type": "http", "scheme": "bearer", "bearer_format": "JWT"}},
    )
    vars(app).pop("make_response", None)  # its search for models in every answer: 10 µs, and ours are responses already


def document(app: Quart | None = None) -> bytes:
    """The specification as JSON, built at the first call for each application."""
    target = app if app is not None else current_app
    built: bytes | None = target.extensions.get(EXTENSION)
    if built is None:
        schema = target.extensions["QUART_SCHEMA"].openapi_provider.schema()
        built = target.extensions[EXTENSION] = msgspec.json.encode(schema)
    return built


class Provider(OpenAPIProvider):
    """Describes each route by its marks."""

    def schema(self) -> dict[str, Any]:
        """The whole document."""
        self._named: set[str] = set()
        schema = super().schema()
        schema["components"]["headers"] = {
            name: {"description": text, "schema": kind} for name, (text, kind) in HEADERS.items()
        }
        return schema

    def generate_rules(self) -> Iterable[Rule]:
        """Every route but the documentation's own, by path."""
        rules = [
            r
            for r in self._app.url_map.iter_rules()
            if not r.endpoint.startswith((f"{HIDDEN_BLUEPRINT}.", f"{METRICS}."))
        ]
        return sorted(rules, key=lambda rule: (rule.rule, sorted(rule.methods or ())))

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """The operations of a route, and the schemas they name."""
        view = self._app.view_functions[rule.endpoint]
        components: dict[str, Any] = {}
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        operations = {method.lower(): self._operation(rule, view, components) for method in methods}
        return {patterns.PARAMETER.sub(r"{\1}", rule.rule): operations}, components

    def _operation(self, rule: Rule, view: View, components: dict[str, Any]) -> dict[str, Any]:
        marks, inputs = marks_of(view), inputs_of(view)
        summary, _, description = (inspect.getdoc(view) or "").partition("\n")
        operation: dict[str, Any] = {
            "operationId": self._operation_id(rule),
            "tags": [rule.endpoint.partition(".")[0]],
            "summary": summary.rstrip(".").replace("`", ""),  # the page shows it as it is
            "parameters": [
                *(_path_parameter(name, converter) for name, converter in rule._converters.items()),
                *_query_parameters(inputs.query, components),
                *(_request_header(name) for name in marks.headers),
            ],
            "responses": dict(responses_of(rule, marks, inputs, components)),
            "security": _security(marks),
        }
        if description.strip():
            operation["description"] = description.strip()
        if inputs.body is not None:
            operation["requestBody"] = _request_body(rule, inputs, components)
        elif inputs.media_types:
            content = {media: {"schema": {}, "example": examples.FILES[media]} for media in inputs.media_types}
            operation["requestBody"] = {"required": True, "content": content}
        return operation

    def _operation_id(self, rule: Rule) -> str:
        """The handler's name; an alias of the same handler adds its path."""
        name = str(rule.endpoint).replace(".", "_")
        if name in self._named:
            name += rule.rule.replace("/", "_")
        while name in self._named:  # a handler of several methods
            name += "_too"
        self._named.add(name)
        return name


def _security(marks: Marks) -> list[dict[str, list[str]]]:
    access = marks.access
    if access is None or access.who is Who.ANYONE:
        return []
    is_optional = access.who is Who.IDENTIFIED or access.or_when is not None
    return [{BEARER: []}, *([{}] if is_optional else [])]


def _path_parameter(name: str, converter: BaseConverter) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^(?:{converter.regex})$"}
    parameter: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": schema}
    text = PARAMETERS.get(type(converter))
    return {**parameter, "description": text} if text is not None else parameter


def _request_header(name: str) -> dict[str, Any]:
    text, schema = REQUEST_HEADERS[name]
    text = " ".join(filter(None, (text, examples.FORMATS.get(schema.get("format", "")))))
    return {"name": name, "in": "header", "required": False, "description": text, "schema": schema}


def _query_parameters(model: type[BaseModel] | None, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if model is None:
        return
    schema = model_schema(model, components)
    for name, found in schema["properties"].items():
        kind = without_null(found)
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": kind}
        if (text := kind.pop("description", None)) is not None:
            parameter["description"] = text
        yield parameter


def _request_body(rule: Rule, inputs: Inputs, components: dict[str, Any]) -> dict[str, Any]:
    assert inputs.body is not None
    name = inputs.body.__name__
    components[name] = model_schema(inputs.body, components)
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=name)}}
    if (example := examples.BODIES.get(name)) is not None:
        content["example"] = example
    media = MERGE_PATCH_TYPES if "PATCH" in (rule.methods or ()) else JSON_TYPES
    return {"required": not inputs.is_body_optional, "content": dict.fromkeys(media, content)}
