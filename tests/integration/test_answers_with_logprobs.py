"""Log-probabilities from the real engine, as the official client reads them."""

from __future__ import annotations

import math

import numpy as np
import openai
import pytest

from serving.llamacpp import binding
from tests.support.demo import MODEL, needs_demo
from tests.support.harness import Gateway, chat

pytestmark = needs_demo

MESSAGES = chat("Who are you?")["messages"]
NOISE = {"temperature": 2.0, "seed": 5, "max_tokens": 120, "extra_body": {"ignore_eos": True}}
"""Tokens from everywhere in the vocabulary: characters in pieces, control tokens."""


@pytest.mark.parametrize("stop", [None, ["e", "\u0440"], [" a", "zq"]], ids=str)
def test_a_streamed_chat_carries_the_same(client: openai.OpenAI, stop: list[str] | None) -> None:
    """Each token once and in order, whatever was held back; as many as the usage counts; each chunk has its own."""
    asked = {"model": "m", "messages": MESSAGES, "logprobs": True, "top_logprobs": 3, "stop": stop, **NOISE}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.choices[0] for chunk in chunks if chunk.choices]
    streamed = [entry for part in parts if part.logprobs for entry in part.logprobs.content]
    content = whole.choices[0].logprobs.content
    assert "".join(part.delta.content or "" for part in parts) == whole.choices[0].message.content
    assert [(entry.token, entry.bytes) for entry in streamed] == [(entry.token, entry.bytes) for entry in content]
    assert np.allclose([entry.logprob for entry in streamed], [entry.logprob for entry in content], atol=0.05)
    assert len(content) == whole.usage.completion_tokens == chunks[-1].usage.completion_tokens
    assert whole.choices[0].logprobs.refusal is None
    assert all(part.logprobs for part in parts if part.delta.content)
    assert all(len(entry.top_logprobs) == 3 for entry in content)
    text = b"".join(bytes(entry.bytes) for entry in content if not entry.token.startswith("<|")).decode(
        "utf-8", "replace"
    )
    assert text.startswith(whole.choices[0].message.content.rstrip("\ufffd"))


def test_a_streamed_completion_carries_the_same(client: openai.OpenAI) -> None:
    """The parallel lists, joined over the chunks; offsets are places in the text."""
    asked = {"model": "m", "prompt": "My code", "logprobs": 2, **NOISE}
    whole = client.completions.create(**asked).choices[0]
    parts = [chunk.choices[0] for chunk in client.completions.create(**asked, stream=True) if chunk.choices]
    found = [part.logprobs for part in parts if part.logprobs]
    assert "".join(part.text for part in parts) == whole.text
    assert [token for each in found for token in each.tokens] == whole.logprobs.tokens
    assert [offset for each in found for offset in each.text_offset] == whole.logprobs.text_offset
    assert len(whole.logprobs.token_logprobs) == len(whole.logprobs.top_logprobs) == 120
    for token, logprob, top, offset in zip(
        whole.logprobs.tokens,
        whole.logprobs.token_logprobs,
        whole.logprobs.top_logprobs,
        whole.logprobs.text_offset,
        strict=True,
    ):
        assert top[token] == logprob
        assert len(top) <= 3
        if not token.startswith(("bytes:", "<|")):
            assert whole.text[offset : offset + len(token)] == token


def test_greedy_takes_the_top_one(client: openai.OpenAI) -> None:
    """And its probability is that of the model, at whatever temperature, bias and penalty."""
    answer = client.chat.completions.create(
        model="m", messages=MESSAGES, temperature=0, max_tokens=24, logprobs=True, top_logprobs=20
    )
    for entry in answer.choices[0].logprobs.content:
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
        assert sum(math.exp(other.logprob) for other in entry.top_logprobs) < 1.0001


def test_they_are_the_models_own(demo: Gateway) -> None:
    """Equal to the log-softmax of llama.cpp's logits; temperature, bias, penalties and top_k change nothing of them."""
    prompt = "My code is"
    tokens = demo.post("/tokenize", {"prompt": prompt}).json["tokens"]
    binding.start_backend()
    model = binding.Model(MODEL)
    context = binding.Context(model, binding.ContextOptions("streams", 128, 1, 128, 128, 1))
    context.prefill(0, tokens, 0, wants_logits=True)
    logits = context.logits(1)[0].astype(np.float64)
    expected = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
    texts = [model.special_piece(token).decode("utf-8", "replace") for token in np.argsort(-expected)[:5]]
    context.close()
    model.close()
    for fields in ({}, {"temperature": 0.3, "top_k": 2}, {"logit_bias": {"5": 100}}, {"repetition_penalty": 2}):
        asked = {"model": "m", "prompt": tokens, "max_tokens": 1, "logprobs": 5, "seed": 1, **fields}
        found = demo.post("/v1/completions", asked).json["choices"][0]["logprobs"]
        likeliest = sorted(found["top_logprobs"][0].items(), key=lambda pair: -pair[1])[:5]
        assert [text for text, _ in likeliest] == texts
        assert np.allclose([logprob for _, logprob in likeliest], np.sort(expected)[::-1][:5], atol=0.02)


def test_nobody_gets_them_unasked(client: openai.OpenAI) -> None:
    """Null, as OpenAI has it."""
    assert client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2).choices[0].logprobs is None
    for chunk in client.completions.create(model="m", prompt="a", max_tokens=2, stream=True):
        assert all(choice.logprobs is None for choice in chunk.choices)
