"""What shapes the choice of tokens."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Target, tokens_of

QUESTION = "What is the capital of France?"


def text(answer: object) -> str:
    """The text of the first choice."""
    return answer.choices[0].message.content or ""  # type: ignore[attr-defined]


@pytest.mark.feature("seed")
def test_a_seed_repeats_an_answer(target: Target) -> None:
    """At temperature 1, alone; other seeds give other answers."""
    answers = [text(target.chat("Tell me.", temperature=1.5, seed=seed)) for seed in (7, 7, 8, 9, 10)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1


@pytest.mark.feature("temperature, top_p, top_k, min_p")
def test_a_narrow_choice_is_the_greedy_one(target: Target) -> None:
    """Each of the three narrowed to one token gives what temperature 0 gives."""
    greedy = text(target.chat(QUESTION))
    assert text(target.chat(QUESTION, temperature=1.0, top_p=1e-6)) == greedy
    assert text(target.chat(QUESTION, temperature=1.0, extra_body={"top_k": 1})) == greedy
    assert text(target.chat(QUESTION, temperature=1.0, extra_body={"min_p": 1.0})) == greedy


@pytest.mark.feature("penalties")
def test_penalties_change_repetition(target: Target) -> None:
    """Of two letters that are nearly as likely the first is written on and on; each penalty brings in the second."""
    first, second = (tokens_of(target, {"prompt": letter})[-1] for letter in "ab")
    prompt = [first] * 30  # one more changes little

    def written(bias: float, count: int, **more: float) -> str:
        asked = {"logit_bias": {str(first): 70, str(second): bias}, "max_tokens": count}
        answer = target.complete(prompt, **asked, extra_body={"ignore_eos": True, **more})
        return str(answer.choices[0].text)

    # The least bias with which the second comes first; one below it the two are less than 2 apart.
    even = next(bias for bias in range(40, 101) if written(bias, 1) == "b")
    assert written(even - 1, 2) == "aa"
    for more in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert written(even - 1, 2, **more) == "ab"
    assert written(even - 1, 1, repetition_penalty=2.0) == "b"  # it counts the prompt, too


@pytest.mark.feature("logit_bias")
def test_a_bias_forbids_and_forces(target: Target) -> None:
    """-100 keeps a token out, 100 brings it in; an id that does not exist is a 400 (see the errors)."""
    (token,) = tokens_of(target, {"prompt": "a"})
    assert target.complete("x", logit_bias={str(token): 100}, max_tokens=3).choices[0].text == "aaa"
    free = text(target.chat(QUESTION))
    ids = tokens_of(target, {"prompt": free})
    banned = text(target.chat(QUESTION, logit_bias={str(token): -100 for token in ids[:3]}))
    assert not banned.startswith(free[:3])


@pytest.mark.feature("min_tokens, ignore_eos, stop_token_ids")
def test_the_end_can_be_put_off(target: Target) -> None:
    """`min_tokens` and `ignore_eos` carry an answer past its own end."""
    usual = target.chat(QUESTION).usage.completion_tokens
    longer = target.chat(QUESTION, extra_body={"min_tokens": usual + 5})
    assert longer.usage.completion_tokens >= usual + 5
    whole = target.chat(QUESTION, max_tokens=usual + 8, extra_body={"ignore_eos": True})
    assert whole.usage.completion_tokens == usual + 8
    assert whole.choices[0].finish_reason == "length"
