"""What a grammar lets through is read back by the parser, and is what was asked for."""

from __future__ import annotations

import itertools
import json
import random
from functools import cache
from pathlib import Path

import jsonschema_rs
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

import serving
from serving.errors import InvalidRequest, UnsupportedFeature
from serving.generation.grammar import GRAMMAR_BYTES, grammar_for
from serving.generation.grammar_calls import FORMATS
from serving.generation.grammar_schema import SCHEMA_BYTES
from serving.generation.parsers import KNOWN_REASONING_PARSERS, KNOWN_TOOL_PARSERS, Answer, special_texts
from tests.unit.generation.texts import calls, parse

TOKENIZER = Path(serving.__file__).parent / "models/demo/hf/tokenizer.json"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
        "unit": {"enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        "place": {"$ref": "#/$defs/Place"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
    "$defs": {
        "Place": {"type": "object", "properties": {"far": {"type": "boolean"}}, "additionalProperties": False},
    },
}
XML_SCHEMA: dict[str, object] = {
    **SCHEMA,
    "properties": {**SCHEMA["properties"], "city": {"type": "string"}},  # type: ignore[dict-item]
}
NOTHING: dict[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}
JSON_ANSWER = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
CLOSERS = [
    ', "',
    '"',
    "}",
    "]",
    "0",
    "</think>",
    "[/THINK]",
    "Here is my response:",
    "\n</parameter>",
    "</seed:think>",
    "a",
]
STEPS = 900


