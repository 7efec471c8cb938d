"""The specification (OpenAPI 3.1): quart-schema's provider, reading our marks and the handlers' signatures.

What a route refuses is derived, not written down twice: the refusals that its marks and its inputs imply, and those
that its use case adds.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from pydantic import BaseModel
from quart import Quart, current_app
from quart_schema import Info, QuartSchema, Tag
from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import BaseConverter, Rule

from usermgmt import __version__
from usermgmt.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    BudgetSpent,
    DatabaseUnavailable,
    InternalError,
    InvalidBody,
    InvalidQuery,
    InvalidToken,
    MissingCredentials,
    NoSuchRoute,
    OutcomeUnknown,
    PermissionMissing,
    RecentSignInRequired,
    RequestTimeout,
    SessionEnded,
    UnsupportedMediaType,
    ValidationFailed,
)
from usermgmt.http import examples
from usermgmt.http.access import Answered, Budget, Marks, View, Who, marks_of
from usermgmt.http.binding import Inputs, TookTooLong, inputs_of
from usermgmt.http.converters import Id, RoleName, UserRef
from usermgmt.http.management import METRICS
from usermgmt.http.problems import MEDIA_TYPE, Problem

TITLE = "usermgmt"
REF = "#/components/schemas/{model}"
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
HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "X-Request-ID": ("The id of this request in the log and in error bodies.", {"type": "string"}),
    "ETag": ("The version of the resource.", {"type": "string"}),
    "Location": ("Where the new resource is.", {"type": "string"}),
    "Link": ("The next and the previous page (RFC 8288).", {"type": "string"}),
    "Retry-After": ("Seconds until trying again makes sense.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("How to authenticate (RFC 6750).", {"type": "string"}),
    "RateLimit-Policy": ("The budget of this route.", {"type": "string"}),
    "RateLimit": ("What is left of it.", {"type": "string"}),
    "Idempotency-Replayed": ("This is the answer that an earlier request was given.", {"const": "true"}),
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
_CONVERTER = re.compile(r"<(?:[^<>]*:)?([A-Za-z_][A-Za-z0-9_]*)>")


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
        return {_CONVERTER.sub(r"{\1}", rule.rule): operations}, components

    def _operation(self, rule: Rule, view: View, components: dict[str, Any]) -> dict[str, Any]:
        marks, inputs = marks_of(view), inputs_of(view)
        summary, _, description = (inspect.getdoc(view) or "").partition("\n")
        operation: dict[str, Any] = {
            "operationId": self._operation_id(rule),
            "tags": [rule.endpoint.partition(".")[0]],
            "summary": summary.rstrip("."),
            "parameters": [
                *(_path_parameter(name, converter) for name, converter in rule._converters.items()),
                *_query_parameters(inputs.query, components),
                *(_request_header(name) for name in marks.headers),
            ],
            "responses": dict(_responses(rule, marks, inputs, components)),
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


def shared_errors(rule: Rule, marks: Marks, inputs: Inputs) -> Iterator[type[ApiError]]:
    """The refusals that the marks, the inputs and the path imply."""
    yield from (InternalError, TookTooLong, BadRequest)
    if rule.rule.startswith("/api/"):
        yield from (InvalidQuery, ValidationFailed, DatabaseUnavailable, OutcomeUnknown)
    if rule.arguments:
        yield NoSuchRoute
    if inputs.body is not None:
        yield from (InvalidBody, UnsupportedMediaType, BodyTooLarge, RequestTimeout)
    if inputs.media_types:
        yield from (UnsupportedMediaType, BodyTooLarge, RequestTimeout)
    if marks.budget is not Budget.NONE:
        yield BudgetSpent
    access = marks.access
    if access is not None and access.who is Who.SIGNED_IN:
        yield from (MissingCredentials, InvalidToken, SessionEnded)
        if access.permission is not None:
            yield PermissionMissing
        if access.fresh:
            yield RecentSignInRequired


def _security(marks: Marks) -> list[dict[str, list[str]]]:
    access = marks.access
    if access is None or access.who is Who.ANYONE:
        return []
    is_optional = access.who is Who.IDENTIFIED or access.or_when is not None
    return [{BEARER: []}, *([{}] if is_optional else [])]


def _responses(
    rule: Rule, marks: Marks, inputs: Inputs, components: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    successes = {answered.status: answered for answered in marks.answers}
    problems: dict[int, list[type[ApiError]]] = defaultdict(list)
    for error in dict.fromkeys([*shared_errors(rule, marks, inputs), *marks.errors]):
        problems[error.status].append(error)
    for status in sorted({*successes, *problems}):
        answered = successes.get(status)
        response = _success(answered, marks, components) if answered is not None else _headed(status, marks)
        if status in problems:
            response.setdefault("content", {})[MEDIA_TYPE] = _problem_content(problems[status], components)
        yield str(status), response


def _headed(status: int, marks: Marks) -> dict[str, Any]:
    """A response with the headers that its status implies."""
    names = ["X-Request-ID"]
    if status in (429, 503):
        names.append("Retry-After")
    if status == 401:
        names.append("WWW-Authenticate")
    if marks.budget is not Budget.NONE:
        names += ["RateLimit-Policy", "RateLimit"]
    return {"description": HTTPStatus(status).phrase, "headers": {name: _header(name) for name in names}}


def _success(answered: Answered, marks: Marks, components: dict[str, Any]) -> dict[str, Any]:
    response = _headed(answered.status, marks)
    more = {
        "ETag": (answered.model is not None and answered.model.__name__ == "UserOut") or answered.status == 304,
        "Location": answered.status == 201,
        "Link": answered.model is not None and answered.model.__name__.endswith("PageOut"),
        "Idempotency-Replayed": "Idempotency-Key" in marks.headers,
    }
    response["headers"] |= {name: _header(name) for name, present in more.items() if present}
    if answered.model is not None:
        content: dict[str, Any] = {"schema": _struct(answered.model, components)}
        if (example := examples.ANSWERS.get(answered.model.__name__)) is not None:
            content["example"] = example
        response["content"] = {"application/json": content}
    if answered.is_lines and answered.model is not None:
        lines: dict[str, Any] = {"schema": {"type": "string"}}
        if (shown := examples.LINES.get(answered.model.__name__)) is not None:
            lines["example"] = shown
        response["content"] = {"application/x-ndjson": lines}
    if answered.is_streamed:
        page = response["content"]["application/json"].get("example")
        lines = {"schema": {"type": "string"}, **({"example": examples.stream(page)} if page is not None else {})}
        response["content"]["application/x-ndjson"] = lines
    return response


def _problem_content(errors: list[type[ApiError]], components: dict[str, Any]) -> dict[str, Any]:
    """A problem whose `code` is one of those that the route can give."""
    codes = sorted(error.code for error in errors)
    schema = {**_struct(Problem, components), "properties": {"code": {"enum": codes}}}
    return {"schema": schema, "examples": {error.code: {"value": examples.problem(error)} for error in errors}}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


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
    schema = _model_schema(model, components)
    for name, found in schema["properties"].items():
        kind = _without_null(found)
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": kind}
        if (text := kind.pop("description", None)) is not None:
            parameter["description"] = text
        yield parameter


def _request_body(rule: Rule, inputs: Inputs, components: dict[str, Any]) -> dict[str, Any]:
    assert inputs.body is not None
    name = inputs.body.__name__
    components[name] = _model_schema(inputs.body, components)
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=name)}}
    if (example := examples.BODIES.get(name)) is not None:
        content["example"] = example
    media = ["application/json", *(["application/merge-patch+json"] if "PATCH" in (rule.methods or ()) else [])]
    return {"required": not inputs.is_body_optional, "content": dict.fromkeys(media, content)}


def _struct(model: type[Any], components: dict[str, Any]) -> dict[str, Any]:
    """A reference to an answer's schema."""
    (reference,), found = msgspec.json.schema_components([model], ref_template=REF.replace("{model}", "{name}"))
    for schema in found.values():
        _drop_null_defaults(schema)
    components.update(found)
    return dict(reference)


def _model_schema(model: type[BaseModel], components: dict[str, Any]) -> dict[str, Any]:
    """A request's schema, with the schemas it names moved to the components."""
    schema = model.model_json_schema(ref_template=REF)
    components.update(schema.pop("$defs", {}))
    _drop_null_defaults(schema)
    for found in schema.get("properties", {}).values():
        _describe_format(found)
    return schema


def _drop_null_defaults(schema: dict[str, Any]) -> None:
    """Null as a default is what Python says for "not sent"; a reader of the specification would send it."""
    for found in schema.get("properties", {}).values():
        if found.get("default", ...) is None:
            del found["default"]


def _describe_format(schema: dict[str, Any]) -> None:
    """Say in words what a format of our own demands: a client's generator does not know it."""
    for option in (schema, *schema.get("anyOf", ())):
        text = examples.FORMATS.get(option.get("format", ""))
        if text is not None:
            schema["description"] = " ".join(filter(None, (schema.get("description"), text)))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without null, which a query cannot say."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    return {**options[0], **rest}
