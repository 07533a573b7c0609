"""Tokens are drawn from exactly the distribution that the options describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.generation.sampling import Sampler
from serving.openai.fields import Sampling

N = 600
"""Larger than two blocks of the inverse transform, and no multiple of one."""


@pytest.fixture(autouse=True)
def _as_on_the_engine_thread() -> Iterator[None]:
    with np.errstate(over="ignore"):
        yield


def row(seed: int = 0, n: int = N, scale: float = 2.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def draws(options: Sampling, logits: np.ndarray, count: int) -> Counter[int]:
    sampler = Sampler(options, [], [], len(logits))
    return Counter(sampler.sample(logits.copy()) for _ in range(count))


def reference(options: Sampling, logits: np.ndarray) -> np.ndarray:
    """The distribution by the book, in double precision: min_p, then top_k, then top_p, ties to the lower id."""
    p = np.exp((logits.astype(np.float64) - logits.max()) / options.temperature)
    p /= p.sum()
    if options.min_p:
        p[p < options.min_p * p.max()] = 0
    if options.top_k:
        order = np.argsort(-p, kind="stable")
        p[order[options.top_k :]] = 0
    if options.top_p < 1:
        order = np.argsort(-p, kind="stable")
        mass = np.cumsum(p[order]) / p.sum()
        keep = int(np.searchsorted(mass, options.top_p, side="left")) + 1
        p[order[keep:]] = 0
    return p / p.sum()


OPTIONS = [
    Sampling(seed=1),
    Sampling(seed=2, temperature=0.7),
    Sampling(seed=3, temperature=1.5, top_p=0.95),
    Sampling(seed=4, top_p=0.6),
    Sampling(seed=5, top_p=0.3),
    Sampling(seed=6, top_k=5),
    Sampling(seed=7, top_k=40, top_p=0.8),
    Sampling(seed=8, min_p=0.05),
    Sampling(seed=9, min_p=0.02, top_k=50, top_p=0.9, temperature=1.2),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frequencies_match_the_distribution(options: Sampling) -> None:
    """A chi-squared statistic over 20,000 draws is within six standard deviations; nothing outside is ever drawn."""
    logits = row()
    count = 20_000
    found, expected = draws(options, logits, count), reference(options, logits) * count
    assert all(expected[token] > 0 for token in found)
    common = np.flatnonzero(expected >= 5)
    rest = expected.sum() - expected[common].sum()
    seen = np.array([found.get(int(token), 0) for token in common], dtype=float)
    statistic = float(((seen - expected[common]) ** 2 / expected[common]).sum())
    if rest >= 5:
        statistic += (count - seen.sum() - rest) ** 2 / rest
    freedom = max(len(common) - 1 + (rest >= 5), 1)
    assert statistic < freedom + 6 * np.sqrt(2 * freedom)


@given(st.integers(0, 2**31), st.floats(0.01, 0.99), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_every_draw_is_inside_the_nucleus(seed: int, top_p: float, scale: int) -> None:
    """For any shape of distribution, top_p never lets a token through that the definition excludes."""
    logits = row(seed % 1000, n=300, scale=scale / 10)
    options = Sampling(seed=seed, top_p=top_p)
    allowed = reference(Sampling(top_p=min(top_p + 1e-6, 1.0)), logits)
    assert all(allowed[token] > 0 for token in draws(options, logits, 20))


def test_temperature_zero_takes_the_likeliest() -> None:
    """Greedy is the argmax, whatever else is set."""
    logits = row()
    assert draws(Sampling(temperature=0, top_p=0.5, seed=1), logits, 3) == {int(logits.argmax()): 3}


def test_the_same_seed_gives_the_same_tokens() -> None:
    """Two samplers with one seed agree; another seed does not."""
    logits = row()

    def stream(seed: int) -> list[int]:
        sampler = Sampler(Sampling(seed=seed), [], [], N)
        return [sampler.sample(logits.copy()) for _ in range(20)]

    assert stream(5) == stream(5)
    assert stream(5) != stream(6)


def test_bias_and_end_tokens() -> None:
    """A bias of 100 forces a token; with ignore_eos or too few tokens an end token is never drawn."""
    logits = np.zeros(N, dtype=np.float32)
    assert draws(Sampling(seed=1, logit_bias=((7, 100.0),)), logits, 20) == {7: 20}
    certain = logits.copy()
    certain[3] = 50
    sampler = Sampler(Sampling(seed=1, min_tokens=2), [], [3], N)
    tokens = [sampler.sample(certain.copy()) for _ in range(3)]
    assert tokens[0] != 3
    assert tokens[1] != 3
    assert tokens[2] == 3
    assert 3 not in draws_with_ends(Sampling(seed=1, ignore_eos=True), certain, [3])


def draws_with_ends(options: Sampling, logits: np.ndarray, ends: list[int]) -> set[int]:
    sampler = Sampler(options, [], ends, len(logits))
    return {sampler.sample(logits.copy()) for _ in range(50)}


def test_penalties_count_what_was_generated() -> None:
    """Presence once, frequency by count, repetition over prompt and answer, by OpenAI's and vLLM's formulas."""
    logits = np.array([2.0, 1.9, -1.0], dtype=np.float32)
    presence = Sampler(Sampling(temperature=0, presence_penalty=0.2), [], [], 3)
    assert [presence.sample(logits.copy()) for _ in range(3)] == [0, 1, 0]
    frequency = Sampler(Sampling(temperature=0, frequency_penalty=0.06), [], [], 3)
    assert [frequency.sample(logits.copy()) for _ in range(4)] == [0, 0, 1, 0]
    repetition = Sampler(Sampling(temperature=0, repetition_penalty=2.0), [0], [], 3)
    assert repetition.sample(logits.copy()) == 1


@pytest.mark.parametrize("shift", [80.0, 200.0, 5000.0, -80.0, -200.0, -5000.0])
def test_what_is_added_to_all_logits_changes_nothing(shift: float) -> None:
    """Also where the exponentials of the logits themselves are beyond what a float can hold."""
    logits = row(seed=3)
    plain, shifted = (Sampler(Sampling(seed=11, temperature=0.8), [], [], N) for _ in range(2))
    moved = [shifted.sample(logits + np.float32(shift)) for _ in range(200)]
    same = sum(token == plain.sample(logits.copy()) for token in moved)
    assert same >= 198  # adding rounds the logits, so that a draw at an edge may fall to the neighbour


def test_a_row_without_a_finite_value_is_no_crash() -> None:
    """A broken model (all NaN or minus infinity) still gives some token."""
    for value in (np.nan, -np.inf):
        assert 0 <= Sampler(Sampling(seed=1), [], [], 8).sample(np.full(8, value, dtype=np.float32)) < 8