def tool(name: str, schema: dict[str, object], **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


def tools_for(tool_parser: str, **more: object) -> list[dict[str, object]]:
    schema = XML_SCHEMA if tool_parser in {"qwen3_coder", "qwen3_xml"} else SCHEMA
    return [tool("get_weather", schema, **more), tool("now", NOTHING, **more)]


@cache
def vocabulary(texts: tuple[str, ...]) -> tuple[LLTokenizer, dict[str, int]]:
    """The demo model's tokenizer with these texts as control tokens."""
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    tokenizer.add_special_tokens(list(texts))
    ids = {text: tokenizer.token_to_id(text) for text in (*texts, "<|im_end|>")}
    return LLTokenizer(tokenizer.to_str(), eos_token=[ids["<|im_end|>"]]), ids


def walk(grammar: str, texts: tuple[str, ...], seed: int) -> str | None:
    """A text that the grammar accepts, chosen at random token by token; None where none was found in time."""
    vocab, ids = vocabulary(texts)
    names = {number: text for text, number in ids.items()}
    matcher = LLMatcher(vocab, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    chance = random.Random(seed)
    mask = allocate_token_bitmask(1, vocab.vocab_size)
    tokens: list[int] = []
    wander = chance.choice((0, 5, 40))
    for step in range(STEPS):
        if matcher.is_stopped() or (matcher.is_accepting() and chance.random() < 0.3):
            break
        fill_next_token_bitmask(matcher, mask, 0)
        allowed = [
            32 * word + bit for word, bits in enumerate(mask[0].tolist()) for bit in range(32) if bits >> bit & 1
        ]
        allowed = [token for token in allowed if token != ids["<|im_end|>"]]
        chosen = [chance.choice(allowed)] if allowed else []
        if not allowed:
            break
        if step >= wander:
            ways = [vocab.tokenize_str(text, parse_special=True) for text in CLOSERS]
            ways = [way for way in ways if matcher.validate_tokens(way) == len(way)]
            chosen = chance.choice(ways) if ways else chosen
        assert matcher.consume_tokens(chosen), matcher.get_error()
        tokens += chosen
    if not matcher.is_accepting():
        return None
    raw = b"".join(names[token].encode() if token in names else vocab.decode_bytes([token]) for token in tokens)
    return raw.decode()


def walks(grammar: str, texts: tuple[str, ...], count: int) -> list[str]:
    """As many texts as were found; most walks find one."""
    found = [text for text in (walk(grammar, texts, seed) for seed in range(count)) if text is not None]
    assert len(found) > count / 2
    return found


def accepts(grammar: str, text: str, texts: tuple[str, ...] = ()) -> bool:
    """The grammar lets this text through, and it may end there."""
    vocab, _ = vocabulary(texts)
    matcher = LLMatcher(vocab, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = vocab.tokenize_str(text, parse_special=True)
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


def build(**changed: object) -> str | None:
    """A grammar, with fields that ask for nothing but for those named."""
    fields: dict[str, object] = {
        "response_format": None, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        "tool_parser": None, "reasoning_parser": None, "control_tokens": {}, **changed,
    }  # fmt: skip
    if fields["tools"] == [] and "tool_choice" not in changed:
        fields["tool_choice"] = "none"
    return grammar_for(**fields)  # type: ignore[arg-type]


def validate(answer: Answer, tools: list[dict[str, object]]) -> None:
    schemas = {entry["function"]["name"]: entry["function"]["parameters"] for entry in tools}  # type: ignore[index]
    for name, arguments in calls(answer):
        jsonschema_rs.validate(schemas[name], json.loads(arguments))


def test_every_tool_parser_has_a_grammar() -> None:
    """What can be read can be forced."""
    assert FORMATS.keys() == KNOWN_TOOL_PARSERS


@pytest.mark.parametrize("control", [False, True], ids=["spelled", "control"])
@pytest.mark.parametrize("parallel", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("named", [None, "now", "get_weather"])
@pytest.mark.parametrize("tool_parser", sorted(KNOWN_TOOL_PARSERS))
def test_forced_calls_are_read_back(tool_parser: str, named: str | None, parallel: bool, control: bool) -> None:
    """Nothing but calls, of the forced tool, one or several as asked for, with arguments that satisfy the schema."""
    texts = special_texts(tool_parser, None) if control else ()
    tools = tools_for(tool_parser)
    choice: object = {"type": "function", "function": {"name": named}} if named else "required"
    grammar = build(
        tools=tools, tool_choice=choice, parallel_tool_calls=parallel, tool_parser=tool_parser,
        control_tokens=vocabulary(texts)[1],
    )  # fmt: skip
    assert grammar is not None
    counts = set()
    for text in walks(grammar, texts, 8):
        answer = parse(tool_parser, text, tools=tools)
        assert answer.content == "", text
        assert {name for name, _ in calls(answer)} <= ({named} if named else {"get_weather", "now"})
        validate(answer, tools)
        counts.add(len(answer.tool_calls))
    assert min(counts) >= 1
    assert parallel or counts == {1}


@pytest.mark.parametrize("inside", [False, True], ids=["", "opened"])
@pytest.mark.parametrize("control", [False, True], ids=["spelled", "control"])
@pytest.mark.parametrize("reasoning_parser", sorted(KNOWN_REASONING_PARSERS))
def test_reasoning_stays_free(reasoning_parser: str, control: bool, inside: bool) -> None:
    """Before JSON that is held, and before a call that is forced; the parser finds the same border."""
    texts = special_texts("hermes", reasoning_parser) if control else ()
    tools = tools_for("hermes")
    common = {
        "reasoning_parser": reasoning_parser, "control_tokens": vocabulary(texts)[1], "starts_in_reasoning": inside,
    }  # fmt: skip
    options = {"tools": tools, "starts_in_reasoning": inside}
    grammar = build(tools=tools, tool_choice="required", tool_parser="hermes", **common)
    assert grammar is not None
    for text in walks(grammar, texts, 6):
        answer = parse("hermes", text, reasoning_parser, **options)
        assert answer.tool_calls, text
        validate(answer, tools)
    grammar = build(response_format=JSON_ANSWER, **common)
    assert grammar is not None
    for text in walks(grammar, texts, 6):
        answer = parse(None, text, reasoning_parser, **options)
        jsonschema_rs.validate(SCHEMA, json.loads(answer.content))


@pytest.mark.parametrize("control", [False, True], ids=["spelled", "control"])
@pytest.mark.parametrize("reasoning_parser", [None, "qwen3", "deepseek_r1"])
@pytest.mark.parametrize("tool_parser", sorted(KNOWN_TOOL_PARSERS))
def test_strict_tools_hold_calls_and_leave_text_free(
    tool_parser: str, reasoning_parser: str | None, control: bool
) -> None:
    """Any text passes; once it opens a call, the call is of an offered tool and satisfies its schema."""
    texts = special_texts(tool_parser, reasoning_parser) if control else ()
    tools = tools_for(tool_parser, strict=True)
    grammar = build(
        tools=tools, tool_parser=tool_parser, reasoning_parser=reasoning_parser, control_tokens=vocabulary(texts)[1]
    )
    assert grammar is not None
    thought = "a</think>" if reasoning_parser == "deepseek_r1" else ""
    assert accepts(grammar, f"{thought}Hello, I am {{not}} [calling].\n<b>é</b>", texts)
    forced = build(tools=tools, tool_choice="required", tool_parser=tool_parser, control_tokens=vocabulary(texts)[1])
    assert forced is not None
    for text in walks(forced, texts, 4):
        before = "" if tool_parser.startswith("llama") else "Let me see.\n"
        assert accepts(grammar, f"{thought}{before}{text}", texts), text
        wrong = text.replace("get_weather", "rm").replace("now", "rm")
        assert not accepts(grammar, f"{thought}{before}{wrong}", texts), wrong
    for text in walks(grammar, texts, 8):
        answer = parse(tool_parser, text, reasoning_parser, tools=tools)
        validate(answer, tools)


def test_a_thought_of_a_call_is_free() -> None:
    """Under `auto` with strict tools, too: reasoning that mentions a tag is not held to anything."""
    grammar = build(tools=tools_for("hermes", strict=True), tool_parser="hermes", reasoning_parser="qwen3")
    assert grammar is not None
    assert accepts(grammar, "<think>maybe <tool_call> or not</think>\n\nNo.")
    assert not accepts(grammar, "<think>a</think>maybe <tool_call> or not")


@pytest.mark.parametrize("tool_parser", ["hermes", "llama3_json", "mistral"])
def test_an_answer_in_json_or_a_call(tool_parser: str) -> None:
    """With `response_format` and tools an answer is one of the two."""
    tools = tools_for(tool_parser, strict=True)
    grammar = build(response_format=JSON_ANSWER, tools=tools, tool_parser=tool_parser)
    assert grammar is not None
    assert accepts(grammar, '{"city": "Paris", "days": 3}')
    assert not accepts(grammar, "Paris")
    for text in walks(grammar, (), 12):
        answer = parse(tool_parser, text, tools=tools)
        validate(answer, tools)
        if not answer.tool_calls:
            jsonschema_rs.validate(SCHEMA, json.loads(answer.content))


def test_one_call_at_most() -> None:
    """`parallel_tool_calls` of false holds under `auto`, and leaves arguments of lax tools to the model."""
    tools = tools_for("hermes")
    grammar = build(tools=tools, tool_parser="hermes", parallel_tool_calls=False)
    assert grammar is not None
    call = '<tool_call>\n{"name": "now", "arguments": {"a": [1]}}\n</tool_call>'
    assert accepts(grammar, call)
    assert accepts(grammar, f"Let me see. {call}")
    assert not accepts(grammar, f"{call}\n{call}")


def test_what_asks_for_nothing_is_not_held() -> None:
    """No grammar at all, which is fastest."""
    assert build() is None
    assert build(response_format={"type": "text"}) is None
    assert build(tools=tools_for("hermes"), tool_parser="hermes") is None
    assert build(tools=tools_for("hermes")) is None


def test_json_objects() -> None:
    """`json_object` is any object on one line, with no more than a blank between two parts."""
    grammar = build(response_format={"type": "json_object"})
    assert grammar is not None
    assert accepts(grammar, '{"a": [1, {"b": null}], "c":2}')
    assert not accepts(grammar, "[1]")
    assert not accepts(grammar, '{"a":' + " " * 100 + "1}")


@given(st.integers(0, 10**9))
def test_json_answers_satisfy_their_schema(seed: int) -> None:
    """Whatever a model would choose."""
    grammar = build(response_format=JSON_ANSWER)
    assert grammar is not None
    text = walk(grammar, (), seed)
    if text is not None:
        jsonschema_rs.validate(SCHEMA, json.loads(text))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "object", "not": {}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {}, "then": {}}, '"if", "then"'),
        ({"type": "string", "format": "no-such"}, "no-such"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"$ref": "https://example.com/schema"}, "https://example.com/schema"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "oneOf"),
        ({"type": "nothing"}, "nothing"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
        ({"description": "x" * SCHEMA_BYTES}, str(SCHEMA_BYTES)),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema: dict[str, object], named: str) -> None:
    """One error with the path of the schema and the words that are not known; nothing is fetched, nothing ignored."""
    with pytest.raises(InvalidRequest) as caught:
        build(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert named in caught.value.message
    assert caught.value.param == "response_format.json_schema.schema"
    assert len(caught.value.message) < 500
    strict = [tool("now", NOTHING), tool("f", {"properties": {"a": schema}, "required": ["a"]}, strict=True)]
    with pytest.raises(InvalidRequest) as caught:
        build(tools=strict, tool_parser="hermes")
    assert caught.value.param == "tools.1.function.parameters"


def test_a_lax_tool_is_held_as_far_as_it_can_be() -> None:
    """Without `strict` a forced call of a tool with an odd schema is still a call, with any arguments."""
    odd = [tool("f", {"properties": {"a": {"not": {}}}})]
    grammar = build(tools=odd, tool_choice="required", tool_parser="hermes")
    assert grammar is not None
    assert accepts(grammar, '<tool_call>\n{"name": "f", "arguments": {"b": 1}}\n</tool_call>')


def test_clients_do_not_set_the_options_of_the_engine() -> None:
    """A schema that asks for leniency is checked like any other."""
    lenient = {"type": "object", "not": {}, "x-guidance": {"lenient": True}}
    with pytest.raises(InvalidRequest):
        build(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": lenient}})


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"type": "string", "pattern": "a+"}, "tools.0.function.parameters.properties.a.pattern"),
        ({"type": ["string", "null"]}, "tools.0.function.parameters.properties.a"),
        ({"enum": ["</parameter>"]}, "tools.0.function.parameters.properties.a"),
    ],
)
def test_what_xml_cannot_carry_is_refused(value: dict[str, object], param: str) -> None:
    """A strict tool whose texts are held in a way that unquoted text cannot be."""
    with pytest.raises(UnsupportedFeature) as caught:
        build(tools=[tool("f", {"properties": {"a": value}}, strict=True)], tool_parser="qwen3_coder")
    assert caught.value.param == param
    with pytest.raises(UnsupportedFeature):
        build(tools=[tool("f", {"minProperties": 1}, strict=True)], tool_parser="qwen3_coder")


