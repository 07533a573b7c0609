"""How many machines a load needs, and what they cost in a month. Pure.

Machines come whole: cost is a staircase over volume, each step one machine. Prefill and decode are counted apart:
work that is short of one cannot use what is left of the other. Where capacity was measured with both at once, a machine
does both at those rates, so the larger of the two needs decides; where each was measured alone, they take turns, so the
needs add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from serving.economics.inputs import YEAR_MONTHS, Bought, Capacity, Own, Power, Rented, Workload
from serving.economics.work import Load, Month, all_hours, busy_hours, peak_load


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
    mean = load * own.capacity.used.likely / work.peak.likely * busy_hours(work) / all_hours(work)
    return Fleet(load, whole(load) if needed is None else needed, own.spares, mean)


def whole(load: Decimal) -> int:
    """Machines that carry a load of so many; one at least."""
    return max(1, int(load.to_integral_value(rounding=ROUND_CEILING)))


def _in_machines(load: Load, capacity: Capacity) -> Decimal:
    prefill = load.prefill / capacity.prefill_tokens_per_s.likely
    decode = load.decode / capacity.decode_tokens_per_s.likely
    together = max(prefill, decode) if capacity.measured == "together" else prefill + decode
    return together / capacity.used.likely


def rent(rented: Rented, gpus: int, work: Workload, fleet: Fleet) -> Decimal:
    """A month's, of all machines: hours in which nothing is asked are paid for like others."""
    price = rented.per_gpu_hour.likely * (1 - rented.commitment_discount.likely)
    return price * _hours_there(rented, work) * gpus * fleet.machines


def _hours_there(rented: Rented | None, work: Workload) -> Decimal:
    """Of a month: those in which the machines are not given back."""
    return busy_hours(work) if rented is not None and rented.hours == "busy" else all_hours(work)


def depreciation(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's: the price less what is left at the end, in equal parts."""
    return bought.price.likely * (1 - bought.residual.likely) / bought.months * fleet.machines


def financing(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's interest on what is bound in the mean: half of the price and of what is left at the end together."""
    bound = bought.price.likely * (1 + bought.residual.likely) / 2
    return bound * bought.financing_per_year.likely / YEAR_MONTHS * fleet.machines


def maintenance(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's."""
    return bought.price.likely * bought.maintenance_per_year.likely / YEAR_MONTHS * fleet.machines


def colocation(bought: Bought, fleet: Fleet) -> Decimal:
    """A month's."""
    return bought.colocation_per_month.likely * fleet.machines


def energy_kwh(own: Own, power: Power, work: Workload, fleet: Fleet) -> Decimal:
    """A month's, at the site's meter: all machines idle while they are there, and above it as the mean load is."""
    idle, busy = power.idle_w.likely, power.busy_w.likely
    above = (busy - idle) * min(fleet.mean, Decimal(fleet.machines)) * all_hours(work)
    return (idle * fleet.machines * _hours_there(own.rented, work) + above) * power.pue.likely / 1000
