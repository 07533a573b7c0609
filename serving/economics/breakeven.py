"""From which volume on machines of one's own cost no more than an API. Pure, and solved exactly.

An API's bill is a straight line over volume, a fleet's a staircase with a slope (`curve`). So the two meet on a stair
or not at all on it, and may meet again on the next, where there is one machine more. The answer has three parts: the
first volume at which owning costs no more, the volume from which on it never costs more again, and the meetings
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from serving.economics.curve import Curve, curve_of
from serving.economics.inputs import Case

_ONE: Final = Decimal(1)
MOST_STAIRS: Final = 64
"""Stairs on which meetings are listed one by one."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """A volume at which the two cost the same, to the last digit."""

    scale: Decimal
    """In the case's own volumes: 1 is the volume of the case."""
    needed: int
    """Machines that carry the load there."""
    cost: Decimal
    """Per month, of either."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where owning begins to pay, in volumes of the case; None where it never does."""

    first: Decimal | None
    """The least volume at which owning costs no more than the API."""
    always_from: Decimal | None
    """From here on it never costs more, however much the work grows."""
    meetings: tuple[Meeting, ...]
    """On the first stairs; a stair may begin dearer than the last one ended, without a meeting."""


@dataclass(frozen=True, slots=True)
class _Both:
    """An API and a fleet of one's own, over the same volume."""

    api: Curve
    own: Curve

    @property
    def per_machine(self) -> Decimal:
        """The volume that one machine carries."""
        return 1 / self.own.load

    @property
    def gain(self) -> Decimal:
        """By owning, for each further volume on the same machines."""
        return self.api.slope - self.own.slope

    def saved(self, volume: Decimal, needed: Decimal) -> Decimal:
        """By owning, on so many machines."""
        return self.api.at(volume) - (self.own.base + self.own.step * needed + self.own.slope * volume)

    def solved(self, stair: Decimal) -> Decimal:
        """The volume at which both cost the same on a stair, were it as long as need be."""
        return (self.own.base + self.own.step * stair - self.api.base) / self.gain


def break_even(case: Case) -> BreakEven:
    """Of a case with both; its ranges count as their `likely`.

    A case without work has none: there is no volume to take times.
    """
    lines = _both(case)
    if lines is None:
        return BreakEven(None, None, ())
    meetings = tuple(each for stair in range(1, MOST_STAIRS + 1) for each in _meeting(lines, Decimal(stair)))
    return BreakEven(_first(lines), _always_from(lines), meetings)


def first_volume(case: Case) -> Decimal | None:
    """`BreakEven.first` alone."""
    lines = _both(case)
    return None if lines is None else _first(lines)


def _both(case: Case) -> _Both | None:
    """None where there are not both, or no work."""
    if case.own is None or case.api is None:
        return None
    lines = _Both(curve_of(case, "api"), curve_of(case, "own"))
    return lines if lines.own.load else None


def _first(lines: _Both) -> Decimal | None:
    """On the first stair that has a volume at which nothing is lost, the least one."""
    if lines.saved(Decimal(0), _ONE) >= 0:
        return Decimal(0)
    if lines.gain <= 0:
        return None  # each further token costs more here, and so does each machine
    # at the end of stair n the saving is a line over n
    at_one, at_two = (lines.saved(n * lines.per_machine, n) for n in (_ONE, Decimal(2)))
    if at_one >= 0:
        stair = _ONE
    elif at_two <= at_one:
        return None
    else:
        stair = _ONE + (-at_one / (at_two - at_one)).to_integral_value(rounding=ROUND_CEILING)
    return max(lines.solved(stair), (stair - 1) * lines.per_machine)


def _always_from(lines: _Both) -> Decimal | None:
    """After the last stair that begins with a loss."""
    begins = [lines.saved((n - 1) * lines.per_machine, n) for n in (_ONE, Decimal(2))]
    grows = begins[1] - begins[0]
    if grows < 0:
        return None
    if begins[0] >= 0:
        return Decimal(0)
    if grows == 0:
        return None
    last = _ONE + (-begins[0] / grows).to_integral_value(rounding=ROUND_FLOOR)
    if lines.saved((last - 1) * lines.per_machine, last) >= 0:
        last -= 1  # it begins with neither loss nor saving
    return min(lines.solved(last), last * lines.per_machine)


def _meeting(lines: _Both, stair: Decimal) -> list[Meeting]:
    if lines.gain == 0:
        return []
    volume = lines.solved(stair)
    if not (stair - 1) * lines.per_machine < volume <= stair * lines.per_machine:
        return []
    return [Meeting(volume, int(stair), lines.api.at(volume))]