def test_what_cannot_be_forced_is_refused() -> None:
    """Calls without a parser that would read them, a tool that was not offered, parameters that are no object."""
    tools = tools_for("hermes", strict=True)
    with pytest.raises(UnsupportedFeature) as caught:
        build(tools=tools, tool_choice="required")
    assert caught.value.param == "tool_choice"
    with pytest.raises(UnsupportedFeature) as caught:
        build(tools=tools)
    assert caught.value.param == "tools"
    with pytest.raises(InvalidRequest, match="no_such"):
        build(tools=tools, tool_choice={"type": "function", "function": {"name": "no_such"}}, tool_parser="hermes")
    with pytest.raises(InvalidRequest, match="must be `object`"):
        build(tools=[tool("f", {"type": "string"})], tool_choice="required", tool_parser="hermes")


def test_grammars_are_bounded() -> None:
    """Many schemas that are each small enough are too much together."""
    text = "x" * (SCHEMA_BYTES // 2)
    tools = [tool(f"f{index}", {"description": text}) for index in range(2 * GRAMMAR_BYTES // SCHEMA_BYTES + 1)]
    with pytest.raises(InvalidRequest) as caught:
        build(tools=tools, tool_choice="required", tool_parser="hermes")
    assert caught.value.param == "tools"


@pytest.mark.parametrize(("tool_parser", "text"), [("hermes", "<tool_call>"), ("mistral", "[TOOL_CALLS]")])
def test_a_control_token_is_not_its_letters(tool_parser: str, text: str) -> None:
    """Where the vocabulary has one, a forced call begins with it."""
    texts = special_texts(tool_parser, None)
    vocab, ids = vocabulary(texts)
    grammar = build(tools=tools_for(tool_parser), tool_choice="required", tool_parser=tool_parser, control_tokens=ids)
    assert grammar is not None
    matcher = LLMatcher(vocab, grammar, log_level=0)
    assert matcher.validate_tokens([ids[text]]) == 1
    assert matcher.validate_tokens(vocab.tokenize_str(text[0])) == 0


def test_the_two_walk_together() -> None:
    """Walks cover calls of both tools and arguments of every kind, so that the tests above are not vacuous."""
    grammar = build(tools=tools_for("hermes"), tool_choice="required", tool_parser="hermes")
    assert grammar is not None
    answers = [parse("hermes", text, tools=tools_for("hermes")) for text in walks(grammar, (), 40)]
    seen = list(itertools.chain.from_iterable(map(calls, answers)))
    assert {name for name, _ in seen} == {"get_weather", "now"}
    assert {key for _, arguments in seen for key in json.loads(arguments)} == {"city", "days", "unit", "tags", "place"}
