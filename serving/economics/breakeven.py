"""From which volume on machines of one's own cost no more than an API. Pure, and solved exactly.

An API's bill is a straight line over volume. A fleet's is a staircase with a slope: on each stair some machines are
paid for whatever they do, and power grows with the work. So the two meet on a stair or not at all on it, and may meet
again on the next, where one machine more has been bought. The answer has three parts: the first volume at which owning
costs no more, the volume from which on it never costs more again, and the meetings between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from serving.economics.inputs import Case
from serving.economics.machines import fleet_of
from serving.economics.statement import exact
from serving.economics.work import month_of

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
class _Lines:
    """Both costs as lines over volume: on stair n owning costs `base + step × n + slope × volume`."""

    api_base: Decimal
    api_slope: Decimal
    base: Decimal
    step: Decimal
    slope: Decimal
    per_machine: Decimal
    """The volume that one machine carries."""

    def saved(self, volume: Decimal, needed: Decimal) -> Decimal:
        """By owning."""
        own = self.base + self.step * needed + self.slope * volume
        return self.api_base + self.api_slope * volume - own


def break_even(case: Case) -> BreakEven:
    """Of a case with both; its ranges count as their `likely`.

    A case without work has none, since there is no volume to take times.
    """
    lines = _lines_of(case)
    if lines is None:
        return BreakEven(None, None, ())
    first = _first(lines)
    meetings = tuple(each for stair in range(1, MOST_STAIRS + 1) for each in _meeting(lines, stair))
    return BreakEven(first, _always_from(lines), meetings)


def _lines_of(case: Case) -> _Lines | None:
    if case.own is None or case.api is None:
        return None
    load = fleet_of(case.own, case.workload, month_of(case.workload)).load
    if load == 0:
        return None
    api_base, own_base = exact(case, "api", Decimal(0)), exact(case, "own", Decimal(0), 0)
    return _Lines(
        api_base=api_base,
        api_slope=exact(case, "api", _ONE) - api_base,
        base=own_base,
        step=exact(case, "own", Decimal(0), 1) - own_base,
        # on as many machines as carry the case, whose power is in proportion
        slope=exact(case, "own", _ONE, _stairs(load)) - exact(case, "own", Decimal(0), _stairs(load)),
        per_machine=1 / load,
    )


def _stairs(load: Decimal) -> int:
    return int(load.to_integral_value(rounding=ROUND_CEILING))


def _first(lines: _Lines) -> Decimal | None:
    """On the first stair that has a volume at which nothing is lost, the least one."""
    gain = lines.api_slope - lines.slope
    if lines.saved(Decimal(0), _ONE) >= 0:
        return Decimal(0)
    if gain <= 0:
        return None  # each further token costs more here, and so does each machine
    # at the end of stair n the saving is a line over n
    at_one, at_two = (lines.saved(n * lines.per_machine, n) for n in (_ONE, Decimal(2)))
    if at_one >= 0:
        stair = _ONE
    elif at_two <= at_one:
        return None
    else:
        stair = _ONE + (-at_one / (at_two - at_one)).to_integral_value(rounding=ROUND_CEILING)
    return _solved(lines, stair)


def _solved(lines: _Lines, stair: Decimal) -> Decimal:
    """The least volume of a stair at which nothing is lost, where its end has one."""
    volume = (lines.base + lines.step * stair - lines.api_base) / (lines.api_slope - lines.slope)
    return max(volume, (stair - 1) * lines.per_machine)


def _always_from(lines: _Lines) -> Decimal | None:
    """After the last stair that begins with a loss."""
    begins = [lines.saved((n - 1) * lines.per_machine, n) for n in (_ONE, Decimal(2))]
    grows = begins[1] - begins[0]
    if grows < 0:
        return None
    if grows == 0:
        return Decimal(0) if begins[0] >= 0 else None
    if begins[0] >= 0:
        return Decimal(0)
    last = _ONE + (-begins[0] / grows).to_integral_value(rounding=ROUND_FLOOR)
    if lines.saved((last - 1) * lines.per_machine, last) >= 0:
        last -= 1  # it begins with neither loss nor saving
    solved = (lines.base + lines.step * last - lines.api_base) / (lines.api_slope - lines.slope)
    return min(solved, last * lines.per_machine)


def _meeting(lines: _Lines, stair: int) -> list[Meeting]:
    gain = lines.api_slope - lines.slope
    if gain == 0:
        return []
    volume = (lines.base + lines.step * stair - lines.api_base) / gain
    if not (stair - 1) * lines.per_machine < volume <= stair * lines.per_machine:
        return []
    return [Meeting(volume, stair, lines.api_base + lines.api_slope * volume)]
