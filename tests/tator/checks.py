"""What a stand-in Tator server checks of a body before it does anything with it."""

import json
from collections.abc import Mapping
from typing import Any

from tests.tator.rows import Kind
from tests.tator.search import Refused

# What the schema says of the keys of a body. Unknown keys are let through, and ignored.
ONE: dict[str, str] = {
    "attributes": "object",
    "null_attributes": "array",
    "reset_attributes": "array",
    "in_place": "integer",
    "pedantic": "integer",
}
MANY: dict[str, str] = {
    **ONE,
    "ids": "array",
    "elemental_ids": "array",
    "object_search": "object",
    "attribute": "array",
    "new_version": "integer",
    "count": "integer",
}
_PYTHON: dict[str, tuple[type, ...]] = {"array": (list,), "object": (dict,), "integer": (int,)}


def body_of(raw: bytes, content_type: str | None, schema: Mapping[str, str] = MANY) -> dict[str, Any]:
    """The body of a PATCH or PUT.

    Raises:
        Refused: there is none, or it is no JSON, or it does not keep to the schema
    """
    if not raw:
        raise Refused("Missing required request body")
    kind = (content_type or "").partition(";")[0]
    if kind != "application/json":
        known = f"Content for the following mimetype not found: {kind}. Valid mimetypes: ['application/json']"
        raise Refused("Request body validation error", known)
    try:
        body = json.loads(raw)
    except ValueError:
        text = f"Failed to deserialize value with application/json mimetype: {raw.decode(errors='replace')}"
        raise Refused("Request body validation error", text) from None
    if not isinstance(body, dict):
        raise invalid(body, "object", [f"{body!r} is not of type 'object'"])
    for key, value in body.items():
        if key in schema:
            _check(body, value, schema[key])
    for value in body.get("attributes", {}).values():
        if value is None:
            raise invalid(body, "object", ["None is not valid under any of the given schemas"])
    return body


def _check(body: Mapping[str, Any], value: Any, kind: str) -> None:
    if value is None:
        raise invalid(body, "object", ["None for not nullable", f"None is not of type '{kind}'"])
    if not isinstance(value, _PYTHON[kind]) or isinstance(value, bool):
        raise invalid(body, "object", [f"{value!r} is not of type '{kind}'"])


def invalid(body: Any, kind: str, errors: list[str]) -> Refused:
    """The answer to a body that breaks the schema."""
    listed = ", ".join(f"<ValidationError: {error!r}>" for error in errors)
    comma = "," if len(errors) == 1 else ""
    details = f"Value {body!r} not valid for schema of type {kind}: ({listed}{comma})"
    return Refused("Request body validation error", details)


def attributes(kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for attributes of this type, as they will be stored.

    Raises:
        Refused: an attribute there is not, or a value that it cannot hold
    """
    for name in values:
        if kind.attribute(name) is None:
            raise Refused(f"Invalid attribute {name} for entity type {kind.name}")
    return {name: _valued(kind.attribute(name) or {}, value) for name, value in values.items()}


def _valued(attribute: Mapping[str, Any], value: Any) -> Any:
    name, dtype = attribute["name"], attribute["dtype"]
    if dtype == "bool":
        if isinstance(value, bool):
            return value
        if not isinstance(value, str):
            raise Refused(f"'{type(value).__name__}' object has no attribute 'lower'")
        if value.lower() not in ("true", "false"):
            raise Refused(f"Invalid attribute value {value} for boolean attribute {name}")
        return value.lower() == "true"
    if dtype in ("float", "int"):
        try:
            number = float(value) if dtype == "float" else int(value)
        except (TypeError, ValueError):
            raise Refused(f"Invalid attribute value {value} for {dtype} attribute {name}") from None
        if number > attribute.get("maximum", number):
            raise Refused(f"{number} is above maximum {attribute['maximum']} for {dtype} attribute {name}!")
        if number < attribute.get("minimum", number):  # not recorded; as for the maximum
            raise Refused(f"{number} is below minimum {attribute['minimum']} for {dtype} attribute {name}!")
        return number
    return value  # a text attribute takes a number and stores a number (03 B11)
