"""What each input of a case is counted in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SHARE: Final = "share"
_UNITS: Final[Mapping[str, str]] = {
    "input_tokens_per_day": "tokens/day",
    "output_tokens_per_day": "tokens/day",
    "tokens_per_day": "tokens/day",
    "requests_per_day": "requests/day",
    "days_per_month": "days/month",
    "turns": "requests/conversation",
    "reasoning": "hidden tokens/output token",
    "hours_per_day": "hours/day",
    "days_per_week": "days/week",
    "peak": "busiest hour/mean hour",
    "growth_per_month": "share/month",
    "prefill_tokens_per_s": "tokens/s",
    "decode_tokens_per_s": "tokens/s",
    "busy_w": "W",
    "idle_w": "W",
    "pue": "site power/machine power",
    "gpu_hours": "GPU hours",
    "useful_months": "months",
    "people": "posts",
    "financing_per_year": "share/year",
    "maintenance_per_year": "share/year",
}
_MONEY: Final[Mapping[str, str]] = {
    "per_month": "/month",
    "pay_per_month": "/month",
    "colocation_per_month": "/month",
    "once": "",
    "price": "",
    "data": "",
    "labour": "",
    "per_gpu_hour": "/GPU hour",
    "per_kwh": "/kWh",
}


def unit_of(path: str, currency: str) -> str:
    """Of the figure at a path of a case, such as `workload.turns`; `share` for what is a part of something."""
    *parents, name = path.split(".")
    if parents == ["api", "prices"] and name != "batch_discount":
        return f"{currency}/million tokens"
    if name in _MONEY:
        return currency + _MONEY[name]
    return _UNITS.get(name, _SHARE)
