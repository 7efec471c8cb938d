"""Schemas of the specification: made from the models of requests and answers, in the words of a reader of JSON."""

from typing import Any

import msgspec
from pydantic import BaseModel

from usermgmt.http import examples

REF = "#/components/schemas/{model}"


def struct_schema(model: type[Any], components: dict[str, Any]) -> dict[str, Any]:
    """A reference to an answer's schema."""
    (reference,), found = msgspec.json.schema_components([model], ref_template=REF.replace("{model}", "{name}"))
    for schema in found.values():
        _drop_null_defaults(schema)
    components.update(found)
    return dict(reference)


def model_schema(model: type[BaseModel], components: dict[str, Any]) -> dict[str, Any]:
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


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without null, which a query cannot say."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    return {**options[0], **rest}
