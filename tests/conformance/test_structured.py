"""Answers held to a form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Target, served

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green"]},
        "sizes": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    },
    "required": ["colour", "sizes"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}


def check(text: str) -> None:
    """The text is what SCHEMA allows."""
    value = json.loads(text)
    assert set(value) == {"colour", "sizes"}
    assert value["colour"] in ("red", "green")
    assert 2 <= len(value["sizes"]) <= 3
    assert all(isinstance(size, bool) for size in value["sizes"])


@pytest.mark.feature("response_format json_schema")
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_an_answer_keeps_to_a_schema(target: Target, temperature: float) -> None:
    """Whatever the model would rather say; streamed as well."""
    asked = {"response_format": FORM, "temperature": temperature, "max_tokens": 200, "seed": 3}
    answer = served(lambda: target.chat("Hello!", **asked))
    check(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    chunks = target.chat("Hello!", stream=True, **asked)
    check("".join(chunk.choices[0].delta.content or "" for chunk in chunks))


@pytest.mark.feature("response_format json_object")
def test_an_answer_is_an_object(target: Target) -> None:
    """JSON to the first character, as far as it got."""
    answer = served(lambda: target.chat("Hello!", response_format={"type": "json_object"}, max_tokens=200))
    text = answer.choices[0].message.content
    assert text.lstrip().startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


@pytest.mark.feature("response_format text")
def test_text_is_text(target: Target) -> None:
    """The default by its name changes nothing."""
    plain = target.chat("Hello!").choices[0].message.content
    assert target.chat("Hello!", response_format={"type": "text"}).choices[0].message.content == plain
