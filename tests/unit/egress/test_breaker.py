"""The circuit breaker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.egress.breaker import Circuit, begun, ended, left, lets_through
from serving.policy.model import Breaker

BOUNDS = Breaker(failures=3, window_s=10, open_s=5)


def test_failures_within_the_window_open_it_and_one_request_tries_after_a_while() -> None:
    """What becomes of that one decides."""
    circuit = Circuit()
    for now in (0.0, 1.0, 2.0):
        assert lets_through(circuit, BOUNDS, now)
        circuit = ended(begun(circuit), BOUNDS, now, is_well=False)
    assert not lets_through(circuit, BOUNDS, 6.9)
    assert lets_through(circuit, BOUNDS, 7.0)
    trying = begun(circuit)
    assert not lets_through(trying, BOUNDS, 7.0), "one at a time"
    assert lets_through(left(trying), BOUNDS, 7.0), "it found nothing out"
    assert lets_through(ended(trying, BOUNDS, 8.0, is_well=True), BOUNDS, 8.0)
    again = ended(trying, BOUNDS, 8.0, is_well=False)
    assert not lets_through(again, BOUNDS, 12.9)
    assert lets_through(again, BOUNDS, 13.0)


def test_failures_that_are_far_apart_open_nothing() -> None:
    """Only those within the window count."""
    circuit = Circuit()
    for turn in range(20):
        circuit = ended(begun(circuit), BOUNDS, turn * 6.0, is_well=False)
        assert lets_through(circuit, BOUNDS, turn * 6.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["well", "ill", "left"])), max_size=60))
def test_it_never_stays_open_for_longer_than_it_is_to(steps: list[tuple[float, str]]) -> None:
    """Whatever happened: once all have ended and the time has passed, a request is let through."""
    circuit, now = Circuit(), 0.0
    for wait, how in steps:
        now += wait
        if lets_through(circuit, BOUNDS, now):
            circuit = begun(circuit)
            circuit = left(circuit) if how == "left" else ended(circuit, BOUNDS, now, is_well=how == "well")
        assert len(circuit.failures) <= BOUNDS.failures
    assert lets_through(circuit, BOUNDS, now + BOUNDS.open_s + 1e-6)  # sums of times are not exact
