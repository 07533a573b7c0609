"""How sure a statement is: what it may be when every range is drawn, and which ranges move it most. Pure, by a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Final, TypeVar

from serving.economics.breakeven import first_volume
from serving.economics.cash import CashFlow, cash_flow, pays_from
from serving.economics.currencies import to_cents
from serving.economics.curve import mean_month
from serving.economics.inputs import Case
from serving.economics.statement import Option, options_of
from serving.economics.values import Value, settle, uncertain

DRAWS: Final = 2000
"""Enough that the ends of a 90% interval move by a few hundredths of its width between seeds."""
CASH_DRAWS: Final = 200
"""Fewer, since each is worked out month by month."""
_LOW, _HALF, _HIGH = Decimal("0.05"), Decimal("0.5"), Decimal("0.95")
Figured = Callable[[Case], Decimal]
Ranked = TypeVar("Ranked", int, Decimal)


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure by how likely it is: in 90 of 100 draws it is from `low` to `high`."""

    low: Decimal
    middle: Decimal
    """In half of the draws it is less."""
    high: Decimal
    least: Decimal
    most: Decimal


@dataclass(frozen=True, slots=True)
class Swing:
    """What one input alone does: all others stay at their likely values."""

    path: str
    value: Value
    at_low: Decimal
    at_high: Decimal

    @property
    def width(self) -> Decimal:
        """By how much the figure moves."""
        return abs(self.at_high - self.at_low)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What many draws of all ranges gave."""

    draws: int
    seed: int
    totals: dict[Option, Spread]
    """Of the mean month of the horizon, with the work growing."""
    cheapest: dict[Option, Decimal]
    """The share of draws in which an option cost least; a tie counts for the first."""
    savings: dict[Option, Spread]
    """By each option beside the API, as a share of the API's cost of the same draw; empty without an API."""
    saved_by_both: Spread | None
    """By both beside own machines alone, as a share of what these cost in the same draw; None without the two."""
    first_volume: Spread | None
    """From which owning costs no more, in volumes of the case, of those draws in which it ever does."""
    never: Decimal
    """The share of draws in which it never does."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What an option has cost over the horizon when all ranges are drawn, paid when it is due."""

    total: Spread
    """Less what machines are worth at the end."""
    months: tuple[int, int] | None
    """From and to in nine of ten of those draws in which it pays for itself: the month from which less was paid for it
    than for the API. None where it never does, and for the API itself."""
    never: Decimal
    """The share of draws in which it does not within the horizon."""


def draw(case: Case, *, draws: int = DRAWS, seed: int = 1) -> Drawn:
    """What each option costs in the horizon's mean month when all ranges are drawn at once, each by itself.

    The options of one draw share its figures: a month with more tokens has them for all.
    """
    names = options_of(case)
    found: list[dict[Option, Decimal]] = []
    firsts: list[Decimal] = []
    for each in _cases(case, draws, seed):
        found.append({name: mean_month(each, name) for name in names})
        volume = first_volume(each)
        if volume is not None:
            firsts.append(volume)
    wins = Counter(min(names, key=lambda each: costs[each]) for costs in found)
    savings: dict[Option, Spread] = {}
    for name in names:
        saved = None if name == "api" else _saved(found, name, "api")
        if saved is not None:
            savings[name] = saved
    return Drawn(
        draws=len(found),
        seed=seed,
        totals={name: _spread(sorted(costs[name] for costs in found), to_cents) for name in names},
        cheapest={name: Decimal(wins[name]) / len(found) for name in names},
        savings=savings,
        saved_by_both=_saved(found, "hybrid", "own"),
        first_volume=_spread(sorted(firsts), Decimal) if firsts else None,
        never=1 - Decimal(len(firsts)) / len(found),
    )


def _saved(found: Sequence[Mapping[Option, Decimal]], option: Option, beside: Option) -> Spread | None:
    """Of what the other costs in the same draw; None where one of the two is not there, or the other costs nothing."""
    if not all(option in costs and costs.get(beside) for costs in found):
        return None
    return _spread(sorted(1 - costs[option] / costs[beside] for costs in found), _thousandths)


def draw_cash(case: Case, *, draws: int = CASH_DRAWS, seed: int = 1) -> dict[Option, Paid]:
    """Each option's payments, of fewer draws than `draw` makes: the first of the same seed."""
    names = options_of(case)
    found = [{name: cash_flow(each, name) for name in names} for each in _cases(case, draws, seed)]
    return {name: _paid(name, found) for name in names}


def _paid(name: Option, found: Sequence[Mapping[Option, CashFlow]]) -> Paid:
    months = [] if name == "api" else [pays_from(each["api"], each[name]) for each in found if "api" in each]
    reached = sorted(month for month in months if month is not None)
    return Paid(
        total=_spread(sorted(each[name].total for each in found), to_cents),
        months=(_ranked(reached, _LOW), _ranked(reached, _HIGH)) if reached else None,
        never=1 - Decimal(len(reached)) / len(found),
    )


def _cases(case: Case, draws: int, seed: int) -> Iterator[Case]:
    """The case with all its ranges drawn, as often as that; once, and as it is, where it has none."""
    ranges = uncertain(case)
    source = Random(seed)  # noqa: S311 -- draws, no secrets
    for _ in range(draws if ranges else 1):
        yield settle(case, {path: value.at(Decimal(source.random())) for path, value in ranges})


def tornado(case: Case, figure: Figured) -> tuple[Swing, ...]:
    """Each range at its ends, the others at their likely values; those that move the figure most come first."""
    swings = []
    for path, value in uncertain(case):
        low, high = (figure(settle(case, {path: end})) for end in (value.low, value.high))
        swings.append(Swing(path, value, to_cents(low), to_cents(high)))
    return tuple(sorted(swings, key=lambda each: -each.width))


def _spread(ordered: Sequence[Decimal], rounded: Callable[[Decimal], Decimal]) -> Spread:
    low, middle, high = (_ranked(ordered, share) for share in (_LOW, _HALF, _HIGH))
    return Spread(*map(rounded, (low, middle, high, ordered[0], ordered[-1])))


def _ranked(ordered: Sequence[Ranked], share: Decimal) -> Ranked:
    """That below which so large a share of them lies."""
    return ordered[int((len(ordered) - 1) * share)]


def _thousandths(share: Decimal) -> Decimal:
    return share.quantize(Decimal("0.001"))
