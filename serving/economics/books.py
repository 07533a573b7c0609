"""What others charge for tokens, by provider and class, and what GPUs are and rent for; dated, with sources. Pure.

An entry holds from its day until the next of the same name begins, or until a day of its own; two that overlap are
an error. Nothing is said of a day before the first. Whoever uses an entry says when somebody last looked
whether it is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, model_validator

from serving.economics.currencies import Currency
from serving.economics.inputs import Day, Text, TokenPrices
from serving.economics.values import Amount
from serving.errors import UsageError
from serving.settings.section import Section

STALE_AFTER: Final = timedelta(days=90)
"""Prices of tokens and GPUs change more often than that."""
EntryName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,39}/[a-z0-9][a-z0-9.-]{0,59}$")]
GpuName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .-]{0,39}$")]


class _Dated(Section):
    """What every entry of a book has."""

    from_: Day = Field(alias="from")
    until: Day | None = None
    """The first day on which it holds no more."""
    checked: Day
    """When somebody last looked at the source."""
    source: Text

    @model_validator(mode="after")
    def _whole(self) -> _Dated:
        if self.until is not None and self.until <= self.from_:
            raise ValueError("`until` must be after `from`")
        return self

    def is_stale(self, today: date) -> bool:
        """Nobody has looked for longer than prices stay as they are."""
        return is_stale(self.checked, today)


class PricedModel(_Dated):
    """A provider's price for a model, or for the models of a class."""

    name: EntryName
    class_: Literal["frontier", "mini"] = Field(alias="class")
    currency: Currency
    prices: TokenPrices


class Gpu(_Dated):
    """A GPU: what it is, and what an hour of it rents for."""

    name: GpuName
    memory_gb: int = Field(gt=0)
    bandwidth_gb_per_s: int = Field(gt=0)
    tdp_w: int = Field(gt=0)
    precisions: tuple[Text, ...] = Field(strict=False, min_length=1)
    """Those that its tensor cores compute in."""
    currency: Currency
    per_hour: Amount | None = None
    """On demand; None where nobody found what it rents for."""


class Market(Section):
    """The book."""

    version: Literal[1]
    model: tuple[PricedModel, ...] = Field(default=(), strict=False)
    gpu: tuple[Gpu, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _whole(self) -> Market:
        for what, entries in (("model", self.model), ("gpu", self.gpu)):
            for (first, place), (then, other) in pairwise(sorted(_by_day(entries), key=lambda each: each[0][:2])):
                if first[0] == then[0] and (first[1] == then[1] or (first[2] or date.min) > then[1]):
                    raise ValueError(
                        f"`{what}.{place}` and `{what}.{other}` overlap: both say what `{first[0]}` costs on {then[1]}"
                    )
        return self


def _by_day(entries: Sequence[PricedModel | Gpu]) -> list[tuple[tuple[str, date, date | None], int]]:
    """Name, first day, first day no more, and the place in the file."""
    return [((each.name, each.from_, each.until), place) for place, each in enumerate(entries)]


Found = TypeVar("Found", PricedModel, Gpu)


def is_stale(checked: date, today: date) -> bool:
    """A price that somebody looked at on a day may have changed since."""
    return today - checked > STALE_AFTER


def holding(entries: Iterable[Found], day: date) -> dict[str, Found]:
    """By name, the entries that hold on a day: of each name the latest that has begun, unless it has ended."""
    begun = {each.name: each for each in sorted(entries, key=lambda each: each.from_) if each.from_ <= day}
    return {name: each for name, each in begun.items() if each.until is None or day < each.until}


def find(entries: Sequence[Found], name: str, day: date, *, what: str) -> Found:
    """The entry of that name which holds on a day. Raises UsageError."""
    found = holding(entries, day).get(name)
    if found is not None:
        return found
    days = [each.from_ for each in entries if each.name == name]
    if not days:
        known = ", ".join(f"`{each}`" for each in sorted({each.name for each in entries}))
        raise UsageError(f"the book has no {what} `{name}`", hint=f"it has {known or 'none'}")
    raise UsageError(f"the book has no price of `{name}` on {day}", hint=f"its first is of {min(days)}")
