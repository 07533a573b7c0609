"""A ledger's usage at each provider's prices, for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from serving.economics.bills import Bill, Usage
from serving.economics.books import STALE_AFTER
from serving.economics.report.tables import Table
from serving.economics.report.words import Speech
from serving.economics.values import Value


def bills_table(usage: Usage, found: Sequence[Bill], speech: Speech) -> Table:
    """What it cost here first, then each provider."""
    counts = {name: speech.volume(Decimal(getattr(usage, name))) for name in ("fresh", "cached", "output", "reasoning")}
    last = usage.before - timedelta(days=1)
    says = [speech("bill.says", since=usage.since, before=last, requests=usage.requests, **counts)]
    if usage.estimated:
        says.append(speech("bill.estimated", estimated=usage.estimated))
    says.append(speech("bill.caution"))
    here = speech.money(usage.cost, usage.currency) if usage.currency else speech("bill.no prices")
    rows = [(speech("bill.here"), here, "", "")]
    for each in found:
        checked = f"{speech('checked')} {each.checked}"
        notice = f"{checked}. {speech('stale', days=STALE_AFTER.days)}" if each.is_stale else checked
        rows.append((each.name, _money(each.cost, each, speech), _money(each.uncached, each, speech), notice))
    head = (speech("bill.where"), speech("bill.cost"), speech("bill.uncached"), "")
    return Table(speech("title.bill"), tuple(says), head, tuple(rows))


def bills_as_json(usage: Usage, found: Sequence[Bill]) -> dict[str, Any]:
    """Every figure with its unit."""
    return {
        "since": usage.since.isoformat(),
        "before": usage.before.isoformat(),
        "requests": {"value": usage.requests, "unit": "requests"},
        "tokens": {
            name: {"value": getattr(usage, name), "unit": "tokens"}
            for name in ("fresh", "cached", "output", "reasoning")
        },
        "estimated_requests": usage.estimated,
        "here": {"value": float(usage.cost), "unit": usage.currency or None},
        "elsewhere": [
            {
                "name": each.name,
                "cost": _range(each.cost, each.currency),
                "without_a_cache": _range(each.uncached, each.currency),
                "checked": each.checked.isoformat(),
                "is_stale": each.is_stale,
            }
            for each in found
        ],
    }


def _money(cost: Value, bill: Bill, speech: Speech) -> str:
    if cost.is_certain:
        return speech.money(cost.likely, bill.currency)
    return f"{speech.number(cost.low, 2)} – {speech.money(cost.high, bill.currency)}"


def _range(cost: Value, unit: str) -> dict[str, Any]:
    return {"low": float(cost.low), "likely": float(cost.likely), "high": float(cost.high), "unit": unit}
