"""How sure a figure is: 95% intervals over blocks of time. Pure.

Requests of one run are no independent draws: a stall hits all that run at the time, a queue passes its length on. So
what is drawn again is not requests but blocks of them, in the order in which they were sent (Künsch, 1989); inside a
block whatever hangs together stays together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCKS: Final = 30
"""Blocks that a run is cut into: enough to draw from, and each still long against what hangs together."""
DRAWS: Final = 2000
LEAST_BEYOND: Final = 5
"""Samples that must lie beyond a quantile on its nearer side, in the mean: p99 wants 500."""
_LEVEL: Final = 0.95
_CELLS: Final = 4096
"""Of the ordered values, in which a quantile is looked for; each is one value, unless there are more than this."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and where the truth lies in 95 of 100 such runs. None for an interval: there were too few to tell."""

    value: float
    low: float | None
    high: float | None
    count: int
    """Samples that it comes from."""


def mean(values: Sequence[float], seed: int = 0) -> Estimate | None:
    """The mean of values in the order of their time. None where there are none."""
    blocks = _blocks(values)
    sums, counts = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])

    def drawn(chosen: npt.NDArray[np.int64]) -> Values:
        found: Values = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
        return found

    return _estimate(values, float(np.mean(values)) if len(values) else math.nan, len(blocks), drawn, seed)


def share(values: Sequence[bool], seed: int = 0) -> Estimate | None:
    """The share of what is true, in the order of its time. None where there is nothing.

    Where all are alike blocks drawn again are too, and say that it is certain. Wilson's interval (1927) knows better;
    the wider one of both counts.
    """
    found = mean([float(value) for value in values], seed)
    if found is None or found.low is None or found.high is None:
        return found
    z, count, p = NormalDist().inv_cdf(1 - (1 - _LEVEL) / 2), len(values), found.value
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    spread = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low, high = min(found.low, middle - spread), max(found.high, middle + spread)
    return Estimate(p, max(0.0, low), min(1.0, high), count)


def quantile(values: Sequence[float], q: float, seed: int = 0) -> Estimate | None:
    """The q-quantile (0 < q < 1) of values in the order of their time.

    None where too few lie beyond it to know it at all: `LEAST_BEYOND` on its nearer side.
    """
    if len(values) * min(q, 1 - q) < LEAST_BEYOND - 1e-9:
        return None
    blocks = _blocks(values)
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    everything = np.concatenate(blocks)
    order = np.argsort(everything, kind="stable")
    ordered = everything[order]
    # For each block, how many of its values lie at or below each of the ordered ones (or each cell of them: so many
    # that one more makes no difference are taken together).
    cells = min(len(ordered), _CELLS)
    cell = np.arange(len(ordered)) * cells // len(ordered)
    below = np.zeros((len(blocks), cells))
    np.add.at(below, (owner[order], cell), 1.0)
    below = np.cumsum(below, axis=1)
    last = ordered[np.searchsorted(cell, np.arange(cells), side="right") - 1]

    def drawn(chosen: npt.NDArray[np.int64]) -> Values:
        times = np.apply_along_axis(np.bincount, 1, chosen, minlength=len(blocks))
        wanted = q * (times @ below[:, -1])
        low, high = np.zeros(len(chosen), dtype=np.int64), np.full(len(chosen), cells - 1)
        while np.any(low < high):  # halving, for all draws at once
            middle = (low + high) // 2
            reached = np.einsum("db,bd->d", times, below[:, middle]) >= wanted
            low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
        found: Values = last[low]
        return found

    return _estimate(values, float(np.quantile(ordered, q)), len(blocks), drawn, seed)


def ratio(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Estimate | None:
    """The ratio of two means of separate runs; None where one is empty, or the lower one is 0."""
    one, other = mean(above, seed), mean(below, seed + 1)
    if one is None or other is None or other.value == 0:
        return None
    value, count = one.value / other.value, min(one.count, other.count)
    if one.low is None or one.high is None or other.low is None or other.high is None or one.value == 0:
        return Estimate(value, None, None, count)
    # errors of separate runs are independent, and those of a quotient add up in logarithms
    spread = math.hypot((one.high - one.low) / one.value, (other.high - other.low) / other.value) / 2
    return Estimate(value, value * math.exp(-spread), value * math.exp(spread), count)


def _blocks(values: Sequence[float]) -> list[Values]:
    return [block for block in np.array_split(np.asarray(values, dtype=np.float64), BLOCKS) if len(block)]


def _estimate(
    values: Sequence[float],
    value: float,
    blocks: int,
    drawn: Callable[[npt.NDArray[np.int64]], Values],
    seed: int,
) -> Estimate | None:
    if not len(values):
        return None
    if blocks < BLOCKS:
        return Estimate(value, None, None, len(values))
    chosen = np.random.default_rng(seed).integers(0, blocks, (DRAWS, blocks))
    tail = (1 - _LEVEL) / 2
    low, high = (float(edge) for edge in np.quantile(drawn(chosen), (tail, 1 - tail)))
    floor = 0.0 if min(values) >= 0 else -math.inf  # durations and rates are never below
    # So few blocks know their own spread only so well: as Student's distribution is wider than the normal one.
    wider = math.sqrt(blocks / (blocks - 1)) * _student(blocks - 1) / NormalDist().inv_cdf(1 - tail)
    return Estimate(value, max(floor, value + wider * (low - value)), value + wider * (high - value), len(values))


def _student(freedom: int) -> float:
    """The 97.5% point of Student's t, by its expansion in the normal one (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(1 - (1 - _LEVEL) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
