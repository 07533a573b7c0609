"""Several answers to one prompt, from the real engine."""

from __future__ import annotations

import json

import openai
import pytest

from tests.support.demo import llamacpp, needs_demo
from tests.support.harness import Gateway, chat, gateway, wait_until

pytestmark = needs_demo

MESSAGES = chat("Who are you?")["messages"]
LONG = "one two three four five six seven eight nine ten " * 4
WARM = {"temperature": 2.0, "max_tokens": 30, "extra_body": {"ignore_eos": True}}


@pytest.mark.parametrize("logprobs", [None, 1])
def test_streamed_choices_are_the_same(client: openai.OpenAI, logprobs: int | None) -> None:
    """Each with its index, its own end and its own text; one usage over all of them."""
    asked = {"model": "m", "prompt": LONG, "n": 4, "seed": 11, "logprobs": logprobs, **WARM}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    for choice in whole.choices:
        own = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own if part.finish_reason] == [choice.finish_reason] == ["length"]
        assert own[-1].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({choice.text for choice in whole.choices}) == 4
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens == 4 * 30
    assert whole.usage.prompt_tokens == chunks[-1].usage.prompt_tokens
    assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:]
    order = [part.index for part in parts]
    assert order != sorted(order), "one after the other is not together"


def test_a_chat_has_choices_too(client: openai.OpenAI) -> None:
    """Each begins with the role; greedy ones agree."""
    asked = {"model": "m", "messages": MESSAGES, "n": 3, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)
    assert len({choice.message.content for choice in whole.choices}) == 1
    parts = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    assert sorted(part.index for part in parts if part.delta.role) == [0, 1, 2]
    for index in range(3):
        text = "".join(part.delta.content or "" for part in parts if part.index == index)
        assert text == whole.choices[index].message.content


@pytest.mark.parametrize("seed", [7, -7, 0])
def test_the_first_choice_is_the_only_one(client: openai.OpenAI, seed: int) -> None:
    """With a seed, choice 0 is the answer of `n` 1, the others differ from it, and all come again."""
    asked = {"model": "m", "prompt": LONG, "seed": seed, **WARM}
    alone = client.completions.create(**asked).choices[0].text
    texts = [[choice.text for choice in client.completions.create(**asked, n=3).choices] for _ in range(2)]
    assert texts[0] == texts[1]
    assert texts[0][0] == alone
    assert len(set(texts[0])) == 3


def test_the_prompt_is_computed_once(directory: pytest.TempPathFactory) -> None:
    """The choices share it while the first one computes it, and it is counted once."""
    with gateway(directory, **llamacpp(directory)) as served:
        before = served.metric("perimeter_engine_computed_prompt_tokens")
        answer = served.post("/v1/completions", {"model": "m", "prompt": LONG, "n": 8, "max_tokens": 2}).json
        usage = answer["usage"]
        computed = served.metric("perimeter_engine_computed_prompt_tokens") - before
        assert usage["prompt_tokens"] > 50
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0
        assert usage["prompt_tokens"] <= computed <= usage["prompt_tokens"] + 7 * 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_takes_all_its_choices_along(demo: Gateway, stream: bool) -> None:
    """Every sequence of the request is free within a step, and so is its place in the queue."""
    for _ in range(3):
        body = {"model": "m", "prompt": "a", "n": 8, "max_tokens": 480, "ignore_eos": True, "stream": stream}
        gone = demo.client()
        gone.post("/v1/completions", json.dumps(body).encode())
        wait_until(lambda: demo.metric("perimeter_engine_running{") == 8, "all eight run")
        gone.close()
        wait_until(lambda: demo.metric("perimeter_engine_running{") == 0, "none runs", 2)
    wait_until(demo.is_idle, "no place is lost")


def test_each_choice_takes_a_place(directory: pytest.TempPathFactory) -> None:
    """What could never be inside at once is a 400; what does not fit now is told to come again."""
    given = llamacpp(directory)
    given["argv"] += ["--parallel", "2", "--max-queue", "3"]
    with gateway(directory, **given) as served:
        refused = served.post("/v1/completions", {"model": "m", "prompt": "a", "n": 6})
        assert (refused.status, refused.error["param"], refused.error["code"]) == (400, "n", "invalid_request_error")
        held = served.client()
        body = {"model": "m", "prompt": "a", "n": 3, "max_tokens": 480, "ignore_eos": True, "stream": True}
        held.post("/v1/completions", json.dumps(body).encode())
        assert held.head()[0] == 200
        refused = served.post("/v1/completions", {"model": "m", "prompt": "a", "n": 3, "max_tokens": 1})
        assert (refused.status, refused.error["code"]) == (503, "overloaded")
        held.close()
        wait_until(
            lambda: (
                served.post("/v1/completions", {"model": "m", "prompt": "a", "n": 5, "max_tokens": 2}).status == 200
            ),
            "five find room",
        )
