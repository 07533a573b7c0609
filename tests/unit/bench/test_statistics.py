"""A 95% interval holds the truth in about 95 of 100 runs, and says nothing where it cannot know."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bench.statistics import BLOCKS, Estimate, mean, quantile, ratio

RUNS = 1000
PER_RUN = 900
Values = npt.NDArray[np.float64]


def independent(random: np.random.Generator) -> Values:
    """Requests that know nothing of each other, with the long tail that latencies have: mean and median are known."""
    return np.asarray(random.lognormal(0.0, 0.5, (RUNS, PER_RUN)))


def in_a_queue(random: np.random.Generator) -> Values:
    """Each is like the one before it, as in a queue that grows and drains: correlation 0.6 to the next."""
    noise = random.normal(0.0, math.sqrt(1 - 0.6**2), (RUNS, PER_RUN))
    found = np.empty_like(noise)
    found[:, 0] = random.normal(0.0, 1.0, RUNS)
    for place in range(1, PER_RUN):
        found[:, place] = 0.6 * found[:, place - 1] + noise[:, place]
    return np.asarray(np.exp(0.5 * found))


TRUE_MEAN = math.exp(0.5**2 / 2)
TRUE_MEDIAN = 1.0


def coverage(runs: Values, figure: Callable[[Sequence[float], int], Estimate | None], truth: float) -> float:
    """The share of runs whose interval holds the truth."""
    found = [figure(run, number) for number, run in enumerate(runs)]  # type: ignore[arg-type]
    held = [
        one is not None and one.low is not None and one.high is not None and one.low <= truth <= one.high
        for one in found
    ]
    return sum(held) / len(held)


@pytest.mark.parametrize("process", [independent, in_a_queue])
def test_intervals_of_means_hold_the_truth(process: Callable[[np.random.Generator], Values]) -> None:
    """In 93 to 97% of a thousand runs, whether their requests hang together or not."""
    assert 0.93 <= coverage(process(np.random.default_rng(1)), mean, TRUE_MEAN) <= 0.97


@pytest.mark.parametrize("process", [independent, in_a_queue])
def test_intervals_of_medians_hold_the_truth(process: Callable[[np.random.Generator], Values]) -> None:
    """As those of means."""

    def median(run: Sequence[float], seed: int) -> Estimate | None:
        return quantile(run, 0.5, seed)

    assert 0.93 <= coverage(process(np.random.default_rng(2)), median, TRUE_MEDIAN) <= 0.97


def test_intervals_of_ratios_hold_the_truth() -> None:
    """Of two machines, one a quarter slower than the other."""
    random = np.random.default_rng(3)
    slow, fast = 1.25 * independent(random), in_a_queue(random)
    found = [ratio(slow[number], fast[number], number) for number in range(RUNS)]  # type: ignore[arg-type]
    held = [one is not None and one.low is not None and one.high is not None and one.low <= 1.25 <= one.high
            for one in found]  # fmt: skip
    assert 0.93 <= sum(held) / RUNS <= 0.97


def test_a_quantile_of_too_few_is_not_given() -> None:
    """p99 wants 500 requests, p90 fifty, a median ten."""
    values = [float(value) for value in range(500)]
    assert quantile(values, 0.99) is not None
    assert quantile(values[:499], 0.99) is None
    assert quantile(values[:50], 0.9) is not None
    assert quantile(values[:49], 0.9) is None
    assert quantile(values[:10], 0.5) is not None
    assert quantile(values[:9], 0.5) is None
    assert quantile([], 0.5) is None


def test_a_mean_of_few_has_no_interval() -> None:
    """With fewer samples than blocks nobody knows how they hang together."""
    assert mean([]) is None
    assert mean([2.0] * (BLOCKS - 1)) == Estimate(2.0, None, None, BLOCKS - 1)
    assert mean([2.0] * BLOCKS) == Estimate(2.0, 2.0, 2.0, BLOCKS)


@given(st.lists(st.floats(0.001, 1e6), min_size=BLOCKS, max_size=200), st.integers(0, 9))
def test_an_estimate_is_the_same_every_time_and_scales_with_its_unit(values: list[float], seed: int) -> None:
    """The draws come from a seed, and milliseconds tell the same as seconds."""
    one = mean(values, seed)
    assert one is not None
    assert one == mean(values, seed)
    assert one.low is not None
    assert one.high is not None
    assert one.low <= one.value * (1 + 1e-9)
    assert one.high >= one.value * (1 - 1e-9)
    thousand = mean([1000 * value for value in values], seed)
    assert thousand is not None
    assert thousand.value == pytest.approx(1000 * one.value)
    assert thousand.low == pytest.approx(1000 * one.low, rel=1e-6, abs=1e-3)


@given(st.lists(st.floats(0, 1e3), min_size=10, max_size=200), st.floats(0.2, 0.8))
def test_a_quantile_lies_among_its_values(values: list[float], q: float) -> None:
    """And its interval, where it has one, around it."""
    found = quantile(values, q)
    if found is not None:
        assert min(values) <= found.value <= max(values)
