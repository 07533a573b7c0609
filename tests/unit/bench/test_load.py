"""Loads come at their rates, and a search ends beside the level at which a server no longer holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bench.load import Closed, Ramp, Sweep, bracket, plan_level


def searched(sweep: Sweep, limit: float) -> list[tuple[float, bool]]:
    """The levels that a search measures on a server that holds up to `limit`."""
    seen: list[tuple[float, bool]] = []
    while (level := plan_level(sweep, seen)) is not None:
        seen.append((level, level <= limit))
        assert len(seen) < 60
    return seen


@given(limit=st.floats(0.01, 1000), least=st.floats(0.05, 5))
def test_a_search_ends_beside_the_limit(limit: float, least: float) -> None:
    """What held and what did not lie close together, whatever the limit; and no level is measured twice."""
    sweep = Sweep(kind="sweep", over="rate", least=least, most=500)
    seen = searched(sweep, limit)
    held, failed = bracket(seen)
    assert len({level for level, _ in seen}) == len(seen)
    if limit < least:
        assert (held, failed) == (None, least)
    elif limit >= 500:
        assert (held, failed) == (500, None)
    else:
        assert held is not None
        assert failed is not None
        assert held <= limit < failed <= 1.15 * held + 1e-9


@given(limit=st.integers(0, 300), most=st.integers(1, 200))
def test_clients_are_whole(limit: int, most: int) -> None:
    """Their search ends where no whole number lies between, or the two are near enough."""
    seen = searched(Sweep(kind="sweep", over="clients", least=1, most=most), limit)
    held, failed = bracket(seen)
    assert all(level == int(level) for level, _ in seen)
    assert all(
        isinstance(Sweep(kind="sweep", over="clients", least=1, most=most).at(level), Closed) for level, _ in seen
    )
    if limit == 0:
        assert (held, failed) == (None, 1)
    elif limit >= most:
        assert (held, failed) == (most, None)
    else:
        assert held is not None
        assert failed is not None
        assert held <= limit < failed
        assert failed - held == 1 or failed <= 1.15 * held


def test_a_level_that_held_above_one_that_did_not_counts_for_nothing() -> None:
    """Chance can let it: what counts is the highest below the lowest failure."""
    assert bracket([(1, True), (2, False), (4, True)]) == (1, 2)


@pytest.mark.parametrize(("start", "end"), [(2.0, 20.0), (20.0, 2.0), (5.0, 5.0)])
def test_a_ramp_has_its_rates_at_both_ends(start: float, end: float) -> None:
    """In the first and the last tenth of its time as many requests come as the rates there say."""
    count = 40_000
    due = Ramp(kind="ramp", start=start, end=end).due(count, np.random.default_rng(3))
    assert np.all(np.diff(due) >= 0)
    seconds = 2 * count / (start + end)
    assert due[-1] == pytest.approx(seconds, rel=0.02)
    step = (end - start) / 20
    for low, rate in ((0.0, start + step), (0.9 * seconds, end - step)):
        inside = np.count_nonzero((due >= low) & (due < low + 0.1 * seconds))
        assert inside / (0.1 * seconds) == pytest.approx(rate, rel=0.05)
