"""The parts of a report, each a table with a title, for whatever prints or draws it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from serving.economics.books import STALE_AFTER
from serving.economics.findings import Findings
from serving.economics.inputs import DAY_H, SECTIONS, WEEK_DAYS, YEAR_MONTHS
from serving.economics.report.titles import title_of
from serving.economics.report.units import unit_of
from serving.economics.report.words import Speech
from serving.economics.statement import Line, Statement
from serving.economics.uncertainty import Paid, Spread
from serving.economics.values import leaves

TOP: Final = 3
_LONG: Final = 100_000
"""Money from which on nobody reads an interval's cents."""
_WORTH_NAMING: Final = Decimal("0.01")
"""Of what the range that moves the answer most does."""


@dataclass(frozen=True, slots=True)
class Table:
    """A part of a report."""

    title: str
    says: tuple[str, ...]
    """Sentences before it."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kind: str = "money"
    """`money worded` where the second column is words, `said` where all are."""


def basis(found: Findings, speech: Speech) -> tuple[str, ...]:
    """What all figures are of."""
    case, work = found.case, found.case.workload
    is_always = work.hours_per_day.low == DAY_H and work.days_per_week.low == WEEK_DAYS
    office = speech("hours.office", hours=speech.range(work.hours_per_day), week=speech.range(work.days_per_week))
    return (
        speech(
            "basis",
            currency=case.currency,
            days=speech.range(work.days_per_month),
            horizon=case.horizon_months,
            day=case.day.isoformat(),
        ),
        speech("hours.always") if is_always else office,
        speech("drawn", draws=found.drawn.draws, seed=found.drawn.seed) if found.swings else speech("no ranges"),
    )


def verdict(found: Findings, speech: Speech) -> str:
    """In a sentence, with the thresholds."""
    said = found.verdict
    return speech(
        f"verdict.{said.word}",
        option=speech(f"option.{said.option}"),
        share=speech.share(said.share),
        sure=speech.share(said.sure),
        worth=speech.share(said.worth_it),
        saved="" if said.saved is None else speech.share(said.saved),
    )


def movers(found: Findings, speech: Speech) -> str | None:
    """The inputs that move the answer most; None where none does."""
    least = _WORTH_NAMING * max((swing.width for swing in found.swings), default=Decimal(0))
    named = [title_of(swing.path, speech) for swing in found.swings[:TOP] if swing.width and swing.width >= least]
    return f"{speech('movers')}: {'; '.join(named)}" if named else None


def summary(found: Findings, speech: Speech) -> Table:
    """Each option's cost, as an interval."""
    head = ("", "first month", "mean month", "per million", "per request", "saved", "cheapest in")
    rows = []
    has_ranges = found.drawn.draws > 1
    for each in found.statements:
        spread = found.drawn.totals[each.option]
        saved = found.drawn.savings.get(each.option)
        mean = speech.number(spread.middle, 2)
        if has_ranges:
            places = 2 if spread.high < _LONG else 0
            low, middle, high = (speech.number(each, places) for each in (spread.low, spread.middle, spread.high))
            mean = f"{middle} ({low} – {high})"
        rows.append(
            (
                speech(f"option.{each.option}"),
                speech.money(each.total, each.currency),
                mean,
                _money(speech, each.per_million, each.currency),
                _money(speech, each.per_request, each.currency),
                "" if saved is None else _between(saved, speech.share) if has_ranges else speech.share(saved.middle),
                speech.share(found.drawn.cheapest[each.option]) if has_ranges and len(found.statements) > 1 else "",
            )
        )
    titles = ("", *(speech(name) for name in head[1:]))
    moved = movers(found, speech)
    says = (*basis(found, speech), *((moved,) if moved else ()))
    if len(found.statements) > 1:
        says = (verdict(found, speech), *says)
    return Table(speech("title.summary"), says, titles, tuple(rows))


def statements(found: Findings, speech: Speech) -> Iterator[Table]:
    """Each option's month, line by line."""
    for each in found.statements:
        yield Table(
            f"{speech('title.statement')}: {speech(f'option.{each.option}')}",
            _fleet(each, speech),
            (speech("item"), "", speech("quantity"), speech("per month")),
            (*_lines(each, speech, is_bill_alone=found.is_bill_alone), _sum(each, speech)),
            kind="money worded",
        )


def _sum(each: Statement, speech: Speech) -> tuple[str, ...]:
    return speech("sum"), "", "", speech.money(each.total, each.currency)


