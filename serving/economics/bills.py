"""What a ledger's usage would have cost elsewhere: the same tokens at each price of a book. Pure.

Only the tokens: a provider counts with its own tokenizer, which may make a fifth more or less of the same text, and its
answers would have been others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from serving.economics.books import Market, PricedModel, holding
from serving.economics.currencies import to_cents
from serving.economics.inputs import MILLION, TokenPrices
from serving.economics.values import Value

_MICRO: Final = Decimal(10**6)
"""Of these a ledger counts money, in one unit of its currency."""
_ENDS: Final = ("low", "likely", "high")


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used in a span of time, and what the ledger charged for it."""

    since: date
    before: date
    requests: int
    fresh: int
    cached: int
    output: int
    reasoning: int
    cost: Decimal
    """In the ledger's own currency."""
    currency: str
    estimated: int
    """Requests whose tokens nobody counted."""

    @property
    def days(self) -> int:
        """Of the span."""
        return (self.before - self.since).days


@dataclass(frozen=True, slots=True)
class Bill:
    """The same at a price of the book."""

    name: str
    currency: str
    cost: Value
    """In whole cents; a range where the price is one."""
    uncached: Value
    """The same if nothing had been found cached there."""
    checked: date
    is_stale: bool


def usage_of(lines: Iterable[Mapping[str, Any]], since: date, before: date, currency: str) -> Usage:
    """The sum of a ledger's lines, as `serve keys usage --json` has them."""
    found = list(lines)

    def total(name: str) -> int:
        return sum(int(each[name]) for each in found)

    return Usage(
        since=since,
        before=before,
        requests=total("requests"),
        fresh=total("fresh"),
        cached=total("cached"),
        output=total("output"),
        reasoning=total("reasoning"),
        cost=Decimal(total("cost")) / _MICRO,
        currency=currency,
        estimated=total("estimated"),
    )


def bills(usage: Usage, market: Market, today: date) -> tuple[Bill, ...]:
    """At each price that held on the last day of the span, the cheapest first, currency by currency."""
    last = date.fromordinal(usage.before.toordinal() - 1)
    found = [_bill(each, usage, today) for each in holding(market.model, last).values()]
    return tuple(sorted(found, key=lambda each: (each.currency, each.cost.likely, each.name)))


def _bill(entry: PricedModel, usage: Usage, today: date) -> Bill:
    prices = entry.prices
    return Bill(
        name=entry.name,
        currency=entry.currency,
        cost=_cost(prices, usage, prices.cached_input or prices.input),
        uncached=_cost(prices, usage, prices.input),
        checked=entry.checked,
        is_stale=entry.is_stale(today),
    )


def _cost(prices: TokenPrices, usage: Usage, cached: Value) -> Value:
    counts = (
        (usage.fresh, prices.input),
        (usage.cached, cached),
        (usage.output, prices.output),
        (usage.reasoning, prices.reasoning or prices.output),
    )
    ends = (sum((tokens / MILLION * getattr(price, end) for tokens, price in counts), Decimal(0)) for end in _ENDS)
    return Value(*map(to_cents, ends))
