"""When money is spent over the horizon, with the work growing; and when one way has paid for itself. Pure.

A statement spreads what is paid once; here it is paid when it is due. Machines are bought in the month that needs
them and replaced when they are written off. What they are still worth on the books at the horizon's end lessens the
total, or a purchase shortly before the end would look like a loss; it is no money that anybody has, so nothing is paid
back by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Final

from serving.economics.currencies import to_cents
from serving.economics.inputs import SECTIONS, Bought, Case, Sections, Tuning
from serving.economics.statement import Option, fleet_at, running, times_made

_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class CashFlow:
    """What is paid in each month of the horizon, in whole cents; less than nothing where money comes back."""

    option: Option
    months: tuple[Decimal, ...]
    machines: tuple[int, ...]
    """By month: those that are there."""
    worth: Decimal
    """Of the machines on the books when the horizon ends."""

    @property
    def total(self) -> Decimal:
        """Over the horizon, less what the machines are still worth."""
        return sum(self.months, _NOTHING) - self.worth

    @property
    def cumulative(self) -> tuple[Decimal, ...]:
        """Until the end of each month."""
        return tuple(accumulate(self.months))


def cash_flow(case: Case, option: Option) -> CashFlow:
    """What is paid month by month; the case's ranges count as their `likely`."""
    horizon = case.horizon_months
    growth = 1 + case.workload.growth_per_month.likely
    scales = [growth**month for month in range(horizon)]
    fleets = [fleet_at(case, option, scale) for scale in scales]
    there = [0 if fleet is None else fleet.machines for fleet in fleets]
    own = case.own if option != "api" else None
    others, worth = [_NOTHING] * horizon, _NOTHING
    if own is not None and own.bought is not None:
        others, there, worth = _purchases(own.bought, there)
    if own is not None and own.tuning is not None:
        others = [each + more for each, more in zip(others, _tuned(own.tuning, horizon), strict=True)]
    spares = 0 if own is None else own.spares
    # a machine that is there costs what it costs, whether it is needed or not
    needed = [None if own is None else machines - spares for machines in there]
    paid = [running(case, option, *each) for each in zip(scales, needed, strict=True)]
    paid[0] += _once(case, option)
    months = tuple(to_cents(each + more) for each, more in zip(paid, others, strict=True))
    return CashFlow(option, months, tuple(there), to_cents(worth))


def pays_from(costly: CashFlow, cheap: CashFlow) -> int | None:
    """The month, from 1, at whose end the second has cost no more in all, and does not again within the horizon.

    None where there is none.
    """
    behind = [later > earlier for earlier, later in zip(costly.cumulative, cheap.cumulative, strict=True)]
    if behind[-1]:
        return None
    last = max((month for month, is_behind in enumerate(behind, 1) if is_behind), default=0)
    return last + 1


def _once(case: Case, option: Option) -> Decimal:
    parts = {"api": (case.api,), "own": (case.own,), "hybrid": (case.api, case.own, case.hybrid)}[option]
    return sum((_once_of(part.sections) for part in parts if part is not None), _NOTHING)


def _once_of(sections: Sections) -> Decimal:
    items = [item for section in SECTIONS for item in getattr(sections, section).values()]
    return sum((item.once.likely for item in items), _NOTHING)


def _purchases(bought: Bought, wanted: list[int]) -> tuple[list[Decimal], list[int], Decimal]:
    """Payments by month, how many machines are there in it, and what they are worth at the end.

    None is given back before it is written off.
    """
    price, left = bought.price.likely, bought.price.likely * bought.residual.likely
    paid, there = [], []
    made: list[int] = []
    """By month: machines that were bought in it."""
    for month, need in enumerate(wanted):
        young = sum(made[max(0, month + 1 - bought.months) :])
        old = made[month - bought.months] if month >= bought.months else 0
        made.append(max(0, need - young))
        paid.append(made[month] * price - old * left)
        there.append(young + made[month])
    ages = range(len(made), 0, -1)
    worth = sum(
        (
            count * (price - (price - left) * age / bought.months)
            for count, age in zip(made, ages, strict=True)
            if age <= bought.months
        ),
        _NOTHING,
    )
    return paid, there, worth


def _tuned(tuning: Tuning, horizon: int) -> list[Decimal]:
    first = tuning.data.likely + tuning.labour.likely + tuning.gpu_hours.likely * tuning.per_gpu_hour.likely
    made = [times_made(tuning, month) for month in range(horizon + 1)]
    paid = [(after - before) * first * tuning.refresh.likely for before, after in pairwise(made)]
    paid[0] += first * (1 - tuning.refresh.likely)
    return paid
