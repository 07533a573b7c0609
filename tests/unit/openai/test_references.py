"""References inside a client's JSON Schema."""

from __future__ import annotations

import time

import pytest

from serving.errors import InvalidRequest
from serving.openai.references import endless_reference, schema_rule


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"x": {"$ref": "#/properties/x"}}},
        {"items": [{"$ref": "#/items"}], "$defs": {"a~b/c": {"$ref": "#/$defs/a~0b~1c"}}},
    ],
)
def test_a_reference_to_itself_alone_is_refused(schema: dict[str, object]) -> None:
    """At the root, in a circle, inside, and with escaped names; the field is named."""
    with pytest.raises(InvalidRequest) as caught:
        schema_rule().check(schema, "response_format.json_schema.schema")
    assert caught.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"child": {"$ref": "#"}}},
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/schema"},
        {"$ref": 5},
    ],
)
def test_recursion_that_describes_something_passes(schema: dict[str, object]) -> None:
    """A tree is a tree; references to nowhere are the engine's to refuse."""
    assert endless_reference(schema) is None
    assert schema_rule().check(schema, "x") is schema


def test_long_chains_are_followed_once() -> None:
    """Time grows with the schema, not with its square."""
    count = 20_000
    chain: dict[str, object] = {f"a{at}": {"$ref": f"#/$defs/a{at + 1}"} for at in range(count)}
    chain[f"a{count}"] = {"type": "string"}
    began = time.monotonic()
    assert endless_reference({"$ref": "#/$defs/a0", "$defs": chain}) is None
    assert time.monotonic() - began < 2
