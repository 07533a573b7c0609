"""The price book: what tokens cost, from which day on. Budgets are counted in it, and each line of usage names it.

Prices are per million tokens in one currency, written as decimal numbers and kept as whole micro-units: `0.4` is
400,000 micro-units for a million tokens. What a request costs is rounded up to a whole micro-unit, once, at the end.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from serving.errors import BadFile, FileMissing

VERSION: Final = 1
MICRO: Final = 10**6
ANY: Final = "*"
_MILLION: Final = 10**6
_MAX_BYTES: Final = 4 << 20
_MAX_PRICE: Final = 10**6
_FIELDS: Final = frozenset({"from", "model", "engine", "input", "cached_input", "output", "reasoning"})


class Tokens(NamedTuple):
    """What a request used, by kind; each token is of one kind."""

    fresh: int = 0
    """Of the prompt, computed for it."""
    cached: int = 0
    """Of the prompt, found computed."""
    output: int = 0
    """Of the answer, without its reasoning."""
    reasoning: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.fresh + self.cached + self.output + self.reasoning


@dataclass(frozen=True, slots=True)
class Price:
    """One line of the book: micro-units per million tokens of each kind."""

    since: date
    model: str
    engine: str
    fresh: int
    cached: int
    output: int
    reasoning: int
    version: str = ""
    """Of the book that it stands in."""

    def cost(self, tokens: Tokens) -> int:
        """Micro-units, rounded up."""
        exact = (
            tokens.fresh * self.fresh
            + tokens.cached * self.cached
            + tokens.output * self.output
            + tokens.reasoning * self.reasoning
        )
        return -(-exact // _MILLION)

    def most(self, prompt: int, answer: int) -> int:
        """Micro-units that so many tokens cost at most, whatever kind they turn out to be of."""
        exact = prompt * max(self.fresh, self.cached) + answer * max(self.output, self.reasoning)
        return -(-exact // _MILLION)


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices; the later of a day stand over the earlier."""

    currency: str
    prices: tuple[Price, ...]
    version: str
    """The first 16 digits of the SHA-256 of its file."""

    def find(self, model: str, engine: str, day: date) -> Price | None:
        """The price in force on a day, in UTC: of the narrowest entry, then of the latest. None where there is none.

        An entry for the model and the engine is narrower than one for the model, and that than one for the engine.
        """
        fitting = [
            price
            for price in self.prices
            if price.since <= day and price.model in (model, ANY) and price.engine in (engine, ANY)
        ]
        return max(fitting, key=lambda each: (each.model != ANY, each.engine != ANY, each.since), default=None)


NO_PRICES: Final = PriceBook("", (), "")


class PriceFile:
    """The file that a book was read from, and is read from again as it changes."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self._seen: object = None

    def read(self) -> PriceBook:
        """The book in it now. Raises FileMissing, BadFile."""
        self._seen = self._look()
        return load_prices(self.path)

    def has_changed(self) -> bool:
        """Whether it looks otherwise (inode, size, time) than when it was read."""
        return self._look() != self._seen

    def _look(self) -> tuple[int, int, int] | None:
        try:
            facts = self.path.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_size, facts.st_mtime_ns


def load_prices(path: Path) -> PriceBook:
    """The book in a file. Raises FileMissing, BadFile."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileMissing(f"the price book `{path}` does not exist", hint="docs/access.md shows one") from None
    except OSError as error:
        raise BadFile(f"the price book `{path}` cannot be read: {error.strerror}") from None
    return parse_prices(raw, f"the price book `{path}`")


def parse_prices(raw: bytes, where: str) -> PriceBook:
    """The book that `raw` is; `where` names it in errors. Raises BadFile."""
    if len(raw) > _MAX_BYTES:
        raise BadFile(f"{where} has more than {_MAX_BYTES:,} bytes")
    try:
        content = tomllib.loads(raw.decode(), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where} is not TOML: {error}", hint="docs/access.md shows one") from None
    if content.get("version") != VERSION:
        raise _bad(where, f"is of version `{content.get('version')}`, not `{VERSION}`")
    currency, entries = content.get("currency"), content.get("prices", [])
    if not isinstance(currency, str) or not 1 <= len(currency) <= 8 or not currency.isalpha():
        raise _bad(where, f"has the currency `{currency}`, not one such as `EUR`")
    unknown = content.keys() - {"version", "currency", "prices"}
    if unknown or not isinstance(entries, list):
        raise _bad(where, f"holds `{', '.join(sorted(unknown)) or 'prices'}` that is no list of prices")
    version = hashlib.sha256(raw).hexdigest()[:16]
    prices = tuple(_price(entry, version, f"{where}: entry {number}") for number, entry in enumerate(entries, 1))
    named = [(price.model, price.engine, price.since) for price in prices]
    twice = next((each for each in named if named.count(each) > 1), None)
    if twice is not None:
        raise _bad(where, f"has two prices of `{twice[0]}` on `{twice[1]}` from `{twice[2]}` on")
    return PriceBook(currency, prices, version)


def micro_of(amount: Decimal) -> int | None:
    """Whole micro-units of an amount of the currency; None where it is negative, too large, or not a whole number."""
    if not amount.is_finite() or not 0 <= amount <= 10**12:
        return None
    scaled = amount * MICRO
    return int(scaled) if scaled == int(scaled) else None


def _price(entry: object, version: str, where: str) -> Price:
    if not isinstance(entry, dict) or entry.keys() - _FIELDS:
        raise _bad(where, f"has `{', '.join(sorted(entry.keys() - _FIELDS)) if isinstance(entry, dict) else entry}`")
    since, model, engine = entry.get("from"), entry.get("model", ANY), entry.get("engine", ANY)
    if not isinstance(since, date) or isinstance(since, datetime):
        raise _bad(where, f"begins `from = {since}`, which is no day such as `2026-01-31`")
    for what, name in (("model", model), ("engine", engine)):
        if not isinstance(name, str) or not name:
            raise _bad(where, f"has the {what} `{name}`, which is no name")
    fresh, output = _amount(entry, "input", where), _amount(entry, "output", where)
    if fresh is None or output is None:
        raise _bad(where, f"has no `{'input' if fresh is None else 'output'}`")
    cached, reasoning = _amount(entry, "cached_input", where), _amount(entry, "reasoning", where)
    return Price(
        since=since,
        model=model,
        engine=engine,
        fresh=fresh,
        cached=fresh if cached is None else cached,
        output=output,
        reasoning=output if reasoning is None else reasoning,
        version=version,
    )


def _amount(entry: dict[str, Any], field: str, where: str) -> int | None:
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    micro = micro_of(value) if isinstance(value, Decimal) else None
    if micro is None or micro > _MAX_PRICE * MICRO:
        raise _bad(where, f"has `{field} = {value}`, which is no price with at most six decimal places")
    return micro


def _bad(where: str, problem: str) -> BadFile:
    return BadFile(f"{where} {problem}", hint="docs/access.md says what it looks like")
