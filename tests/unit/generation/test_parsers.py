"""A model's text means the same however it arrives, and none of it is lost."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import UnsupportedFeature
from serving.generation.parsers import (
    KNOWN_REASONING_PARSERS,
    KNOWN_TOOL_PARSERS,
    AnswerParser,
    CallArguments,
    CallStart,
    Content,
    Delta,
    Reasoning,
    fold,
)
from tests.unit.generation.texts import PARTS, TOOLS, calls, deltas, parse, parser

NAMES = {"get_weather", "write_file", "now"}
TOOL_PARSERS = st.sampled_from([None, *sorted(KNOWN_TOOL_PARSERS)])
REASONING_PARSERS = st.sampled_from([None, *sorted(KNOWN_REASONING_PARSERS)])
TEXTS = st.lists(st.sampled_from(PARTS), max_size=24).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(PARTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ARGUMENTS = st.dictionaries(st.text() | st.sampled_from(PARTS), JSON, max_size=4)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def channels(found: list[Delta]) -> dict[object, str]:
    """What each channel adds up to, and where each call starts."""
    sums: dict[object, str] = {}
    for delta in found:
        match delta:
            case Content(text):
                sums["content"] = sums.get("content", "") + text
            case Reasoning(text):
                sums["reasoning"] = sums.get("reasoning", "") + text
            case CallStart(index, _, name):
                sums["name", index] = name
            case CallArguments(index, text):
                sums["arguments", index] = sums.get(("arguments", index), "") + text
    return sums


@given(TOOL_PARSERS, REASONING_PARSERS, TEXTS, st.lists(st.integers(0, 2000), max_size=40), st.booleans())
def test_the_splitting_does_not_matter(
    tool_parser: str | None, reasoning_parser: str | None, text: str, cuts: list[int], inside: bool
) -> None:
    """Whole, in any pieces or character by character: every channel adds up to the same."""
    splits = ([text], pieces_of(text, cuts), list(text))
    found = [
        channels(deltas(parser(tool_parser, reasoning_parser, starts_in_reasoning=inside), split)) for split in splits
    ]
    assert found[0] == found[1] == found[2]


@given(TOOL_PARSERS, REASONING_PARSERS, TEXTS)
def test_calls_are_whole_and_nothing_else_is_lost(
    tool_parser: str | None, reasoning_parser: str | None, text: str
) -> None:
    """Every call names an offered tool and carries a JSON object; without a call, all text is content or reasoning."""
    reader = parser(tool_parser, reasoning_parser)
    found = deltas(reader, [text])
    answer = fold(found)
    assert all(call.name in NAMES and isinstance(json.loads(call.arguments), dict) for call in answer.tool_calls)
    assert len(answer.tool_calls) == reader.whole_calls
    if not answer.tool_calls and reasoning_parser is None:
        assert answer.content == text
    if not answer.tool_calls and reasoning_parser is not None:
        assert text.endswith(answer.content)
        assert answer.reasoning in text
    letters = text.count("Ж") - answer.content.count("Ж") - answer.reasoning.count("Ж")
    assert letters == 0 or answer.tool_calls


@given(TOOL_PARSERS, TEXTS, TEXTS)
def test_deltas_are_never_contradicted(tool_parser: str | None, text: str, more: str) -> None:
    """What was said before `more` arrived is the beginning of what is said in the end."""
    reader = parser(tool_parser)
    early = channels(reader.push(text))
    late = channels(deltas(parser(tool_parser), [text + more]))
    assert all(late[channel].startswith(said) for channel, said in early.items())


@given(TOOL_PARSERS, TEXTS)
def test_a_call_that_is_not_whole_can_never_be_taken_for_one(tool_parser: str | None, text: str) -> None:
    """A client that adds up a stream finds arguments that parse exactly in the calls of the answer."""
    found = deltas(parser(tool_parser), [text])
    said = channels(found)
    parses = []
    for index in (channel[1] for channel in said if channel[0] == "name"):
        try:
            parses.append((said["name", index], json.loads(said.get(("arguments", index), ""))))
        except ValueError:
            continue
    assert parses == [(name, json.loads(text)) for name, text in calls(fold(found))]


def written(form: str, name: str, arguments: dict[str, object]) -> str:
    """A call as models trained on the format write it."""
    text = json.dumps(arguments, ensure_ascii=False)
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return {
        "hermes": f"<tool_call>\n{call}\n</tool_call>",
        "granite": f"<|tool_call|>[{call}]",
        "llama3_json": json.dumps({"name": name, "parameters": arguments}),
        "mistral": f"[TOOL_CALLS]{name}[ARGS]{text}",
        "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        f"{name}\n```json\n{text}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "deepseek_v31": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{text}<｜tool▁call▁end｜>",
        "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions."
        f"{name}:0<|tool_call_argument_begin|>{text}<|tool_call_end|><|tool_calls_section_end|>",
    }[form]


JSON_FORMS = ["hermes", "granite", "llama3_json", "mistral", "deepseek_v3", "deepseek_v31", "kimi_k2"]


@pytest.mark.parametrize("form", JSON_FORMS)
@given(arguments=ARGUMENTS, count=st.integers(1, 3))
def test_what_a_format_writes_is_read_back(form: str, arguments: dict[str, object], count: int) -> None:
    """Any arguments, tags and quotes and all, one call or several, and no text beside them."""
    text = "\n".join([written(form, "write_file", arguments)] * count)
    answer = parse(form, text)
    assert [(name, json.loads(said)) for name, said in calls(answer)] == [("write_file", arguments)] * count
    assert answer.content == ""


@pytest.mark.parametrize("form", JSON_FORMS)
@given(arguments=ARGUMENTS, cut=st.integers(1, 10_000))
def test_a_call_that_is_cut_is_given_back(form: str, arguments: dict[str, object], cut: int) -> None:
    """Cut anywhere before its end a call is no call: all of its text is content."""
    text = written(form, "write_file", arguments)
    end = text.rindex("}")
    at = cut % (end + 1)
    answer = parse(form, text[:at])
    assert answer.tool_calls == ()
    assert answer.content == text[:at]


@pytest.mark.parametrize("form", JSON_FORMS)
def test_text_around_calls_is_content(form: str) -> None:
    """Before and after, but for the white space between calls."""
    call = written(form, "now", {})
    before = "" if form == "llama3_json" else "Let me see. "
    answer = parse(form, f"{before}{call}\n{call} Done?")
    assert calls(answer) == [("now", "{}")] * 2
    assert answer.content == f"{before} Done?"


@pytest.mark.parametrize("form", JSON_FORMS)
def test_arguments_grow_with_the_text(form: str) -> None:
    """The first half of an argument is sent before the second half is written."""
    text = written(form, "write_file", {"path": "a", "text": "first second"})
    half = text.index("second")
    said = channels(parser(form).push(text[:half]))
    assert said["name", 0] == "write_file"
    assert said["arguments", 0] == '{"path": "a", "text": "first '


@pytest.mark.parametrize("form", JSON_FORMS)
def test_only_offered_tools_are_called(form: str) -> None:
    """A call of a tool that nobody offered is text, and so is any call where there are no tools."""
    text = written(form, "format_disk", {"disk": 1})
    assert parse(form, text).content == text
    text = written(form, "now", {})
    assert parse(form, text, tools=[]).content == text


def test_half_a_call_is_content_and_its_stream_cannot_be_executed() -> None:
    """What was sent of the arguments lacks its last brace; the whole text of the call follows as content."""
    text = '<tool_call>{"name": "write_file", "arguments": {"path": "/etc/passwd"}'
    found = deltas(parser("hermes"), [text])
    assert channels(found)["arguments", 0] == '{"path": "/etc/passwd"'
    assert fold(found).content == text
    assert fold(found).tool_calls == ()


def test_a_control_character_in_a_string_is_escaped() -> None:
    """Models write real line breaks into JSON strings; there is one thing they can mean."""
    answer = parse("hermes", '<tool_call>{"name": "write_file", "arguments": {"text": "a\nb\x01"}}</tool_call>')
    assert json.loads(calls(answer)[0][1]) == {"text": "a\nb\x01"}


def test_arguments_may_be_the_text_of_an_object() -> None:
    """Some models quote them once more."""
    answer = parse("mistral", '[TOOL_CALLS][{"name": "now", "arguments": "{\\"a\\": \\"\\\\u00e9\\"}"}]')
    assert calls(answer) == [("now", '{"a": "\\u00e9"}')]
    half = '[TOOL_CALLS][{"name": "now", "arguments": "{\\"a\\": \\"\\ud83d\\"}"}]'
    assert parse("mistral", half).content == half


@pytest.mark.parametrize("name", ["arguments", "parameters"])
@pytest.mark.parametrize("written_as", ["null", "{}", '"{}"', "{ }"])
def test_a_call_without_arguments_has_none(name: str, written_as: str) -> None:
    """However that is written."""
    answer = parse("hermes", f'<tool_call>{{"name": "now", "{name}": {written_as}}}</tool_call>')
    assert [json.loads(text) for _, text in calls(answer)] == [{}]
    assert [text for _, text in calls(parse("hermes", '<tool_call>{"name": "now"}'))] == ["{}"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "now"}',
        '{"name": "John", "parameters": {}}',
        '{"city": "Paris", "name": "now", "parameters": {}}',
        "[1, 2]",
        '{"now": 1}',
        'I call {"name": "now", "parameters": {}}',
        "{}",
    ],
)
def test_an_answer_in_json_is_no_call(text: str) -> None:
    """Without a tag only an object that is a call from its first key on is one, and only where the answer begins."""
    assert parse("llama3_json", text).content == text


@pytest.mark.parametrize(
    "inner",
    [
        '{"name": "now", "arguments": {"a": NaN}}',
        "{'name': 'now', 'arguments': {}}",
        '{"name": "now", "arguments": {"a": 1,}}',
        '{"name": "now", "arguments": [1]}',
        '{"name": "now", "arguments": {}, "arguments": {"a": 1}}',
        '{"name": "now", "arguments": {}, "parameters": {}}',
        '{"name": "now", "name": "write_file", "arguments": {}}',
        '{"name": "now", "arguments": {"a": "\\x"}}',
        '{"name": "now", "arguments": {"a": 01}}',
        '{"arguments": {}}',
        "now()",
        "",
        '{"name": "now", "arguments": ' + '{"a":' * 100 + "1" + "}" * 100 + "}",
    ],
)
def test_what_is_no_call_is_given_back_as_it_was_written(inner: str) -> None:
    """Wrong JSON, doubtful JSON, JSON too deep to be read by others: never repaired, never lost."""
    text = f"a <tool_call>{inner}</tool_call> b"
    answer = parse("hermes", text)
    assert answer.content == text
    assert answer.tool_calls == ()


def test_parameters_of_xml_are_typed_by_the_schema() -> None:
    """A number is a number, text stays text, and what fits no type is text."""
    text = (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n42\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        "<parameter=wind>\nTrue\n</parameter>\n<parameter=limit>\nnull\n</parameter>\n"
        '<parameter=tags>\n["a", "b"]\n</parameter>\n<parameter=place>\n{"lat": 1.5}\n</parameter>\n'
        "<parameter=other>\n7\n</parameter>\n</function>\n</tool_call>"
    )
    assert json.loads(calls(parse("qwen3_coder", text))[0][1]) == {
        "city": "42", "days": 3, "wind": True, "limit": None, "tags": ["a", "b"], "place": {"lat": 1.5}, "other": "7",
    }  # fmt: skip
    loose = text.replace("3", "three").replace('["a", "b"]', "a, b")
    said = json.loads(calls(parse("qwen3_coder", loose))[0][1])
    assert (said["days"], said["tags"]) == ("three", "a, b")


@given(st.text() | st.lists(st.sampled_from([part for part in PARTS if "parameter" not in part])).map("".join))
def test_text_in_xml_is_read_back(value: str) -> None:
    """Whatever it holds but its own tag, or the tags that end a call."""
    if "</function>\n</tool_call>" in value:
        value = value.replace("</function>", "")
    text = (
        "<tool_call>\n<function=write_file>\n<parameter=path>\na\n</parameter>\n"
        f"<parameter=text>\n{value}\n</parameter>\n</function>\n</tool_call>"
    )
    answer = parse("qwen3_coder", text)
    assert [json.loads(said) for _, said in calls(answer)] == [{"path": "a", "text": value}]
    assert answer.content == ""


def test_a_forgotten_closing_tag_is_seen() -> None:
    """Where another declared parameter begins, or all ends; a tag that is no parameter is text."""
    text = (
        "<tool_call>\n<function=write_file>\n<parameter=path>\na <parameter=b>\n"
        "<parameter=text>\nhello\n</function>\n</tool_call>"
    )
    assert json.loads(calls(parse("qwen3_xml", text))[0][1]) == {"path": "a <parameter=b>", "text": "hello"}


def test_reasoning_ends_once_and_calls_nothing() -> None:
    """A tag inside reasoning is a thought; after it, it is a call."""
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    answer = parse("hermes", f"<think>Should I {call}?</think>\n\n{call}", "qwen3")
    assert answer.reasoning == f"Should I {call}?"
    assert (answer.content, calls(answer)) == ("", [("now", "{}")])
    assert parse("hermes", f"<think>{call}", "qwen3").tool_calls == ()


@pytest.mark.parametrize(
    ("name", "text", "inside", "reasoning", "content"),
    [
        ("deepseek_r1", "a</think>b", False, "a", "b"),
        ("deepseek_r1", "<think>a</think>b", False, "a", "b"),
        ("deepseek_r1", "a", False, "a", ""),
        ("qwen3", "<think>\na\n</think>\n\nb", False, "\na\n", "\n\nb"),
        ("qwen3", "a</think>b", True, "a", "b"),
        ("qwen3", "b", False, "", "b"),
        ("qwen3", " \nb", False, "", " \nb"),
        ("qwen3", "b <think>c</think>", False, "", "b <think>c</think>"),
        ("mistral", "[THINK]a[/THINK]b", False, "a", "b"),
        ("granite", "Here's my thought process: a Here is my response: b", False, " a ", " b"),
        ("seed_oss", "<seed:think>a</seed:think>b", False, "a", "b"),
        ("qwen3", "<think>a</thi", False, "a</thi", ""),
        ("qwen3", "<thi", False, "", "<thi"),
    ],
)
def test_reasoning_is_set_off(name: str, text: str, inside: bool, reasoning: str, content: str) -> None:
    """By the model's own marks, and by what the prompt has opened."""
    answer = parse(None, text, name, starts_in_reasoning=inside)
    assert (answer.reasoning, answer.content) == (reasoning, content)


