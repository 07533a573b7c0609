"""What becomes of each field with each vendor, read off the bodies that the connectors make.

`python -m tests.support.vendors.matrix` prints the table of docs/destinations.md.
"""

from __future__ import annotations

import json
import sys

from serving.egress.vendors import Anthropic, Azure, Compatible, Gemini, OpenAI, OutCall, Vendor
from serving.egress.vendors.calls import CHAT
from serving.errors import UnsupportedByDestination

COLUMNS: dict[str, Vendor] = {
    "OpenAI": OpenAI(name="far"),
    "Azure": Azure(name="far"),
    "compatible": Compatible(name="far"),
    "Anthropic": Anthropic(name="far"),
    "Anthropic 2023-06-01": Anthropic(name="far", version="2023-06-01"),
    "Gemini": Gemini(name="far"),
}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


def _tool(**more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": "look", "parameters": SCHEMA, **more}}


TOOLS = {"tools": [_tool()]}
FIELDS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "`max_tokens`": ({}, {"max_tokens": 321}),
    "`temperature` 0.5": ({}, {"temperature": 0.5}),
    "`temperature` 1.5": ({}, {"temperature": 1.5}),
    "`top_p`": ({}, {"top_p": 0.5}),
    "`top_k`": ({}, {"top_k": 7}),
    "`min_p`": ({}, {"min_p": 0.5}),
    "`frequency_penalty`, `presence_penalty`": ({}, {"frequency_penalty": 0.5}),
    "`repetition_penalty`": ({}, {"repetition_penalty": 1.5}),
    "`seed`": ({}, {"seed": 7}),
    "`stop`, 1 to 4": ({}, {"stop": ["END"]}),
    "`stop`, 5": ({}, {"stop": list("abcde")}),
    "`stop_token_ids`, `ignore_eos`, `min_tokens`": ({}, {"min_tokens": 5}),
    "`logit_bias`": ({}, {"logit_bias": {"5": 9}}),
    "`logprobs`, `top_logprobs`": ({}, {"logprobs": True, "top_logprobs": 2}),
    "`n` above 1": ({}, {"n": 2}),
    "`tools`": ({}, TOOLS),
    "`tools`, `strict`": (TOOLS, {"tools": [_tool(strict=True)]}),
    "`tool_choice` required": (TOOLS, {**TOOLS, "tool_choice": "required"}),
    "`tool_choice` by name": (
        TOOLS,
        {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}},
    ),
    "`parallel_tool_calls` false": (TOOLS, {**TOOLS, "parallel_tool_calls": False}),
    "`response_format` json_object": ({}, {"response_format": {"type": "json_object"}}),
    "`response_format` json_schema": (
        {},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    ),
    "`reasoning_effort`": ({}, {"reasoning_effort": "high"}),
    "system message first": (
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]},
    ),
    "system message behind the user's": (
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "s"}]},
    ),
    "names of participants": ({}, {"messages": [{"role": "user", "content": "x", "name": "ann"}]}),
    "images, sound, files": (
        {},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
    ),
    "last turn of the assistant's": (
        {},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    ),
}


def _flat(value: object, path: str = "") -> dict[str, object]:
    if isinstance(value, dict) and value and "properties" not in value:
        found: dict[str, object] = {}
        for name, item in value.items():
            found |= _flat(item, f"{path}.{name}" if path else name)
        return found
    if isinstance(value, list) and value and isinstance(value[0], dict):
        found = {}
        for item in value:
            found |= {name: [*found.get(name, []), one] for name, one in _flat(item, f"{path}[]").items()}
        return found
    return {path: value}


def _body(vendor: Vendor, fields: dict[str, object]) -> dict[str, object]:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    return _flat(json.loads(vendor.request(OutCall(CHAT, body, "m")).body))


def cell(vendor: Vendor, without: dict[str, object], fields: dict[str, object]) -> str:
    """Where a field's value stands in the vendor's body; `refused` where it cannot."""
    try:
        made = _body(vendor, fields)
    except UnsupportedByDestination:
        return "refused"
    before = _body(vendor, without)
    changed = [path for path, value in made.items() if before.get(path) != value]
    if isinstance(vendor, OpenAI) and {path.partition(".")[0].partition("[")[0] for path in changed} <= set(fields):
        return "as it is"
    parents = [path.rpartition(".")[0] for path in changed]
    shown = [
        parent if parent and parents.count(parent) > 1 else path for path, parent in zip(changed, parents, strict=True)
    ]
    return ", ".join(f"`{path}`" for path in dict.fromkeys(shown))


def table() -> str:
    """The table, in Markdown."""
    lines = [f"| field | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for name, (without, fields) in FIELDS.items():
        cells = [cell(vendor, without, fields) for vendor in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
