"""How many machines a load needs, and what they cost in a month. Pure.

Machines come whole: cost is a staircase over volume, each step one machine. Prefill and decode are counted apart:
work that is short of one cannot use what is left of the other. Where capacity was measured with both at once, a machine
does both at those rates, so the larger of the two needs decides; where each was measured alone, they take turns, so the
needs add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from serving.economics.inputs import Bought, Capacity, Own, Power, Rented, Workload
from serving.economics.work import Load, Month, busy_hours, peak_load

_DAY_H: Final = 24
_YEAR: Final = 12


@dataclass(frozen=True, slots=True)
class Fleet:
    """The machines for a month's work."""

    load: Decimal
    """Of the busiest hour, in machines: 2.4 takes three."""
    needed: int
    """For the load; one at least."""
    spares: int
    mean: Decimal
    """Load over all hours of the month, in machines that are used up: what is kept free burns nothing."""

    @property
    def machines(self) -> int:
        """All of them."""
        return self.needed + self.spares


def fleet_of(own: Own, work: Workload, month: Month, needed: int | None = None) -> Fleet:
    """The machines for this work; `needed` fixes how many carry the load."""
    peak = peak_load(work, month, own.capacity.prefix_reuse.likely)
    load = _in_machines(peak, own.capacity)
    hours = work.days_per_month.likely * _DAY_H
    mean = load * own.capacity.used.likely / work.peak.likely * busy_hours(work) / hours
    least = max(1, int(load.to_integral_value(rounding=ROUND_CEILING)))
    return Fleet(load, least if needed is None else needed, own.spares, mean)


def _in_machines(load: Load, capacity: Capacity) -> Decimal:
    prefill = load.prefill / capacity.prefill_tokens_per_s.likely
    decode = load.decode / capacity.decode_tokens_per_s.likely
    together = max(prefill, decode) if capacity.measured == "together" else prefill + decode
    return together / capacity.used.likely


def rent(rented: Rented, gpus: int, work: Workload, fleet: Fleet) -> Decimal:
    """A month's, of all machines: hours in which nothing is asked are paid for like others."""
    hours = busy_hours(work) if rented.hours == "busy" else work.days_per_month.likely * _DAY_H
    return rented.per_gpu_hour.likely * (1 - rented.commitment_discount.likely) * hours * gpus * fleet.machines


def depreciation(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's: the price less what is left at the end, in equal parts."""
    return bought.price.likely * (1 - bought.residual.likely) / bought.months * fleet.machines


def financing(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's interest on what is bound in the mean: half of the price and of what is left at the end together."""
    bound = bought.price.likely * (1 + bought.residual.likely) / 2
    return bound * bought.financing_per_year.likely / _YEAR * fleet.machines


def maintenance(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's."""
    return bought.price.likely * bought.maintenance_per_year.likely / _YEAR * fleet.machines


def colocation(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's."""
    return bought.colocation_per_month.likely * fleet.machines


def energy_kwh(own: Own, power: Power, work: Workload, fleet: Fleet) -> Decimal:
    """A month's, at the site's meter: all machines idle while they are there, and above it as the mean load is."""
    all_hours = work.days_per_month.likely * _DAY_H
    hours = busy_hours(work) if own.rented is not None and own.rented.hours == "busy" else all_hours
    idle, busy = power.idle_w.likely, power.busy_w.likely
    above = (busy - idle) * min(fleet.mean, Decimal(fleet.machines)) * all_hours
    return (idle * fleet.machines * hours + above) * power.pue.likely / 1000
