"""The tools that were offered: which names may be called, and what their parameters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_NOTHING: Final[Mapping[str, object]] = {}
_REFERENCES: Final = 8
"""`$ref`s followed one after the other before giving up: they may point at each other."""


def offered(tools: Sequence[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """The JSON Schema of each tool's parameters by the tool's name, from OpenAI's `tools`."""
    schemas: dict[str, Mapping[str, object]] = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping):
            schemas[str(function.get("name"))] = _mapping(function.get("parameters"))
    return schemas


def properties(schema: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The schema of each parameter by name, with `$ref`s to the schema's own definitions followed."""
    return {name: _followed(part, schema) for name, part in _mapping(schema.get("properties")).items()}


def types_of(schema: Mapping[str, object]) -> frozenset[str]:
    """JSON types that the schema names, directly or by its choices and values; empty where it names none."""
    found: set[str] = set()
    kind = schema.get("type")
    found.update([kind] if isinstance(kind, str) else filter(_is_text, kind) if isinstance(kind, list) else [])
    values = schema.get("enum")
    found.update(_type_of(item) for item in (values if isinstance(values, list) else []))
    if "const" in schema:
        found.add(_type_of(schema["const"]))
    for choices in ("anyOf", "oneOf", "allOf"):
        options = schema.get(choices)
        for option in options if isinstance(options, list) else []:
            found |= types_of(_mapping(option))
    return frozenset(found)


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "object"


def _followed(part: object, root: Mapping[str, object]) -> Mapping[str, object]:
    schema = _mapping(part)
    for _ in range(_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        where, _, name = reference.rpartition("/")
        if where not in {"#/$defs", "#/definitions"}:
            break
        schema = _mapping(_mapping(root.get(where[2:])).get(name))
    return schema


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else _NOTHING


def _is_text(value: object) -> bool:
    return isinstance(value, str)
