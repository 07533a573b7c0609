"""A case: what is asked, of whom, at what prices, with which people. A TOML file; closed to unknown fields.

Money is in one currency, which the case names. Lasting costs are per month, prices of tokens per million of them, of a
GPU per hour, of power per kWh. A figure may be a range wherever one stands (`values`).
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from serving.economics.currencies import Currency
from serving.economics.values import Amount, AtLeastOne, Growth, Positive, Share, SomeShare, certain
from serving.settings.section import Section

ZERO: Final = certain(0)
ONE: Final = certain(1)
DAY_H: Final = 24
WEEK_DAYS: Final = 7
YEAR_MONTHS: Final = 12
MILLION: Final = Decimal(10**6)
"""Tokens that a price is of."""

ItemName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f.]{1,80}$")]
"""In any language; without a dot, since dots part the names of a path."""
Text = Annotated[str, Field(min_length=1, max_length=400)]


def _day(given: object) -> object:
    if isinstance(given, datetime):
        raise ValueError("must be a day such as `2027-01-31`, without a time")  # noqa: TRY004 -- a finding of pydantic's
    return given


Day = Annotated[date, BeforeValidator(_day)]


class Workload(Section):
    """What is asked and answered on the mean day of a month, those without work among them."""

    input_tokens_per_day: Amount | None = None
    """Of questions and documents, each counted once."""
    output_tokens_per_day: Amount | None = None
    """Of answers, as they are seen."""
    tokens_per_day: Amount | None = None
    """Both together, in place of the two; with the share of them that is input."""
    input_share: Share | None = None
    requests_per_day: Positive | None = None
    """For the cost of a request; None where nobody knows."""
    days_per_month: Positive = certain(30)
    turns: AtLeastOne = ONE
    """Requests of a conversation; each carries all that was said before it."""
    reasoning: Amount = ZERO
    """Hidden tokens for each token of an answer that is seen."""
    cached: Share = ZERO
    """Of all tokens sent, those that a provider finds computed."""
    cache_writes: Share = ZERO
    """Of all tokens sent, those that it charges for keeping."""
    batch: Share = ZERO
    """Of the work, what can wait for a batch's discount."""
    hours_per_day: Positive = certain(DAY_H)
    days_per_week: Positive = certain(WEEK_DAYS)
    """When the work comes: 24 and 7, or office hours."""
    peak: AtLeastOne = ONE
    """The busiest hour's load over the mean of the hours in which work comes."""
    growth_per_month: Growth = ZERO

    @model_validator(mode="after")
    def _whole(self) -> Workload:
        apart = [self.input_tokens_per_day is not None, self.output_tokens_per_day is not None]
        together = [self.tokens_per_day is not None, self.input_share is not None]
        if (all(apart), any(together)) != (True, False) and (any(apart), all(together)) != (False, True):
            raise ValueError(
                "must have `input_tokens_per_day` and `output_tokens_per_day`, or `tokens_per_day` and `input_share`"
            )
        if self.cached.high + self.cache_writes.high > 1:
            raise ValueError("`cached` and `cache_writes` are shares of the same tokens: together at most 1")
        for name, most in (("days_per_month", 31), ("hours_per_day", DAY_H), ("days_per_week", WEEK_DAYS)):
            if getattr(self, name).high > most:
                raise ValueError(f"`{name}` must be at most {most}")
        return self


class Item(Section):
    """What something costs: so much a month, so much once, or people's time."""

    per_month: Amount = ZERO
    once: Amount = ZERO
    people: Amount = ZERO
    """Of full-time posts."""
    pay_per_month: Amount = ZERO
    """What one full-time post costs its employer in a month, all in."""

    @model_validator(mode="after")
    def _whole(self) -> Item:
        if (self.people == ZERO) != (self.pay_per_month == ZERO):
            raise ValueError("`people` and `pay_per_month` go together")
        return self


def _items(given: object) -> object:
    """A section is its items; `0` says that it costs nothing."""
    if isinstance(given, dict) and given:
        return {name: {"per_month": each} if _is_figure(each) else each for name, each in given.items()}
    if isinstance(given, int | Decimal) and not isinstance(given, bool) and given == 0:
        return {}
    raise ValueError("must be `0`, or a table of what it costs: `name = 1200` a month, or `name = { once = 5000 }`")


def _is_figure(given: object) -> bool:
    return not isinstance(given, dict | Item) or (isinstance(given, dict) and "low" in given)


Items = Annotated[dict[ItemName, Item], BeforeValidator(_items)]


