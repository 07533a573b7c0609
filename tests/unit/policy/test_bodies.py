"""What is read off a body: every field, every text, and counts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from serving.policy.body import DEPTH, MOST_FIELDS, STRANGE, complexity_of, fields_of, texts_of
from serving.policy.model import Complexity, Endpoint

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"who": "J\\u00f6rg", "n": ["x"]}'}}
BODY = {
    "model": "m",
    "max_tokens": 50,
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a b": {"type": "x"}}}}}],
}


def test_fields_are_paths_without_positions() -> None:
    """At most four names deep; a name that no schema has is not repeated."""
    assert fields_of(BODY) == {
        "model",
        "max_tokens",
        "messages.role",
        "messages.content",
        "messages.content.type",
        "messages.content.text",
        "messages.tool_calls.id",
        "messages.tool_calls.type",
        "messages.tool_calls.function.name",
        "messages.tool_calls.function.arguments",
        "tools.type",
        "tools.function.name",
        "tools.function.parameters.properties",
    }
    assert fields_of({"a.b": 1, "c": {"d e": 2}}) == {STRANGE, f"c.{STRANGE}"}
    assert fields_of([]) == {STRANGE}
    assert fields_of({str(number): 1 for number in range(MOST_FIELDS + 1)}) == {STRANGE}


def test_an_allow_list_takes_paths_and_what_is_below() -> None:
    """A name with a dot in it is not the path that it looks like."""
    entry = Endpoint("chat.completions", ("model", "tools.function.*", "messages.content"))
    assert entry.refuses(fields_of({"model": 1, "tools": [{"function": {"a": {"b": {"c": 1}}}}]})) == frozenset()
    assert entry.refuses(fields_of({"messages.content": 1})) == {STRANGE}
    assert entry.refuses(fields_of({"messages": {"content": {"text": 1}}})) == {"messages.content.text"}
    assert entry.refuses(fields_of({"toolsy": 1, "tools": {"type": 1}})) == {"toolsy", "tools.type"}
    assert entry.refuses(fields_of({"tools": {"functional": 1}})) == {"tools.functional"}


@given(JSON)
def test_every_value_of_a_body_is_a_field(body: Any) -> None:
    """So that nothing leaves beside an allow-list: with an empty one, nothing does at all."""
    found = fields_of(body)
    assert found
    assert all(path.count(".") < DEPTH for path in found)
    assert Endpoint("r", ()).refuses(found) == found


def test_texts_are_in_order_with_what_is_inside_them() -> None:
    """Words of the protocol are left out, so that a text in parts is one text."""
    assert texts_of(BODY) == (
        "be brief",
        "hello",
        "f",
        '{"who": "J\\u00f6rg", "n": ["x"]}',
        "Jörg",
        "x",
        "f",
    )


@given(JSON)
def test_no_long_text_of_a_body_is_passed_over(body: Any) -> None:
    """Values and names alike, whatever they are called."""
    marked = "x" * 70
    for each in ({"role": marked}, {marked: 1}, {"a": [marked]}, {"a": json.dumps({"b": [marked]})}):
        texts = texts_of({"first": body, **each})
        assert texts is not None
        assert marked in texts


def test_what_is_nested_too_deeply_is_not_read() -> None:
    """And that is said: it is no body without texts."""
    deep: Any = "x"
    for _ in range(1000):
        deep = [deep]
    assert texts_of(deep) is None
    assert texts_of("[" * 100_000) is None or texts_of("[" * 100_000) == ("[" * 100_000,)


def test_complexity_is_counted() -> None:
    """From what a caller sent, and from nothing else."""
    body = {
        "messages": [{"role": "user", "content": "```py\nx = 1\n```"}, {"role": "assistant", "content": "yes"}],
        "tools": [{}, {}],
        "max_completion_tokens": 700,
        "response_format": {"type": "json_schema"},
    }
    assert complexity_of(body) == Complexity(chars=18, turns=2, tools=2, asked_tokens=700, code=True, schema=True)
    assert complexity_of({"prompt": "Say hello; then stop."}) == Complexity(chars=21)
    assert complexity_of({"prompt": "SELECT name FROM people"}).code


@given(JSON)
def test_whatever_a_body_is_it_has_a_complexity(body: Any) -> None:
    """Of what cannot be read there is none."""
    assert complexity_of(body) == complexity_of(body)
    assert complexity_of({"messages": body, "tools": body, "max_tokens": body}).asked_tokens >= 0
