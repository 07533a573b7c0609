"""Grammars that would take an engine down are refused in time, and the next one is compiled as ever."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.generation.compiler import MOST_BYTES, Grammar, Grammars, Vocabulary, format_grammar, schema_grammar

VOCABULARY = Vocabulary([bytes([byte]) for byte in range(256)] + [b"<|end|>"], [256], [256])
BOUND_S = 20.0
"""Two seconds of CPU, on a machine that does other things, too."""


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    made = Grammars(lambda: VOCABULARY)
    yield made
    made.close()


def nested(depth: int, before: str, after: str) -> object:
    return json.loads(before * depth + '{"type": "string"}' + after * depth)


REFUSED = {
    "a remainder automaton": {"type": "integer", "multipleOf": 99_999_989},
    "remainders of many": {"allOf": [{"type": "integer", "multipleOf": n} for n in (9973, 9967, 9949, 9941)]},
    "two properties by two": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"a{i}_{j}": {}}} for j in range(10)]} for i in range(10)
        ]
    },
    "properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(4000)}},
    "a long constant": {"const": "a" * 1_000_000},
    "an enum": {"enum": [f"value number {i}" for i in range(50_000)]},
    "alternatives": {"type": "string", "pattern": "a|" * 500_000 + "b"},
    "groups": {"type": "string", "pattern": "(" * 5000 + "a" + ")*" * 5000},
    "what cannot be": {"$ref": "#"},
    "a false one": {"type": "object", "properties": {"a": {"type": "bogus"}}},
    "a keyword that is not followed": {"type": "array", "uniqueItems": True},
    "another's schema": {"$ref": "http://example.com/schema.json"},
}
TAKEN = {
    "deep arrays": nested(60, '{"type": "array", "items": ', "}"),
    "deep alternatives": nested(60, '{"anyOf": [{"type": "integer"}, ', "]}"),
    "repetitions": {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
    "the many states of a few letters": {"type": "string", "pattern": "^[ab]*a[ab]{20}$"},
    "lengths": {"type": "string", "minLength": 10**9, "maxLength": 2 * 10**9},
    "an enum": {"enum": [f"value number {i}" for i in range(4000)]},
    "a cycle": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
}


async def attempt(grammars: Grammars, schema: object) -> None:
    await grammars.compile(Grammar(schema_grammar(schema), "response_format"), 1, "")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_schema_is_refused_in_time(grammars: Grammars, name: str) -> None:
    """Within the bound, naming the field; and after it a good one is compiled."""
    began = time.monotonic()
    with pytest.raises(InvalidRequest) as caught:
        await attempt(grammars, REFUSED[name])
    assert time.monotonic() - began < BOUND_S
    assert caught.value.param == "response_format"
    assert "response_format" in caught.value.message
    assert len(caught.value.message) < 600
    await attempt(grammars, {"type": "integer", "title": name})


@pytest.mark.parametrize("name", TAKEN)
async def test_what_only_looks_hostile_is_compiled(grammars: Grammars, name: str) -> None:
    """Depth, repetition and size are no crime by themselves."""
    began = time.monotonic()
    await attempt(grammars, TAKEN[name])
    assert time.monotonic() - began < BOUND_S


async def test_a_refusal_is_remembered(grammars: Grammars) -> None:
    """The same bomb again costs nothing."""
    bomb = {"type": "integer", "multipleOf": 99_999_971}
    with pytest.raises(InvalidRequest):
        await attempt(grammars, bomb)
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        await attempt(grammars, bomb)
    assert time.monotonic() - began < 0.5


async def test_a_compiled_grammar_serves_again_from_its_beginning(grammars: Grammars) -> None:
    """Each constraint has its own place in it, and another cache domain compiles its own."""
    grammar = Grammar('start: "ab"', "tools")
    first, second = await grammars.compile(grammar, 2, "one")
    assert first._accepts(ord("a"))
    assert first._accepts(ord("b"))
    assert first.is_complete
    assert not second._accepts(ord("b"))
    (third,) = await grammars.compile(grammar, 1, "one")
    assert third._accepts(ord("a"))
    before = len(grammars._kept)
    await grammars.compile(grammar, 1, "two")
    assert len(grammars._kept) == before + 1


async def test_a_grammar_has_a_size(grammars: Grammars) -> None:
    """A byte more than fits is refused before anything looks at it."""
    with pytest.raises(InvalidRequest, match="at most"):
        await grammars.compile(Grammar("#" * (MOST_BYTES + 1), "tools"), 1, "")


async def test_a_model_that_cannot_end_cannot_be_held() -> None:
    """Without an end token no grammar could ever be left."""
    made = Grammars(lambda: Vocabulary([b"a"], [], []))
    with pytest.raises(UnsupportedFeature):
        await attempt(made, {"type": "integer"})
    made.close()


def test_formats_become_grammars() -> None:
    """Plain text is none; a schema that is left out is any object."""
    assert format_grammar(None) is None
    assert format_grammar({"type": "text"}) is None
    named = format_grammar({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}})
    assert named is not None
    assert named.param == "response_format"
    assert '"null"' in named.text
    anything = format_grammar({"type": "json_object"})
    assert anything == format_grammar({"type": "json_schema", "json_schema": {"name": "x"}})
