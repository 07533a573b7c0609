"""Log-probabilities are those of the row as it came."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.generation.logprobs import log_probability
from serving.openai.logprobs import ChatLogprobs, CompletionLogprobs, TokenLogprob


@given(st.integers(1, 1500), st.integers(0, 1000), st.floats(0, 30), st.floats(-1000, 1000))
def test_they_are_the_log_softmax(size: int, seed: int, scale: float, shift: float) -> None:
    """Over the whole vocabulary their exponentials sum to one, and each is numpy's in double precision."""
    rng = np.random.default_rng(seed)
    raw = (rng.standard_normal(size) * scale + shift).astype(np.float32)
    chosen = int(rng.integers(size))
    found = log_probability(raw, chosen, size)
    double = raw.astype(np.float64)
    expected = double - double.max() - math.log(np.exp(double - double.max()).sum())
    assert sorted(token for token, _ in found.top) == list(range(size))
    assert math.isclose(sum(math.exp(logprob) for _, logprob in found.top), 1.0, rel_tol=1e-4)
    assert np.allclose([logprob for _, logprob in found.top], [expected[token] for token, _ in found.top], atol=1e-3)
    assert math.isclose(found.logprob, expected[chosen], abs_tol=1e-3)
    assert [logprob for _, logprob in found.top] == sorted((logprob for _, logprob in found.top), reverse=True)
    assert found.top[0][0] == int(raw.argmax())


def test_no_more_are_listed_than_asked_for() -> None:
    """None for none."""
    raw = np.arange(10, dtype=np.float32)
    assert log_probability(raw, 3, 0).top == ()
    assert [token for token, _ in log_probability(raw, 3, 2).top] == [9, 8]


PIECES = [b"", b"a", "\u0416".encode()[:1], "\u0416".encode()[1:], b"bc"]


def special(token: int) -> bytes:
    return b"<end>"


@pytest.mark.parametrize("logprob", [-math.inf, math.nan])
def test_what_json_cannot_say_is_the_least(logprob: float) -> None:
    """A probability of zero is -9999, as everywhere else."""
    body = ChatLogprobs(PIECES, special).body([TokenLogprob(1, logprob, ((4, logprob),))])
    assert body["content"][0]["logprob"] == body["content"][0]["top_logprobs"][0]["logprob"] == -9999.0


def test_the_bytes_of_a_chat_make_its_text() -> None:
    """Also where a character is cut in two; control tokens are written out."""
    entries = [TokenLogprob(token, -1.0, ()) for token in (1, 2, 3, 4)]
    content = ChatLogprobs(PIECES, special).body(entries)["content"]
    assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == "a\u0416bc"
    assert [entry["token"] for entry in content] == ["a", "\ufffd", "\ufffd", "bc"]
    assert ChatLogprobs(PIECES, special).body([TokenLogprob(0, -1.0, ())])["content"][0]["token"] == "<end>"


def test_offsets_are_characters_of_the_answer() -> None:
    """Also over several calls, as in a stream."""
    entries = [TokenLogprob(token, -1.0, ((1, -0.5),)) for token in (1, 2, 3, 4, 0)]
    whole = CompletionLogprobs(PIECES, special).body(entries)
    assert whole["text_offset"] == [0, 1, 1, 2, 4]
    assert whole["tokens"] == ["a", "bytes:\\xd0", "bytes:\\x96", "bc", "<end>"]
    assert whole["top_logprobs"][3] == {"bc": -1.0, "a": -0.5}
    stream = CompletionLogprobs(PIECES, special)
    parts = [stream.body(entries[:2]), stream.body(entries[2:])]
    assert {key: parts[0][key] + parts[1][key] for key in whole} == whole
