"""When a destination that fails is left alone for a while: a circuit breaker, as data and functions of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serving.policy.model import Breaker


@dataclass(frozen=True, slots=True)
class Circuit:
    """What is known of one destination's failures; times in seconds of a clock that never goes back."""

    failures: tuple[float, ...] = ()
    """When the last ones were."""
    opened: float | None = None
    """Since when nothing is sent; None: it is closed."""
    is_trying: bool = False
    """One request is on its way to find out whether it is well again."""


def lets_through(circuit: Circuit, bounds: Breaker, now: float) -> bool:
    """Whether a request may be sent now."""
    return circuit.opened is None or (now - circuit.opened >= bounds.open_s and not circuit.is_trying)


def begun(circuit: Circuit) -> Circuit:
    """A request has been let through."""
    return circuit if circuit.opened is None else replace(circuit, is_trying=True)


def ended(circuit: Circuit, bounds: Breaker, now: float, *, is_well: bool) -> Circuit:
    """It has ended."""
    if is_well:
        return Circuit()
    failures = (*(each for each in circuit.failures if now - each < bounds.window_s), now)[-bounds.failures :]
    if circuit.opened is not None or len(failures) >= bounds.failures:
        return Circuit(failures, now)
    return Circuit(failures)


def left(circuit: Circuit) -> Circuit:
    """It has ended, and nobody knows how the destination is: its client left."""
    return replace(circuit, is_trying=False)