class Sections(Section):
    """The six parts of a total cost, each said, if only that it is nothing."""

    compute: Items
    """Beside tokens or machines, which are counted."""
    engineering: Items
    data: Items
    operational_risk: Items
    regulation_and_security: Items
    time_to_market: Items


SECTIONS: Final = tuple(Sections.model_fields)


class TokenPrices(Section):
    """Per million tokens."""

    input: Amount
    cached_input: Amount | None = None
    """As `input` where left out; so with `cache_write`."""
    cache_write: Amount | None = None
    output: Amount
    reasoning: Amount | None = None
    """As `output` where left out."""
    batch_discount: Share = ZERO


class Api(Section):
    """Tokens bought by the million."""

    prices: TokenPrices
    sections: Sections


class Rented(Section):
    """Machines by the hour."""

    per_gpu_hour: Amount
    commitment_discount: Share = ZERO
    hours: Literal["always", "busy"] = "always"
    """`busy`: given back outside the hours in which work comes."""


class Bought(Section):
    """Machines of one's own, written off in a straight line."""

    price: Amount
    """Of one machine."""
    months: Literal[36, 60]
    residual: Share = ZERO
    """Of the price, what it is worth after those months."""
    financing_per_year: Share = ZERO
    """Interest, on what is bound in the mean: half of price and residual together."""
    maintenance_per_year: Share = ZERO
    """Of the price."""
    colocation_per_month: Amount = ZERO
    """Of one machine: space, cooling, network."""


class Capacity(Section):
    """What one machine does while it keeps its promise of latency; measured, not from a data sheet."""

    prefill_tokens_per_s: Positive
    decode_tokens_per_s: Positive
    measured: Literal["together", "apart"]
    """`together`: both at once under one load. `apart`: each alone, so that they share the machine's time."""
    used: SomeShare = ONE
    """Of the measured capacity, what is planned for."""
    prefix_reuse: Share = ZERO
    """Of the tokens sent, those that the engine finds computed in such work, and the measurement did not."""
    source: Text = "typed in"


class Power(Section):
    """What one machine takes."""

    busy_w: Amount
    idle_w: Amount
    pue: AtLeastOne
    """Power of the whole site over that of the machines."""
    per_kwh: Amount
    source: Text = "typed in"


class Tuning(Section):
    """An adapter of one's own, made again as it ages."""

    data: Amount
    labour: Amount
    gpu_hours: Amount
    per_gpu_hour: Amount
    useful_months: Positive
    refresh: Share = ONE
    """Of the first cost, what each further time costs."""


class Own(Section):
    """Machines of one's own, or rented."""

    gpus: int = Field(ge=0, le=64)
    """In one machine; 0 where it has none. A rented one is paid by GPU."""
    rented: Rented | None = None
    bought: Bought | None = None
    capacity: Capacity
    power: Power | None = None
    spares: int = Field(ge=0, le=1000)
    """Machines beside those that the load needs: 1 for N+1."""
    tuning: Tuning | None = None
    sections: Sections

    @model_validator(mode="after")
    def _whole(self) -> Own:
        if (self.rented is None) == (self.bought is None):
            raise ValueError("must be either `rented` or `bought`")
        if self.bought is not None and self.power is None:
            raise ValueError("`power` is missing: a machine that was bought is fed by its owner")
        if self.rented is not None and self.gpus == 0:
            raise ValueError("`gpus` must be at least 1: what is rented is paid by GPU")
        if self.power is not None and self.power.idle_w.high > self.power.busy_w.low:
            raise ValueError("`power.idle_w` must be at most `power.busy_w`")
        return self


class Hybrid(Section):
    """Some of the work goes out, the rest stays."""

    outside: Share
    """Of the input, what an API takes."""
    outside_output: Share | None = None
    """Of the output; as `outside` where what goes out has the mix of the whole."""
    sections: Sections
    """What having both costs beside what each costs: routing, detection, two contracts."""


class Case(Section):
    """All that a statement is made of."""

    version: Literal[1]
    title: Text
    currency: Currency
    horizon_months: int = Field(ge=1, le=240)
    day: Day
    """As of which prices are."""
    workload: Workload
    api: Api | None = None
    own: Own | None = None
    hybrid: Hybrid | None = None

    @model_validator(mode="after")
    def _whole(self) -> Case:
        if self.api is None and self.own is None:
            raise ValueError("must have `api`, `own`, or both")
        if self.hybrid is not None and (self.api is None or self.own is None):
            raise ValueError("`hybrid` is of `api` and `own`: both must be there")
        return self
