"""The definitions, by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bench.samples import (
    Objective,
    Sample,
    e2e,
    gaps,
    mean_gap,
    meets,
    normalised_latency,
    stall,
    tpot,
    ttft,
)

ONE = Sample(
    due=1.0,
    sent=1.5,
    arrivals=(2.0, 2.1, 2.4, 2.5),
    ended=2.6,
    outcome="completed",
    prompt_tokens=100,
    output_tokens=6,
)
"""Six tokens in four events, sent half a second late."""


def test_each_figure_is_what_its_definition_says() -> None:
    """From the moment of sending, and from the moment at which it was due."""
    assert ttft(ONE) == pytest.approx(0.5)
    assert ttft(ONE, "due") == pytest.approx(1.0)
    assert e2e(ONE) == pytest.approx(1.0)
    assert e2e(ONE, "due") == pytest.approx(1.5)
    assert tpot(ONE) == pytest.approx(0.5 / 5)
    assert gaps(ONE) == pytest.approx((0.1, 0.3, 0.1))
    assert mean_gap(ONE) == pytest.approx(0.5 / 3)
    assert stall(ONE) == pytest.approx(0.3)
    assert normalised_latency(ONE) == pytest.approx(1.0 / 6)
    assert normalised_latency(ONE, "due") == pytest.approx(1.5 / 6)


def test_what_cannot_be_told_is_none() -> None:
    """No output, or one token."""
    empty = dataclasses.replace(ONE, arrivals=(), output_tokens=0, outcome="failed")
    assert (ttft(empty), e2e(empty), tpot(empty), gaps(empty), mean_gap(empty), stall(empty)) == (
        None, None, None, (), None, None,
    )  # fmt: skip
    assert normalised_latency(empty) is None
    lone = dataclasses.replace(ONE, arrivals=(2.0,), output_tokens=1)
    assert (tpot(lone), mean_gap(lone), stall(lone)) == (None, None, None)
    assert ttft(lone) == pytest.approx(0.5)


def test_events_stand_for_tokens_that_the_server_does_not_count() -> None:
    """Each may hold several, so that no token takes longer than this says."""
    uncounted = dataclasses.replace(ONE, output_tokens=None)
    events = dataclasses.replace(ONE, output_tokens=len(ONE.arrivals))
    assert (tpot(uncounted), normalised_latency(uncounted)) == (tpot(events), normalised_latency(events))
    assert (tpot(uncounted) or 0) >= (tpot(ONE) or 0)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(), True),
        (Objective(ttft=1.01), True),
        (Objective(ttft=0.99), False),
        (Objective(tpot=0.101), True),
        (Objective(tpot=0.099), False),
        (Objective(e2e=1.49), False),
        (Objective(stall=0.29), False),
        (Objective(ttft=1.01, tpot=0.101, e2e=1.51, stall=0.31), True),
        (Objective(ttft=1.01, tpot=0.099, e2e=1.51, stall=0.31), False),
    ],
)
def test_an_objective_is_met_as_a_whole(objective: Objective, *, expected: bool) -> None:
    """Counted from the moment at which the request was due."""
    assert meets(ONE, objective) is expected


def test_only_a_completed_request_meets_anything() -> None:
    """And of a lone token there is no time for each further one to be too long."""
    for outcome in ("short", "truncated", "failed"):
        assert not meets(dataclasses.replace(ONE, outcome=outcome), Objective())
    lone = dataclasses.replace(ONE, arrivals=(2.0,), output_tokens=1)
    assert meets(lone, Objective(tpot=0.001, stall=0.001, ttft=1.01))
    assert not meets(dataclasses.replace(ONE, arrivals=()), Objective(ttft=10))
    assert not meets(dataclasses.replace(ONE, output_tokens=None), Objective(tpot=0.101))


@given(
    due=st.floats(0, 10),
    late=st.floats(0, 10),
    waits=st.lists(st.floats(0, 5), min_size=1, max_size=30),
)
def test_the_figures_of_a_request_agree(due: float, late: float, waits: list[float]) -> None:
    """The first token and the gaps make up the whole; no response is faster than its service; no stall is shorter."""
    at, arrivals = due + late, []
    for wait in waits:
        at += wait
        arrivals.append(at)
    sample = Sample(due, due + late, tuple(arrivals), at, "completed", output_tokens=len(arrivals))
    first, whole, response = ttft(sample), e2e(sample), ttft(sample, "due")
    assert first is not None
    assert whole is not None
    assert response is not None
    assert first + sum(gaps(sample)) == pytest.approx(whole)
    assert response >= first - 1e-9
    if len(arrivals) > 1:
        per_token, mean, longest = tpot(sample), mean_gap(sample), stall(sample)
        assert per_token == pytest.approx(mean)
        assert longest is not None
        assert mean is not None
        assert longest >= mean - 1e-9
