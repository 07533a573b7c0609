"""Calling tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Target, served

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Get the time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["utc", "local"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
ASKED = "What is the weather in Paris?"


def joined(chunks: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """Content, calls and reason of a stream."""
    content, calls, reason = "", {}, None
    for chunk in chunks:
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += part.id or ""
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    return content, [calls[index] for index in sorted(calls)], reason


@pytest.mark.feature("tools: auto")
def test_a_call_that_the_model_writes_is_a_tool_call(target: Target) -> None:
    """Name and arguments, an id, `tool_calls` as the reason, and no content; streamed the same."""
    answer = served(lambda: target.chat(ASKED, tools=[WEATHER]))
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert not choice.message.content
    assert choice.finish_reason == "tool_calls"
    content, calls, reason = joined(target.chat(ASKED, tools=[WEATHER], stream=True))
    assert not content
    assert reason == "tool_calls"
    assert [(each["name"], json.loads(each["arguments"])) for each in calls] == [("get_weather", {"city": "Paris"})]


@pytest.mark.feature("tools: results")
def test_a_tools_result_is_read(target: Target) -> None:
    """The conversation goes on from it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    talk = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees"},
    ]
    answer = served(lambda: target.chat("", messages=talk, tools=[WEATHER]))
    assert answer.choices[0].message.content == "The answer is 21 degrees."


@pytest.mark.feature("tools: none")
def test_none_calls_nothing(target: Target) -> None:
    """Whatever the model writes, it is text."""
    answer = served(lambda: target.chat(ASKED, tools=[WEATHER], tool_choice="none"))
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason in ("stop", "length")


@pytest.mark.feature("tools: required")
@pytest.mark.parametrize("stream", [False, True])
def test_required_calls_one_of_them(target: Target, *, stream: bool) -> None:
    """Even where the model would rather talk; the arguments keep to the schema."""
    asked = {"tools": [TIME], "tool_choice": "required", "max_tokens": 200, "stream": stream}
    answer = served(lambda: target.chat("Hello!", **asked))
    if stream:
        _, calls, _ = joined(answer)
    else:
        calls = [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in answer.choices[0].message.tool_calls
        ]
    assert calls
    for call in calls:
        assert call["name"] == "get_time"
        assert json.loads(call["arguments"])["zone"] in ("utc", "local")


@pytest.mark.feature("tools: named")
@pytest.mark.parametrize("stream", [False, True])
def test_the_named_tool_is_called(target: Target, *, stream: bool) -> None:
    """That one, once, whatever else is offered."""
    choice = {"type": "function", "function": {"name": "get_time"}}
    asked = {"tools": [WEATHER, TIME], "tool_choice": choice, "max_tokens": 200, "stream": stream}
    answer = served(lambda: target.chat(ASKED, **asked))
    if stream:
        content, calls, _ = joined(answer)
        assert not content
    else:
        calls = [
            {"name": call.function.name, "arguments": call.function.arguments}
            for call in answer.choices[0].message.tool_calls
        ]
    (call,) = calls
    assert call["name"] == "get_time"
    assert json.loads(call["arguments"])["zone"] in ("utc", "local")


@pytest.mark.feature("tools: parallel_tool_calls false")
def test_one_call_at_most_where_parallel_ones_are_forbidden(target: Target) -> None:
    """Required and not parallel is exactly one."""
    answer = served(
        lambda: target.chat("Hello!", tools=[TIME], tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    )
    assert len(answer.choices[0].message.tool_calls) == 1