def _fleet(each: Statement, speech: Speech) -> tuple[str, ...]:
    fleet = each.fleet
    if fleet is None:
        return ()
    load = speech.number(fleet.load.quantize(Decimal("0.01")))
    machines = f"{fleet.machines} = {fleet.needed} {speech('carrying')} + {fleet.spares} {speech('spare')}"
    return (f"{speech('machines')}: {machines}; {speech('load')}: {load}",)


def _lines(each: Statement, speech: Speech, *, is_bill_alone: bool) -> Iterator[tuple[str, ...]]:
    for section in SECTIONS:
        title = speech(f"section.{section}")
        lines = [line for line in each.lines if line.section == section]
        if not lines and not is_bill_alone:
            yield title, speech("costs nothing"), "", speech.money(Decimal(0), each.currency)
        for line in lines:
            yield title, speech.line(line.name), _quantity(line, speech), speech.money(line.per_month, each.currency)
            title = ""


def _quantity(line: Line, speech: Speech) -> str:
    if line.quantity is None or line.unit is None:
        return ""
    if line.unit == "tokens":
        return f"{speech.volume(line.quantity)} {speech('unit.tokens')}"
    return f"{speech.number(line.quantity.quantize(Decimal('0.1')))} {speech(f'unit.{line.unit}')}"


def sensitivity(found: Findings, speech: Speech, most: int | None = None) -> Table:
    """The inputs that move the answer most."""
    what = "of one" if found.break_even is None else "of difference"
    currency = found.case.currency
    rows = tuple(
        (
            title_of(swing.path, speech),
            speech.range(swing.value),
            *(speech.money(end, currency) for end in (swing.at_low, swing.at_high)),
        )
        for swing in found.swings[:most]
        if swing.width
    )
    says: tuple[str, ...] = (speech(what),) if rows else (speech("no ranges"),)
    still = sum(not swing.width for swing in found.swings)
    if still and most is None:
        says = (*says, speech("still", count=still))
    head = tuple(speech(name) for name in ("input", "range", "from", "to"))
    return Table(speech("title.sensitivity"), says, head if rows else ("", "", "", ""), rows)


def break_even(found: Findings, speech: Speech) -> Table | None:
    """Volumes and months from which owning costs no more; None where there are not both."""
    point = found.break_even
    if point is None:
        return None
    daily = found.served_per_day
    if not daily:
        return Table(speech("title.break_even"), (speech("no work"),), ("", "", ""), ())

    def volume(scale: Decimal | None) -> str:
        if scale is None:
            return speech("never")
        times = speech("times the case", times=speech.number(scale.quantize(Decimal("0.01"))))
        return f"{speech.volume(scale * daily)} {speech('tokens a day')} ({times})"

    rows = [(speech("first volume"), volume(point.first), _first_in_draws(found, speech, daily))]
    rows.append((speech("always from"), volume(point.always_from), ""))
    for option, paid in found.pays_from.items():
        told = speech("not within") if paid is None else f"{paid} ({month_after(found.case.day, paid)})"
        rows.append((f"{speech(f'option.{option}')}: {speech('pays from')}", told, _months(found.paid[option], speech)))
    return Table(speech("title.break_even"), (), ("", speech("at likely"), speech("in draws")), tuple(rows))


def _first_in_draws(found: Findings, speech: Speech, daily: Decimal) -> str:
    spread, never = found.drawn.first_volume, found.drawn.never
    told = None if spread is None else _between(spread, lambda times: speech.volume(times * daily))
    return _of_others(told, speech("never in", share=speech.share(never)) if never else None, speech)


def _months(paid: Paid, speech: Speech) -> str:
    told = None if paid.months is None else " – ".join(map(str, dict.fromkeys(paid.months)))
    return _of_others(told, speech("not within in", share=speech.share(paid.never)) if paid.never else None, speech)


def _of_others(told: str | None, never: str | None, speech: Speech) -> str:
    """An interval is of those draws alone in which there is something to be in it."""
    if told is None or never is None:
        return told or never or ""
    return speech("in the others", first=never, then=told)


def month_after(day: date, months: int) -> str:
    """The month in which the one of that number ends, counted from a day's own as the first."""
    place = day.year * YEAR_MONTHS + day.month - 1 + months - 1
    return f"{place // YEAR_MONTHS}-{place % YEAR_MONTHS + 1:02}"


