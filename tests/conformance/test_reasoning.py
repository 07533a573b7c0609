"""Reasoning: set off from the answer under one name, the same streamed and whole, whoever opened it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.test_structured import FORM, check
from tests.conformance.test_tools import WEATHER, joined
from tests.support.thinking import CONTENT, OPENED, QUESTION, REASONING

pytestmark = pytest.mark.timeout(600)
ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
BY_WHOM = pytest.mark.parametrize(
    "messages", [ASKED, [{"role": "system", "content": OPENED}, *ASKED]], ids=["by the model", "by the prompt"]
)
"""The model writes the mark that opens it, or the template has written it already."""


def thoughts(chunks: list[Any]) -> tuple[str, str, list[str]]:
    """Reasoning and content of a stream, and in which order they came."""
    reasoning, content, order = "", "", []
    for chunk in chunks:
        for choice in chunk.choices:
            thought = getattr(choice.delta, "reasoning", None) or ""
            text = choice.delta.content or ""
            reasoning, content = reasoning + thought, content + text
            order += ["reasoning"] * bool(thought) + ["content"] * bool(text)
            assert not hasattr(choice.delta, "reasoning_content")
    return reasoning, content, order


@pytest.mark.feature("reasoning")
@BY_WHOM
def test_reasoning_is_set_off_from_the_answer(thinker: Target, messages: list[dict[str, Any]]) -> None:
    """`reasoning` beside `content`, neither with a mark; tokens of both are counted."""
    answer = thinker.chat("", messages=messages)
    (choice,) = answer.choices
    assert (choice.message.reasoning, choice.message.content) == (REASONING, CONTENT)
    assert not hasattr(choice.message, "reasoning_content")
    assert choice.finish_reason == "stop"
    opened_here = len(messages) == 1
    assert answer.usage.completion_tokens == 18 + opened_here


@pytest.mark.feature("reasoning: streaming")
@BY_WHOM
def test_a_stream_thinks_before_it_answers(thinker: Target, messages: list[dict[str, Any]]) -> None:
    """The deltas join to the whole answer's two texts, reasoning first; each delta holds one of them."""
    chunks = list(thinker.chat("", messages=messages, stream=True, stream_options={"include_usage": True}))
    reasoning, content, order = thoughts(chunks)
    assert (reasoning, content) == (REASONING, CONTENT)
    assert order == sorted(order, reverse=True)
    assert order.count("reasoning") > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason] == [
        "stop"
    ]
    assert chunks[-1].usage.completion_tokens == thinker.chat("", messages=messages).usage.completion_tokens


@pytest.mark.feature("reasoning: cut")
@BY_WHOM
def test_reasoning_that_is_cut_stays_reasoning(thinker: Target, messages: list[dict[str, Any]]) -> None:
    """An answer that ends while it thinks has no content, by its length or by a stop string."""
    for cut, reason in (({"max_tokens": 5}, "length"), ({"stop": " France"}, "stop")):
        (choice,) = thinker.chat("", messages=messages, **cut).choices
        assert choice.message.content is None
        assert choice.message.reasoning
        assert REASONING.startswith(choice.message.reasoning)
        assert choice.finish_reason == reason
        streamed = thoughts(list(thinker.chat("", messages=messages, stream=True, **cut)))
        assert streamed[:2] == (choice.message.reasoning, "")


@pytest.mark.feature("reasoning: with response_format")
@BY_WHOM
def test_what_follows_the_reasoning_is_held_to_the_form(thinker: Target, messages: list[dict[str, Any]]) -> None:
    """Reasoning is free, the content is the schema's, streamed or not."""
    message = thinker.chat("", messages=messages, response_format=FORM, max_tokens=200).choices[0].message
    assert message.reasoning == REASONING
    check(message.content)
    chunks = list(thinker.chat("", messages=messages, response_format=FORM, max_tokens=200, stream=True))
    reasoning, content, _ = thoughts(chunks)
    assert reasoning == REASONING
    check(content)


@pytest.mark.feature("reasoning: with tools")
@BY_WHOM
def test_a_call_follows_the_reasoning(thinker: Target, messages: list[dict[str, Any]]) -> None:
    """A forced call comes after what the model thought, and no text with it."""
    asked = {"messages": messages, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 200}
    (choice,) = thinker.chat("", **asked).choices
    assert choice.message.reasoning == REASONING
    assert not choice.message.content
    assert choice.finish_reason == "tool_calls"
    called = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    chunks = list(thinker.chat("", **asked, stream=True))
    assert thoughts(chunks)[:2] == (REASONING, "")
    _, calls, reason = joined(chunks)
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == called
    assert reason == "tool_calls"
