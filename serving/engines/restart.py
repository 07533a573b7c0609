"""Whether, and when, a dead engine is started again. Pure: no clock, no process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often an engine may die before it is given up on."""

    backoff_s: float = 0.5
    """Pause before the first restart; doubled with each crash inside the window."""
    backoff_max_s: float = 30.0
    max_crashes: int = 5
    """This many crashes inside the window, and the engine is given up on."""
    window_s: float = 300.0
    """Crashes longer ago than this are forgotten."""


DEFAULT_POLICY = RestartPolicy()


@dataclass(frozen=True, slots=True)
class Crash:
    """One unexpected end of an engine."""

    at: float
    """Seconds on a clock that only goes forward."""
    was_ready: bool
    """Whether any life of this engine, up to this one, ever became ready."""
    exit_status: int | None
    """As the process exited; None where a signal killed it or it had to be killed."""


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start again after `delay_s` seconds."""

    delay_s: float
    crashes: int
    """Crashes inside the window, this one included."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start again."""

    reason: str


def decide_restart(history: tuple[Crash, ...], policy: RestartPolicy) -> RestartAfter | GiveUp:
    """What follows the last crash in `history`, which is in order of time and not empty.

    An engine that exits by itself before it was ever ready has found something that another start will not change; one
    that a signal took (out of memory, a fault) may do better next time.
    """
    last = history[-1]
    if not last.was_ready and last.exit_status is not None:
        return GiveUp(f"it exited with status {last.exit_status} before it was ready")
    recent = sum(1 for crash in history if last.at - crash.at <= policy.window_s)
    if recent >= policy.max_crashes:
        return GiveUp(f"it crashed {recent} times within {policy.window_s:g} s")
    # The exponent is bounded so that no number of crashes overflows a float.
    return RestartAfter(min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(recent - 1, 64)), recent)


def forget_old(history: tuple[Crash, ...], policy: RestartPolicy) -> tuple[Crash, ...]:
    """`history` without what `decide_restart` no longer looks at."""
    return tuple(crash for crash in history if history[-1].at - crash.at <= policy.window_s)
