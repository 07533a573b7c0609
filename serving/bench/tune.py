"""Which settings to try next, and which of two is better. Pure.

One setting after the other, in the order in which they matter, each value against the best so far: settings of an
engine hang together little enough that this comes near the best of all combinations, in a handful of starts rather than
hundreds. A value replaces the best only where the difference is more than the noise of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from serving.bench.record import Stage

_MOST_SEQUENCES: Final = 256
Value = str | int
Choice = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting, and the values to try."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one choice. None for a speed that was not measured: it did not start, or answered nothing."""

    choice: Choice
    tokens_per_s: float | None = None
    low95: float | None = None
    high95: float | None = None
    meets: bool = False
    """The objective, for enough requests."""
    why: str = ""
    """What went wrong."""


def trial_of(choice: Choice, stage: Stage, share: float) -> Trial:
    """A stage as a trial; `share` of the requests must meet the scenario's objective, where it has one."""
    speed = stage.rates.output_tokens_per_s
    if speed is None:
        return Trial(choice, why="no request was completed")
    good = stage.goodput.share.value if stage.goodput is not None and stage.goodput.share is not None else 1.0
    return Trial(choice, speed.value, speed.low95, speed.high95, meets=good >= share)


def is_better(one: Trial, other: Trial) -> bool:
    """Whether the first is better, by more than chance has it: first the objective, then tokens a second."""
    if one.tokens_per_s is None or other.tokens_per_s is None:
        return one.tokens_per_s is not None
    if one.meets != other.meets:
        return one.meets
    ratio = one.tokens_per_s / max(other.tokens_per_s, 1e-9)
    if None in (one.low95, one.high95, other.low95, other.high95):
        return False
    spread = math.hypot(
        ((one.high95 or 0) - (one.low95 or 0)) / max(one.tokens_per_s, 1e-9),
        ((other.high95 or 0) - (other.low95 or 0)) / max(other.tokens_per_s, 1e-9),
    )
    return ratio * math.exp(-spread / 2) > 1


def pooled(trials: Sequence[Trial]) -> Trial:
    """Several trials of one choice as one; its interval is narrower for it. Those that failed are passed over."""
    known = [one for one in trials if one.tokens_per_s is not None]
    if not known:
        return trials[0]
    count = len(known)
    speed = sum(one.tokens_per_s or 0.0 for one in known) / count
    widths = [one.high95 - one.low95 for one in known if one.high95 is not None and one.low95 is not None]
    if len(widths) < count:
        return Trial(known[0].choice, speed, meets=all(one.meets for one in known))
    half = math.hypot(*widths) / count / 2
    return Trial(known[0].choice, speed, speed - half, speed + half, meets=all(one.meets for one in known))


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The best so far: the first, unless a later one was better than all before it. None before the first."""
    best: Trial | None = None
    for trial in trials:
        if best is None or is_better(trial, best):
            best = trial
    return best


def plan_trial(knobs: Sequence[Knob], trials: Sequence[Trial]) -> Choice | None:
    """The next choice, None where nothing is left to try. The first is none at all: what is planned without a profile.

    Settings of a lower place are tried with the best of those above them.
    """
    best = best_of(trials)
    if best is None:
        return {}
    seen = [dict(trial.choice) for trial in trials]
    left = [
        (knob, {**best.choice, knob.name: value})
        for knob in knobs
        for value in knob.values
        if {**best.choice, knob.name: value} not in seen
    ]
    # each value once before any again beside another best
    fresh = (choice for knob, choice in left if all(one.get(knob.name) != choice[knob.name] for one in seen))
    return next(fresh, left[0][1] if left else None)


def knobs_for(
    plan: Mapping[str, object], variants: Sequence[str], threads: Sequence[int], clients: int, fixed: Sequence[str]
) -> tuple[Knob, ...]:
    """What may make a difference to the engine of this plan, and the values to try beside the plan's own.

    `variants` are those on this host that the engine serves, `threads` numbers of them worth a try, `clients` those of
    the load, `fixed` the wishes that are not to be touched.
    """
    near = {size for size in (clients // 2, clients, 2 * clients) if 1 <= size <= _MOST_SEQUENCES}
    concurrency = ("concurrency", "concurrency", tuple(sorted(near)))
    knobs: tuple[tuple[str, str, tuple[Value, ...]], ...] = (
        ("variant", "variant", tuple(variants)),
        concurrency,
        ("step_tokens", "step_tokens", (2048, 4096, 8192, 16384)),
    )
    if plan.get("engine") == "llamacpp":
        knobs = (
            ("variant", "variant", tuple(variants)),
            ("threads", "threads", tuple(threads)),
            concurrency,
            ("kv_layout", "kv_layout", ("streams", "unified")),
            ("ubatch", "n_ubatch", (128, 256, 512, 1024)),
            ("wait_policy", "wait_policy", ("active", "brief", "passive")),
            ("kv_dtype", "kv_dtype", ("f16", "q8_0")),
        )
    found = (
        Knob(name, tuple(value for value in values if value != plan.get(planned)))
        for name, planned, values in knobs
        if name not in fixed
    )
    return tuple(knob for knob in found if knob.values)
