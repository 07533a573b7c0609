"""What an option costs over the volume of work, and over months in which it grows. Pure.

An API's bill is a straight line over volume. A fleet's is a staircase with a slope: on each stair some machines are
paid for whatever they do, and power grows with the work. Four figures say all of it, so that thousands of draws over
many months are worked out without a statement for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from serving.economics.inputs import Case
from serving.economics.machines import whole
from serving.economics.statement import Option, exact, fleet_at

_NOTHING = Decimal(0)
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Curve:
    """A month's cost at so many times the case's work: `base + step × machines for the load + slope × times`."""

    base: Decimal
    step: Decimal
    """What one machine more costs."""
    slope: Decimal
    load: Decimal
    """Machines that the case's work needs, before going up to whole ones; 0 without machines."""
    has_machines: bool
    kept_months: int | None
    """Bought ones stay so long, however much the work shrinks; None for others, which go with it."""

    def needed(self, times: Decimal) -> int:
        """Whole machines for the load."""
        return whole(self.load * times) if self.has_machines else 0

    def at(self, times: Decimal, needed: int | None = None) -> Decimal:
        """A month's cost; `needed` fixes the machines for the load."""
        machines = self.needed(times) if needed is None else needed
        return self.base + self.step * machines + self.slope * times

    def mean_month(self, months: int, growth: Decimal) -> Decimal:
        """Over so many months, each with its work `growth` more than the one before."""
        if growth == 0:
            return self.at(_ONE)
        total, times, there = _NOTHING, _ONE, 0
        for month in range(months):
            # work that shrinks had all of its machines bought in one month; work that grows needs all that there are
            if self.kept_months is None or month % self.kept_months == 0:
                there = 0
            there = max(there, self.needed(times))
            total += self.at(times, there)
            times *= 1 + growth
        return total / months


def curve_of(case: Case, option: Option) -> Curve:
    """The case's ranges count as their `likely`."""
    fleet = fleet_at(case, option)
    machines = 0 if fleet is None else fleet.needed
    idle = exact(case, option, _NOTHING, 0)
    bought = None if fleet is None or case.own is None else case.own.bought
    return Curve(
        base=idle,
        step=_NOTHING if fleet is None else exact(case, option, _NOTHING, 1) - idle,
        # on as many machines as carry the case, whose power is in proportion
        slope=exact(case, option, _ONE, machines) - exact(case, option, _NOTHING, machines),
        load=_NOTHING if fleet is None else fleet.load,
        has_machines=fleet is not None,
        kept_months=None if bought is None else bought.months,
    )


def mean_month(case: Case, option: Option) -> Decimal:
    """The mean month of the case's horizon, with its growth, before rounding."""
    return curve_of(case, option).mean_month(case.horizon_months, case.workload.growth_per_month.likely)
