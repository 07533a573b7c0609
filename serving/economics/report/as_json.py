"""A report for programs: every figure with its unit. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from serving.economics.findings import Findings
from serving.economics.report.units import unit_of
from serving.economics.statement import Statement
from serving.economics.uncertainty import Spread
from serving.economics.values import leaves

_UNITS: Final = {"machines": "machines"}


def as_json(found: Findings) -> dict[str, Any]:
    """The findings as tables of plain values; amounts are exact to the cent."""
    currency = found.case.currency
    monthly = f"{currency}/month"
    verdict = found.verdict
    return {
        "title": found.case.title,
        "currency": currency,
        "days_per_month": _plain(found.case.workload.days_per_month.likely),
        "horizon_months": found.case.horizon_months,
        "day": found.case.day.isoformat(),
        "draws": found.drawn.draws,
        "seed": found.drawn.seed,
        "options": {each.option: _statement(each, found) for each in found.statements},
        "verdict": {
            "word": verdict.word,
            "option": verdict.option,
            "share_of_draws": _plain(verdict.share),
            "saved_share": None if verdict.saved is None else _plain(verdict.saved),
            "thresholds": {"share_of_draws": _plain(verdict.sure), "saved_share": _plain(verdict.worth_it)},
        },
        "sensitivity": [
            {
                "input": swing.path,
                "low": _figure(swing.value.low, unit_of(swing.path, currency)),
                "high": _figure(swing.value.high, unit_of(swing.path, currency)),
                "at_low": _figure(swing.at_low, monthly),
                "at_high": _figure(swing.at_high, monthly),
            }
            for swing in found.swings
        ],
        "break_even": _break_even(found),
        "inputs": {
            path: {
                **{name: _plain(getattr(value, name)) for name in ("low", "likely", "high")},
                "unit": unit_of(path, currency),
            }
            for path, value in leaves(found.case)
        },
        "sources": [
            {"name": each.name, "source": each.source, "checked": each.checked.isoformat(), "is_stale": each.is_stale}
            for each in found.sources
        ],
        "notes": list(found.notes),
    }


def _statement(each: Statement, found: Findings) -> dict[str, Any]:
    currency, monthly = each.currency, f"{each.currency}/month"
    flow = next(flow for flow in found.flows if flow.option == each.option)
    saved = found.drawn.savings.get(each.option)
    fleet = each.fleet
    return {
        "total": _figure(each.total, monthly),
        "mean_month90": _spread(found.drawn.totals[each.option], monthly),
        "cheapest_in_share_of_draws": _plain(found.drawn.cheapest[each.option]),
        "saved_share90": None if saved is None else _spread(saved, "share of the API's cost"),
        "per_million_tokens": _optional(each.per_million, f"{currency}/million tokens served"),
        "per_request": _optional(each.per_request, f"{currency}/request"),
        "sections": {name: _figure(amount, monthly) for name, amount in each.by_section.items()},
        "lines": [
            {
                "section": line.section,
                "name": line.name,
                "amount": _figure(line.per_month, monthly),
                "quantity": None
                if line.quantity is None
                else _figure(line.quantity, _UNITS.get(line.unit or "", f"{line.unit}/month")),
                "is_spread": line.is_spread,
            }
            for line in each.lines
        ],
        "machines": None if fleet is None else {"for_the_load": fleet.needed, "spare": fleet.spares},
        "paid_by_month": {"values": [_plain(amount) for amount in flow.months], "unit": currency},
        "worth_at_the_end": _figure(flow.worth, currency),
        "paid_in_all": _figure(flow.total, currency),
        "paid_in_all90": _spread(found.paid[each.option].total, currency),
        "paid_less_in_all_from_month": found.pays_from.get(each.option),
        "paid_less_in_all_from_month90": found.paid[each.option].months,
        "never_in_share_of_draws": _plain(found.paid[each.option].never) if each.option in found.pays_from else None,
    }


def _break_even(found: Findings) -> dict[str, Any] | None:
    point = found.break_even
    if point is None:
        return None
    daily = found.served_per_day
    unit = "tokens served/day"
    return {
        "first": None if point.first is None else _figure(point.first * daily, unit),
        "always_from": None if point.always_from is None else _figure(point.always_from * daily, unit),
        "first90": None
        if found.drawn.first_volume is None
        else {
            "low": _plain(found.drawn.first_volume.low * daily),
            "high": _plain(found.drawn.first_volume.high * daily),
            "unit": unit,
        },
        "never_in_share_of_draws": _plain(found.drawn.never),
    }


def _figure(amount: Decimal, unit: str) -> dict[str, Any]:
    return {"value": _plain(amount), "unit": unit}


def _optional(amount: Decimal | None, unit: str) -> dict[str, Any] | None:
    return None if amount is None else _figure(amount.quantize(Decimal("0.000001")), unit)


def _spread(spread: Spread, unit: str) -> dict[str, Any]:
    return {"low": _plain(spread.low), "middle": _plain(spread.middle), "high": _plain(spread.high), "unit": unit}


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)
