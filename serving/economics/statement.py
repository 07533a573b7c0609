"""A month's statement: what each way of having inference costs, line by line, in whole cents. Pure.

Lines are rounded, totals are sums of lines, so that what is printed adds up. What is paid once is spread over the
horizon. Where something is to be solved or compared, `exact` has the same sum before rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, NamedTuple, TypeVar, get_args

from serving.economics import machines
from serving.economics.currencies import to_cents
from serving.economics.inputs import MILLION, SECTIONS, Case, Own, Sections, TokenPrices, Tuning
from serving.economics.machines import Fleet, fleet_of
from serving.economics.work import ALL, Month, Part, month_of

Option = Literal["api", "own", "hybrid"]
OPTIONS: Final[tuple[Option, ...]] = get_args(Option)
There = TypeVar("There")


class Line(NamedTuple):
    """One thing that is paid for."""

    section: str
    name: str
    """A name of ours such as `tokens.output` or `machines.rent`; of what a case lists itself, the case's own."""
    per_month: Decimal
    """In a statement: whole cents of its currency."""
    quantity: Decimal | None = None
    unit: str | None = None
    """What the quantity is of, such as `tokens` or `kWh`; None where the line is an amount of money as it was given."""
    is_spread: bool = False
    """Paid at other times than these months: once, or when machines are bought (`cash` has when)."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What one way costs in a month."""

    option: Option
    currency: str
    lines: tuple[Line, ...]
    month: Month
    """The whole work's, whoever does it."""
    fleet: Fleet | None
    """None where there are no machines."""

    @property
    def total(self) -> Decimal:
        """Per month."""
        return sum((line.per_month for line in self.lines), Decimal(0))

    @property
    def by_section(self) -> dict[str, Decimal]:
        """Per month, all six."""
        sums = dict.fromkeys(SECTIONS, Decimal(0))
        for line in self.lines:
            sums[line.section] += line.per_month
        return sums

    @property
    def per_million(self) -> Decimal | None:
        """Per million tokens served (`Month.served`); None where nothing is."""
        return self.total / self.month.served * MILLION if self.month.served else None

    @property
    def per_request(self) -> Decimal | None:
        """None where nobody knows how many there are."""
        return self.total / self.month.requests if self.month.requests else None


def options_of(case: Case) -> tuple[Option, ...]:
    """Those that a case has."""
    return tuple(each for each in OPTIONS if getattr(case, each) is not None)


def statement(case: Case, option: Option, scale: Decimal = Decimal(1)) -> Statement:
    """A month of so many times the case's work; its ranges count as their `likely`."""
    lines = tuple(each._replace(per_month=to_cents(each.per_month)) for each in _lines(case, option, scale))
    return Statement(option, case.currency, lines, month_of(case.workload, scale), fleet_at(case, option, scale))


def exact(case: Case, option: Option, scale: Decimal = Decimal(1), needed: int | None = None) -> Decimal:
    """The total of a month before rounding; `needed` fixes how many machines carry the load."""
    return sum((each.per_month for each in _lines(case, option, scale, needed)), Decimal(0))


def running(case: Case, option: Option, scale: Decimal = Decimal(1), needed: int | None = None) -> Decimal:
    """What is paid in such a month itself: the total without what is spread over many; `needed` as for `exact`."""
    return sum((each.per_month for each in _lines(case, option, scale, needed) if not each.is_spread), Decimal(0))


def fleet_at(case: Case, option: Option, scale: Decimal = Decimal(1)) -> Fleet | None:
    """The machines for so many times the work; None where there are none."""
    if option == "api":
        return None
    work = case.workload
    return fleet_of(_there(case.own), work, month_of(work, scale, inside(case, option)))


def inside(case: Case, option: Option) -> Part:
    """What of the work machines of one's own do."""
    if option == "hybrid":
        hybrid = _there(case.hybrid)
        return Part(hybrid.outside.likely, (hybrid.outside_output or hybrid.outside).likely).rest
    return ALL if option == "own" else ALL.rest


