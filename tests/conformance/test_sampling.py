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
    """Where only letters may be written, each of the penalties brings in letters that greed alone does not."""
    letters = {str(tokens_of(target, {"prompt": letter})[-1]): 100 for letter in "abcdefghijklmnopqrstuvwxyz"}
    asked = {"logit_bias": letters, "max_tokens": 24}
    plain = target.complete("x", **asked, extra_body={"ignore_eos": True}).choices[0].text
    assert len(plain) == 24
    for more in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 2.0}):
        changed = target.complete("x", **asked, extra_body={"ignore_eos": True, **more}).choices[0].text
        assert len(set(changed)) > len(set(plain))


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