def test_ids_are_what_templates_take() -> None:
    """Mistral's demand nine letters and digits; all are different."""
    text = "[TOOL_CALLS]now{}[TOOL_CALLS]now{}"
    ids = [call.id for call in fold(deltas(AnswerParser("mistral", None, tools=TOOLS), [text])).tool_calls]
    assert len(set(ids)) == 2
    assert all(len(found) == 9 and found.isalnum() for found in ids)
    assert AnswerParser("mistral", "qwen3", tools=TOOLS).special_texts == (
        "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<think>", "</think>",
    )  # fmt: skip


def test_an_unknown_parser_is_refused_by_name() -> None:
    """With the names that are known."""
    with pytest.raises(UnsupportedFeature, match="no_such"):
        AnswerParser("no_such", None, tools=[])
    with pytest.raises(UnsupportedFeature, match="no_such"):
        AnswerParser(None, "no_such", tools=[])


def steps(text: str, form: str, size: int) -> int:
    """Lines of Python that reading `text` in pieces of `size` characters takes."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    reader = parser(form, "qwen3")
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for at in range(0, len(text), size):
            reader.push(text[at : at + size])
        reader.finish()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("size", [1, 10**9])
@pytest.mark.parametrize(
    ("form", "head", "unit"),
    [
        ("hermes", '<tool_call>{"name": "write_file", "arguments": {"text": "', "x\\n"),
        ("hermes", '<tool_call>{"name": "write_file", "arguments": {"list": [', '{"a": 1}, '),
        ("hermes", "", "<tool_call>{"),
        ("hermes", "", "<tool_call>"),
        ("hermes", "", "<tool_cal"),
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": ', "1"),
        ("hermes", '<tool_call>{"name": "now", "arguments": {}}', "}"),
        ("llama3_json", "", "{"),
        ("llama3_json", "", "["),
        ("mistral", "", "[TOOL_CALLS]now["),
        ("qwen3_coder", "<function=write_file>\n<parameter=text>", "</parameter\n"),
        ("qwen3_coder", "<function=now>\n", "<parameter=a>\n"),
        ("deepseek_v3", "", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n"),
        ("hermes", "", " \n"),
    ],
)
def test_time_grows_with_the_text_and_not_faster(form: str, head: str, unit: str, size: int) -> None:
    """Twice the text takes twice the steps, whatever it begins to look like."""
    short, long = (steps(head + unit * count, form, size) for count in (150, 300))
    assert long < 2.3 * short
