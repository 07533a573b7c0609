"""Chat completions: the words, the shapes, the counts."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Target, served

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.mark.feature("chat")
def test_a_question_is_answered(target: Target) -> None:
    """One message, one choice, in OpenAI's shape, with a usage that adds up."""
    answer = target.chat(QUESTION)
    assert answer.object == "chat.completion"
    assert answer.model == target.model
    (choice,) = answer.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.message.content == ANSWER
    assert choice.message.tool_calls is None or choice.message.tool_calls == []
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


@pytest.mark.feature("chat: streaming")
def test_a_stream_says_what_the_whole_answer_says(target: Target) -> None:
    """The deltas join to the same text; the first names the role, the last the reason, and nothing follows."""
    chunks = list(target.chat(QUESTION, stream=True))
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert len(chunks) > 3


@pytest.mark.feature("chat: usage in streams")
def test_usage_comes_at_the_end_of_a_stream_that_asks_for_it(target: Target) -> None:
    """One last chunk without choices, with the counts of the answer that is not streamed."""
    whole = target.chat(QUESTION).usage
    chunks = list(target.chat(QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.feature("chat: conversations")
def test_earlier_turns_are_read(target: Target) -> None:
    """System, user and assistant turns, and content in parts, reach the model."""
    talk = [
        {"role": "system", "content": "You repeat codes."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "assistant", "content": "Hello! I am a demonstration model."},
        {"role": "user", "content": QUESTION},
    ]
    assert target.chat("", messages=talk).choices[0].message.content == ANSWER


@pytest.mark.feature("length limits")
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_no_longer_than_asked(target: Target, field: str) -> None:
    """It stops at the count and says `length`."""
    answer = target.client.chat.completions.create(
        model=target.model, messages=[{"role": "user", "content": QUESTION}], temperature=0, **{field: 3}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


@pytest.mark.feature("stop strings")
def test_an_answer_ends_before_a_stop_string(target: Target) -> None:
    """The string itself is not in the answer, streamed or not, and the reason is `stop`."""
    for stop in (" Paris", ["never", "is P"]):
        answer = target.chat(QUESTION, stop=stop)
        text = answer.choices[0].message.content
        first = [stop] if isinstance(stop, str) else stop
        assert text == ANSWER.partition(first[-1])[0]
        assert answer.choices[0].finish_reason == "stop"
        streamed = target.chat(QUESTION, stop=stop, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text


@pytest.mark.feature("several choices (n)")
def test_n_gives_so_many_choices(target: Target) -> None:
    """Each with its index; the prompt is counted once."""
    one = target.chat(QUESTION, temperature=1.0, seed=1)
    answer = served(lambda: target.chat(QUESTION, n=3, temperature=1.0, seed=1))
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2]
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens >= 3
    texts = {0: "", 1: "", 2: ""}
    for chunk in target.chat(QUESTION, n=3, temperature=1.0, seed=1, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts.values())


@pytest.mark.feature("log-probabilities")
def test_log_probabilities_of_a_chat(target: Target) -> None:
    """One entry for each token, none above 0, the alternatives in order, the greedy one among them."""
    answer = served(lambda: target.chat(QUESTION, logprobs=True, top_logprobs=3))
    entries = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries).startswith(ANSWER)
    for entry in entries:
        assert entry.logprob <= 1e-6
        ranked = [other.logprob for other in entry.top_logprobs]
        assert len(ranked) == 3
        assert ranked == sorted(ranked, reverse=True)
        assert entry.top_logprobs[0].token == entry.token
        assert bytes(entry.bytes).decode() == entry.token
    streamed = [
        entry
        for chunk in target.chat(QUESTION, logprobs=True, top_logprobs=3, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]
    plain = target.chat(QUESTION, logprobs=True).choices[0].logprobs.content
    assert [entry.logprob for entry in plain] == pytest.approx([entry.logprob for entry in entries], abs=0.02)
