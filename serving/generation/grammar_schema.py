"""JSON Schemas of clients, as the grammar engine may be given them: bounded, and known to be enforceable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from serving.errors import InvalidRequest
from serving.openai.strict import serialise

SCHEMA_BYTES: Final = 64 << 10
"""Longest schema as compact JSON. Compiling one of this length takes some tenths of a second."""
_REASON_CHARS: Final = 300
_PREFIX: Final = "failed to compile JSON schema: "
_OPTIONS: Final[Mapping[str, object]] = {
    # Any JSON layout a model was trained on, and no endless white space, in which weak models lose themselves.
    "whitespace_pattern": " ",
}


def json_rule(schema: object, path: str) -> str:
    """The grammar expression for JSON that satisfies `schema`, which stands at `path` in the request.

    Raises InvalidRequest where the schema is too long, or holds what cannot be enforced, named in the message.
    """
    if not isinstance(schema, dict):
        raise InvalidRequest(f"`{path}` must be an object", param=path)
    if len(serialise(schema)) > SCHEMA_BYTES:
        raise InvalidRequest(
            f"`{path}` is longer than {SCHEMA_BYTES} bytes", param=path, hint="leave descriptions out of it"
        )
    # The engine reads options out of this key; they are ours to set.
    rule = "%json " + json.dumps({**schema, "x-guidance": _OPTIONS})
    from llguidance import LLMatcher  # noqa: PLC0415 - loaded with the first schema: it is large, and most never ask

    fault = LLMatcher.validate_grammar(f"start: {rule}")
    if fault:
        raise InvalidRequest(
            f"`{path}` cannot be enforced: {_reason(fault)}",
            param=path,
            hint="write it without that, or ask for the format in the prompt",
        )
    return rule


def object_schema(schema: object, path: str) -> dict[str, object]:
    """The schema of a tool's parameters, which are an object whether or not it says so. Raises InvalidRequest."""
    parameters = {} if schema is None else schema
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"`{path}` must be an object", param=path)
    if parameters.get("type", "object") != "object":
        raise InvalidRequest(f"`{path}.type` must be `object`", param=f"{path}.type")
    return {"type": "object", **parameters}


def _reason(fault: str) -> str:
    """The engine's own words without its excerpt of the grammar."""
    text = fault.partition("\n   1 | ")[0].partition(_PREFIX)[2] or "it is no JSON Schema"
    return " ".join(text.split())[:_REASON_CHARS]
