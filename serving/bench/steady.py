"""When a run had become steady, and whether it stayed so. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from serving.bench.statistics import BLOCKS, mean

_BATCH: Final = 5
_OFF: Final = 4.0
"""Standard errors by which a beginning must differ from the rest to be one."""
_GROWN: Final = 1.5
"""Times by which the later half must exceed the earlier one, beside the intervals' being apart."""


def transient(values: Sequence[float]) -> int:
    """How many of the first values, in the order of their time, belong to a beginning that is unlike what follows.

    The cut is where the standard error of what remains is least (MSER-5: White, Cobb and Spratt, 2000), in the first
    half. That rule alone always finds one; here the beginning must also differ by more than chance has it.
    """
    batches = len(values) // _BATCH
    if batches < 2 * _BATCH:
        return 0
    means = np.asarray(values[: batches * _BATCH], dtype=np.float64).reshape(batches, _BATCH).mean(axis=1)
    rest = np.arange(batches, 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    error = (squares - sums**2 / rest) / rest**2
    last = batches // 2
    cut = int(np.argmin(error[: last + 1]))
    if cut in (0, last):  # at the last place it has found no end of a beginning: nothing ever was steady
        return 0
    before, after = means[:cut], means[cut:]
    spread = float(after.std(ddof=1)) / math.sqrt(cut)
    return cut * _BATCH if abs(float(before.mean()) - float(after.mean())) > _OFF * spread else 0


def is_steady(values: Sequence[float]) -> bool | None:
    """Whether a latency stayed what it was; False where it still grew, None for too little data to tell.

    A queue that grows makes each request wait longer than the one before: the later half's mean is then up to three
    times the earlier one's. It must also lie above it by more than both intervals.
    """
    half = len(values) // 2
    if half < BLOCKS:
        return None
    early, late = mean(values[:half]), mean(values[half:])
    if early is None or late is None or early.high is None or late.low is None:
        return None
    return not (late.value > _GROWN * early.value and late.low > early.high)
