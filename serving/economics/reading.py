"""Cases and books from files: checked, with what is named in a book put in its place, in the case's currency."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError

from serving.economics.books import Gpu, Market, PricedModel, find, is_stale
from serving.economics.currencies import Currency
from serving.economics.inputs import Case, Day, Text, TokenPrices
from serving.economics.values import Positive, Value
from serving.errors import BadFile, FileMissing
from serving.settings.section import Section
from serving.settings.wording import explained

_MAX_BYTES: Final = 4 << 20
_HINT: Final = "docs/economics.md shows every table and field"


class _Rate(Section):
    """What one unit of another currency is worth in the case's own."""

    rate: Positive
    day: Day
    source: Text


class _CaseFile(Case):
    """A case as it stands in a file: with rates beside it, which it has no more once they are used."""

    exchange: dict[Currency, _Rate] = Field(default={})


@dataclass(frozen=True, slots=True)
class Source:
    """An entry of a book that a case is made of, or a rate."""

    name: str
    source: str
    checked: date
    is_stale: bool
    """Longer ago than prices stay as they are, on the day that the reader was told is today."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case and where its prices are from."""

    case: Case
    sources: tuple[Source, ...]


Table = TypeVar("Table", bound=BaseModel)


def load_market(path: Path) -> Market:
    """The book in a file. Raises FileMissing, BadFile."""
    where = f"the book of prices `{path}`"
    return _checked(_toml(path, where), Market, where)


def read_case(path: Path) -> dict[str, Any]:
    """The tables of a case's file, unchecked. Raises FileMissing, BadFile."""
    return _toml(path, f"the case `{path}`")


def make_case(content: Mapping[str, Any], market: Market, today: date, where: str) -> Loaded:
    """The case that these tables are; `where` names them in errors. Raises BadFile, UsageError."""
    named = _Named(content, market, today, where)
    checked = _checked(named.filled(), _CaseFile, where)
    unused = [
        each for each in checked.exchange if f"{each}/{checked.currency}" not in {one.name for one in named.sources}
    ]
    if unused:
        raise BadFile(f"{where}: `exchange.{unused[0]}` is not used", hint="leave it out, or name a price in it")
    case = Case.model_construct(**{name: getattr(checked, name) for name in Case.model_fields})
    return Loaded(case, tuple(named.sources))


class _Named:
    """What a case names in a book, put where it is named."""

    def __init__(self, content: Mapping[str, Any], market: Market, today: date, where: str) -> None:
        self.sources: list[Source] = []
        self._content, self._market, self._today, self._where = content, market, today, where

    def filled(self) -> dict[str, Any]:
        filled = dict(self._content)
        api, own = filled.get("api"), filled.get("own")
        if isinstance(api, dict) and isinstance(api.get("prices"), str):
            entry = find(self._market.model, api["prices"], self._day(), what="model")
            filled["api"] = {**api, "prices": self._converted(entry, entry.prices, "api.prices")}
        if isinstance(own, dict) and isinstance(own.get("gpu"), str):
            filled["own"] = self._with_gpu(own)
        return filled

    def _with_gpu(self, own: dict[str, Any]) -> dict[str, Any]:
        """A catalogue's price and power, where the case says nothing of its own."""
        gpu = find(self._market.gpu, own["gpu"], self._day(), what="GPU")
        rest = {name: each for name, each in own.items() if name != "gpu"}
        rented, power, count = rest.get("rented"), rest.get("power"), rest.get("gpus")
        if isinstance(rented, dict) and "per_gpu_hour" not in rented and gpu.per_hour is not None:
            rest["rented"] = {**rented, "per_gpu_hour": self._converted(gpu, gpu.per_hour, "own.gpu")}
        if isinstance(power, dict) and "busy_w" not in power and isinstance(count, int):
            self._use(gpu)
            rated = f"rated: {count} × {gpu.tdp_w} W, without the machine around them"
            rest["power"] = {"source": rated, **power, "busy_w": Decimal(gpu.tdp_w * count)}
        return rest

    def _day(self) -> date:
        day = self._content.get("day")
        # what is wrong with it, such as a time of the day, is said later, with the rest
        return day if isinstance(day, date) and not isinstance(day, datetime) else self._today

    def _use(self, entry: PricedModel | Gpu) -> None:
        if entry.checked > self._today:
            raise BadFile(f"the book says that `{entry.name}` was checked on {entry.checked}, which is still to come")
        source = Source(entry.name, entry.source, entry.checked, entry.is_stale(self._today))
        if source not in self.sources:
            self.sources.append(source)

    def _converted(self, entry: PricedModel | Gpu, price: Any, place: str) -> Any:
        self._use(entry)
        wanted = self._content.get("currency")
        if entry.currency == wanted or not isinstance(wanted, str):
            return price
        given = self._content.get("exchange")
        if not isinstance(given, dict) or entry.currency not in given:
            raise BadFile(
                f"{self._where}: `{place}` is in {entry.currency}, and the case in {wanted}",
                hint=f"say what one {entry.currency} is: `[exchange.{entry.currency}]` with `rate`, `day`, `source`",
            )
        rate = _checked(given[entry.currency], _Rate, f"{self._where}: `exchange.{entry.currency}`")
        name = f"{entry.currency}/{wanted}"
        if not any(each.name == name for each in self.sources):
            self.sources.append(Source(name, rate.source, rate.day, is_stale(rate.day, self._today)))
        return _times(price, rate.rate)


def _times(price: Value | TokenPrices, rate: Value) -> Value | TokenPrices:
    if isinstance(price, Value):
        return Value(price.low * rate.low, price.likely * rate.likely, price.high * rate.high)
    money = ("input", "cached_input", "cache_write", "output", "reasoning")
    there = {name: getattr(price, name) for name in money if getattr(price, name) is not None}
    return price.model_copy(update={name: _times(each, rate) for name, each in there.items()})


def _toml(path: Path, where: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileMissing(f"{where} does not exist", hint=_HINT) from None
    except OSError as error:
        raise BadFile(f"{where} cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise BadFile(f"{where} has more than {_MAX_BYTES:,} bytes")
    try:
        return tomllib.loads(raw.decode(), parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise BadFile(f"{where} is not TOML: {error}", hint=_HINT) from None


def _checked(content: object, table: type[Table], where: str) -> Table:
    try:
        return table.model_validate(content)
    except ValidationError as failure:
        message, hint = explained(failure, table, where, _HINT)
        raise BadFile(message, hint=hint) from None
