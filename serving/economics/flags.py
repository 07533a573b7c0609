"""What flags say of a case, in the form of its file. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from serving.economics.books import Market, find
from serving.economics.inputs import SECTIONS, YEAR_MONTHS
from serving.errors import UsageError

_SIZES: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
_NUMBER: Final = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([kKMB]?)"


@dataclass(frozen=True, slots=True)
class Flags:
    """As they were typed; None where one was not."""

    api: str | None = None
    tokens_per_day: str | None = None
    mix: str | None = None
    requests_per_day: str | None = None
    turns: str | None = None
    cached: str | None = None


def amount(text: str, flag: str) -> Any:
    """`5M`, or a range such as `3M..7M`. Raises UsageError."""
    found = re.fullmatch(rf"{_NUMBER}(?:\.\.{_NUMBER})?", text)
    if found is None:
        raise UsageError(f"`{flag} {text}` is no amount", hint="such as `5M`, `750k`, or a range: `3M..7M`")
    low = Decimal(found[1]) * _SIZES[found[2]]
    if found[3] is None:
        return low
    return {"low": low, "high": Decimal(found[3]) * _SIZES[found[4]]}


def workload(flags: Flags) -> dict[str, Any]:
    """The fields of `workload` that flags name. Raises UsageError."""
    told: dict[str, Any] = {}
    if (flags.tokens_per_day is None) != (flags.mix is None):
        raise UsageError(
            "`--tokens-per-day` and `--mix` go together: input and output have different prices",
            hint="`--tokens-per-day 5M --mix 75/25` is 3.75 M of input and 1.25 M of output",
        )
    if flags.tokens_per_day is not None and flags.mix is not None:
        told["tokens_per_day"] = amount(flags.tokens_per_day, "--tokens-per-day")
        told["input_share"] = _input_share(flags.mix)
    for name in ("requests_per_day", "turns", "cached"):
        text = getattr(flags, name)
        if text is not None:
            told[name] = amount(text, f"--{name.replace('_', '-')}")
    return told


def bill_alone(flags: Flags, market: Market, day: date) -> dict[str, Any]:
    """A case of an API's bill for tokens and nothing else, as the flags have it. Raises UsageError."""
    told = workload(flags)
    if flags.api is None or "tokens_per_day" not in told:
        raise UsageError(
            "there is nothing to estimate: neither a case nor an API and its tokens",
            hint="`serve cost estimate --api seeds-2026/frontier --tokens-per-day 5M --mix 75/25`, or a case's file",
        )
    entry = find(market.model, flags.api, day, what="model")
    return {
        "version": 1,
        "title": f"{flags.api}: {flags.tokens_per_day} tokens a day, {flags.mix} input/output",
        "currency": entry.currency,
        "horizon_months": YEAR_MONTHS,
        "day": day,
        "workload": told,
        "api": {"prices": flags.api, "sections": dict.fromkeys(SECTIONS, 0)},
    }


def _input_share(mix: str) -> Decimal:
    found = re.fullmatch(r"([0-9]{1,3})/([0-9]{1,3})", mix)
    if found is None or int(found[1]) + int(found[2]) != 100:
        raise UsageError(f"`--mix {mix}` is no mix", hint="input/output in percent, such as `75/25`")
    return Decimal(found[1]) / 100
