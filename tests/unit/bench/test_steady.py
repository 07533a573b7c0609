"""A beginning that is unlike the rest is found, one that is not is not, and a queue that grows is seen."""

from __future__ import annotations

import numpy as np

from serving.bench.steady import is_steady, transient

RUNS = 200


def noisy(seed: int, count: int = 300) -> np.ndarray:
    """Latencies around 100 ms, each near the one before it."""
    random = np.random.default_rng(seed)
    drift = np.zeros(count)
    for at in range(1, count):
        drift[at] = 0.5 * drift[at - 1] + random.normal(0, 0.01)
    return 0.1 + drift + random.gamma(2, 0.005, count)


def test_a_cold_beginning_is_left_out() -> None:
    """Forty requests that took three times as long are all found, and never half of the run with them."""
    for seed in range(20):
        values = noisy(seed)
        values[:40] += 0.2
        assert 40 <= transient(values.tolist()) < 150


def test_a_steady_run_is_hardly_ever_cut() -> None:
    """Chance makes a beginning in few runs of a hundred."""
    assert sum(transient(noisy(seed).tolist()) > 0 for seed in range(RUNS)) <= 0.1 * RUNS


def test_little_data_has_no_beginning() -> None:
    """Nothing is told of a handful of requests."""
    assert transient([5.0, 0.1, 0.1, 0.1]) == 0
    assert transient([]) == 0


def test_a_queue_that_grows_is_not_steady() -> None:
    """Each request waits longer than the one before: the whole run is one beginning, and is not cut for it."""
    for seed in range(20):
        values = (noisy(seed) + np.linspace(0, 2, 300)).tolist()
        assert transient(values) == 0
        assert is_steady(values) is False


def test_noise_is_steady() -> None:
    """And too few requests are neither."""
    assert sum(is_steady(noisy(seed).tolist()) is not True for seed in range(RUNS)) == 0
    assert is_steady(noisy(1, 50).tolist()) is None