def _lines(case: Case, option: Option, scale: Decimal, needed: int | None = None) -> Iterator[Line]:
    """Before rounding."""
    part = inside(case, option)
    if option != "own":
        api = _there(case.api)
        yield from _tokens(api.prices, month_of(case.workload, scale, part.rest), case.workload.batch.likely)
        yield from _items(api.sections, case.horizon_months, "api" if option == "hybrid" else "")
    if option != "api":
        own = _there(case.own)
        yield from _machines(case, own, month_of(case.workload, scale, part), needed)
        if own.tuning is not None:
            yield from _tuning(own.tuning, case.horizon_months)
        yield from _items(own.sections, case.horizon_months, "own" if option == "hybrid" else "")
    if option == "hybrid":
        yield from _items(_there(case.hybrid).sections, case.horizon_months, "both")


def _tokens(prices: TokenPrices, month: Month, batch: Decimal) -> Iterator[Line]:
    """What an API's bill has."""
    discounted = 1 - batch * prices.batch_discount.likely
    kinds = (
        ("input", month.fresh, prices.input),
        ("cached_input", month.cached, prices.cached_input or prices.input),
        ("cache_write", month.written, prices.cache_write or prices.input),
        ("output", month.output, prices.output),
        ("reasoning", month.reasoning, prices.reasoning or prices.output),
    )
    for name, tokens, price in kinds:
        if tokens:
            amount = tokens / MILLION * price.likely * discounted
            yield Line("compute", f"tokens.{name}", amount, tokens, "tokens")


def _machines(case: Case, own: Own, month: Month, needed: int | None) -> Iterator[Line]:
    work = case.workload
    fleet = fleet_of(own, work, month, needed)
    count = Decimal(fleet.machines)
    if own.rented is not None:
        yield Line("compute", "machines.rent", machines.rent(own.rented, own.gpus, work, fleet), count, "machines")
    if own.bought is not None:
        for name, cost in (
            ("depreciation", machines.depreciation),
            ("financing", machines.financing),
            ("maintenance", machines.maintenance),
            ("colocation", machines.colocation),
        ):
            is_spread = name == "depreciation"
            yield Line("compute", f"machines.{name}", cost(own.bought, fleet), count, "machines", is_spread)
    if own.power is not None:
        kwh = machines.energy_kwh(own, own.power, work, fleet)
        yield Line("compute", "machines.power", kwh * own.power.per_kwh.likely, kwh, "kWh")


def times_made(tuning: Tuning, months: int) -> int:
    """How often an adapter is made in so many months: at once, and again whenever it has aged."""
    return int((months / tuning.useful_months.likely).to_integral_value(rounding=ROUND_CEILING))


def _tuning(tuning: Tuning, horizon: int) -> Iterator[Line]:
    """All that is made within the horizon, spread over it; the first at full cost."""
    times = (1 + (times_made(tuning, horizon) - 1) * tuning.refresh.likely) / horizon
    hours = tuning.gpu_hours.likely * times
    yield Line("data", "tuning.data", tuning.data.likely * times, is_spread=True)
    yield Line("engineering", "tuning.labour", tuning.labour.likely * times, is_spread=True)
    yield Line("compute", "tuning.gpu", hours * tuning.per_gpu_hour.likely, hours, "GPU hours", is_spread=True)


def _items(sections: Sections, horizon: int, whose: str) -> Iterator[Line]:
    for section in SECTIONS:
        for name, item in getattr(sections, section).items():
            named = f"{whose}: {name}" if whose else name
            monthly = item.per_month.likely + item.people.likely * item.pay_per_month.likely
            if monthly or not item.once.likely:
                yield Line(section, named, monthly)
            if item.once.likely:
                yield Line(section, f"{named} (once)", item.once.likely / horizon, is_spread=True)


def _there(part: There | None) -> There:
    if part is None:
        raise LookupError("this case has no such option")
    return part
