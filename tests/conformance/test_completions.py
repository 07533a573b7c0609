"""Plain completions, and tokens as numbers."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Target, served, tokens_of

PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.feature("completions")
def test_a_prompt_is_continued(target: Target) -> None:
    """Text in OpenAI's shape, the same streamed."""
    answer = target.complete(PROMPT)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    streamed = list(target.complete(PROMPT, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == answer.choices[0].text
    assert streamed[-1].usage.completion_tokens == answer.usage.completion_tokens


@pytest.mark.feature("completions: token ids as prompt")
def test_token_ids_are_taken_as_they_are(target: Target) -> None:
    """The ids of a text are continued as the text is."""
    ids = tokens_of(target, {"prompt": PROMPT})
    assert target.complete(ids).choices[0].text == target.complete(PROMPT).choices[0].text
    assert target.complete([ids]).usage.prompt_tokens == len(ids)


@pytest.mark.feature("completions: log-probabilities")
def test_log_probabilities_of_a_completion(target: Target) -> None:
    """Tokens, their log-probabilities, alternatives and offsets, one for each token."""
    answer = served(lambda: target.complete(PROMPT, logprobs=2))
    told = answer.choices[0].logprobs
    count = len(told.tokens)
    assert count == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert count >= answer.usage.completion_tokens - 1
    assert all(value <= 1e-6 for value in told.token_logprobs)
    assert all(2 <= len(others) <= 3 for others in told.top_logprobs)
    assert "".join(told.tokens).startswith(answer.choices[0].text)


@pytest.mark.feature("tokenize, detokenize")
def test_tokens_and_text_are_each_others_inverse(target: Target) -> None:
    """A text, a chat and its usage count the same."""
    for text in ("Hello!", "Привет, мир", "a\n\nb  c"):
        body = {"model": target.model, "tokens": tokens_of(target, {"prompt": text})}
        back = target.client.post("/../detokenize", cast_to=object, body=body)
        assert back == {"prompt": text}
    messages = [{"role": "user", "content": "Hello!"}]
    assert len(tokens_of(target, {"messages": messages})) == target.chat("Hello!").usage.prompt_tokens


@pytest.mark.feature("models")
def test_the_model_is_listed(target: Target) -> None:
    """In the list, and by itself."""
    assert target.model in [model.id for model in target.client.models.list().data]
    assert target.client.models.retrieve(target.model).id == target.model
