"""Vendors' request schemas, made out of the types in their own Python clients, and closed: a field that is in none of
them is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jsonschema_rs
from pydantic import TypeAdapter

_CAPITAL = re.compile("[A-Z]")


@dataclass(frozen=True)
class Wrong:
    """The first thing that is wrong with a body."""

    path: str
    why: str


class Published:
    """A closed schema; `extra` are fields that the types leave out, `without` such as another service alone has."""

    def __init__(
        self,
        kind: object,
        *,
        extra: dict[str, object] | None = None,
        without: frozenset[str] = frozenset(),
        is_proto: bool = False,
    ) -> None:
        """`is_proto`: fields are also known by the names that they have in the vendor's protocol buffers."""
        self.schema = closed(TypeAdapter(kind).json_schema(by_alias=True), without, is_proto=is_proto)
        for holder in self.schema.get("anyOf", [self.schema]):
            target = self.schema["$defs"][holder["$ref"].rpartition("/")[2]] if "$ref" in holder else holder
            target["properties"] |= extra or {}
        self._validator = jsonschema_rs.Draft202012Validator(self.schema)

    def wrong(self, body: object) -> Wrong | None:
        """What is wrong with a body; None where nothing is."""
        for error in self._validator.iter_errors(body):
            deepest = max(_causes(error), key=lambda one: len(one.instance_path))
            return Wrong(".".join(map(str, deepest.instance_path)), deepest.message)
        return None


def closed(schema: object, without: frozenset[str] = frozenset(), *, is_proto: bool = False) -> object:
    """The schema with every object in it closed, and the fields named `without` taken out."""
    if isinstance(schema, list):
        return [closed(item, without, is_proto=is_proto) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(item, without, is_proto=is_proto) for name, item in schema.items()}
    if isinstance(made.get("properties"), dict):
        known = {name: item for name, item in made["properties"].items() if name not in without}
        if is_proto:  # JSON for protocol buffers takes a field under either of its names
            known |= {_CAPITAL.sub(lambda one: f"_{one[0].lower()}", name): item for name, item in known.items()}
        made["properties"] = known
        made["additionalProperties"] = False
    return made


def _causes(error: object) -> Iterator[object]:
    yield error
    context = getattr(error.kind, "context", None) or []
    for branch in context:
        for cause in branch:
            yield from _causes(cause)
