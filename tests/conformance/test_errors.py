"""What cannot be served is one clear error, the same on every engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.conformance.conftest import Target


@pytest.mark.feature("context overflow is a 400")
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_refused(target: Target, *, stream: bool) -> None:
    """Never cut: one 400, whose code is OpenAI's."""
    with pytest.raises(openai.BadRequestError) as caught:
        target.chat("Hello! " * 4096, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        target.complete("Hello!", max_tokens=100_000, stream=stream)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.feature("unknown model is a 404")
def test_a_model_that_is_not_served_is_not_found(target: Target) -> None:
    """By name."""
    with pytest.raises(openai.NotFoundError) as caught:
        target.client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"
    assert "gpt-4" in caught.value.message


BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 100_000}, "n"),
    ({"stop": ["x"] * 1000}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"stream": "yes"}, "stream"),
    ({"frequency_penalty": 9}, "frequency_penalty"),
    ({"seed": 0.5}, "seed"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "Hi"}]}, "role"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"response_format": {"type": "yaml"}}, "response_format"),
    ({"unheard_of": 1}, "unheard_of"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
    ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ({"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
    ({"kv_transfer_params": {}}, "kv_transfer_params"),
    ({"priority": 5}, "priority"),
    ({"vllm_xargs": {}}, "vllm_xargs"),
    ({"cache_salt": "mine"}, "cache_salt"),
]


@pytest.mark.feature("wrong and unknown parameters are a 400")
@pytest.mark.parametrize(("change", "named"), BAD, ids=[f"{named}-{at}" for at, (_, named) in enumerate(BAD)])
def test_a_wrong_parameter_is_named(target: Target, change: dict[str, Any], named: str) -> None:
    """One 400 that says which."""
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **change}
    with pytest.raises(openai.BadRequestError) as caught:
        target.client.post("/chat/completions", cast_to=object, body=body)
    told = f"{caught.value.param} {caught.value.message}"
    assert named in told