def figures(found: Findings, speech: Speech) -> Table:
    """Every input as it was used, ranges and others."""
    currency = found.case.currency
    rows = [
        (title_of(path, speech), path, f"{speech.range(value)} {unit_of(path, currency)}")
        for path, value in leaves(found.case)
        if ".sections." not in path or not value.is_certain or value.likely
    ]
    source = None if found.case.own is None else found.case.own.capacity.source
    if source is not None:
        rows.append((speech("source"), "own.capacity.source", source))
    return Table(
        speech("title.figures"), (), (speech("input"), speech("path"), speech("value")), tuple(rows), kind="said"
    )


def cash(found: Findings, speech: Speech) -> Table:
    """Spent until the end of each year."""
    horizon = found.case.horizon_months
    ends = [*range(YEAR_MONTHS, horizon, YEAR_MONTHS), horizon]
    head = (speech("year"), *(speech(f"option.{flow.option}") for flow in found.flows))
    currency = found.case.currency
    rows = [(str(end), *(speech.money(flow.cumulative[end - 1], currency) for flow in found.flows)) for end in ends]
    if any(flow.worth for flow in found.flows):
        rows.append((speech("worth"), *(speech.money(flow.worth, currency) for flow in found.flows)))
        rows.append((speech("less worth"), *(speech.money(flow.total, currency) for flow in found.flows)))
    if found.drawn.draws > 1:
        spreads = [found.paid[flow.option].total for flow in found.flows]
        rows.append(
            (speech("total in draws"), *(_between(each, lambda sum_: speech.number(sum_, 2)) for each in spreads))
        )
    return Table(speech("title.cash"), (), head, tuple(rows))


def inputs(found: Findings, speech: Speech) -> Table:
    """Where prices are from, which are stale, and what else speaks against the figures."""
    rows = [
        (
            source.name,
            source.source,
            f"{speech('checked')} {source.checked}",
            _stale(speech) if source.is_stale else "",
        )
        for source in found.sources
    ]
    rows += [(speech("note"), note, "", "") for note in found.notes]
    return Table(speech("title.inputs"), (), ("", speech("source"), "", ""), tuple(rows), kind="said")


def warnings(found: Findings, speech: Speech) -> tuple[str, ...]:
    """What nobody may overlook: stale prices, notes on the inputs, what was not said."""
    stale = [
        f"{source.name}: {speech('checked')} {source.checked}. {_stale(speech)}"
        for source in found.sources
        if source.is_stale
    ]
    alone = (speech("tokens.only"),) if found.is_bill_alone else ()
    return (*stale, *found.notes, *(speech(each) for each in _charged_in_full(found)), *alone)


def _stale(speech: Speech) -> str:
    return speech("stale", days=STALE_AFTER.days)


def _charged_in_full(found: Findings) -> Iterator[str]:
    """What the work would have cheaper, were there a price for it."""
    api, work = found.case.api, found.case.workload
    if api is not None:
        if api.prices.cached_input is None and work.cached.high:
            yield "uncached"
        if not api.prices.batch_discount.high and work.batch.high:
            yield "unbatched"


def limits(found: Findings, speech: Speech) -> Table:
    """What the figures leave out, for whoever decides by them."""
    case = found.case
    month = found.statements[0].month
    says = [speech("limit.prices", horizon=case.horizon_months)]
    if len(found.statements) > 1:
        says += [speech(f"limit.{name}") for name in ("money", "ranges", "quality")]
    if case.hybrid is not None:
        says.append(speech("limit.hybrid"))
    if month.sent > month.question:
        told = {"sent": speech.volume(month.sent), "served": speech.volume(month.question)}
        says.append(speech("limit.turns", **told))
    return Table(speech("title.limits"), tuple(says), (), ())


def _between(spread: Spread, shown: Callable[[Decimal], str]) -> str:
    return f"{shown(spread.low)} – {shown(spread.high)}"


def _money(speech: Speech, amount: Decimal | None, currency: str) -> str:
    return "" if amount is None else speech.money(amount, currency)


def parts(found: Findings, speech: Speech) -> Sequence[Table]:
    """All of them, in the order of a report."""
    even = break_even(found, speech)
    return (
        summary(found, speech),
        *((even,) if even is not None else ()),
        cash(found, speech),
        sensitivity(found, speech),
        *statements(found, speech),
        inputs(found, speech),
        limits(found, speech),
        figures(found, speech),
    )
