"""Results side by side: ratios with their intervals, which differences are real, and who is best at what. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from serving.bench.record import Figure, Result, Stage
from serving.bench.report.figures import (
    QUANTITIES,
    Quantity,
    Unit,
    doubts_of,
    kind_of,
    load_of,
    objective_text,
    read_figure,
    title_of,
)

COMPARED: Final = (
    *(f"{name}_{part}" for name in ("ttft", "ttft_from_due", "tpot", "gap", "e2e", "e2e_from_due")
      for part in ("p50", "p99", "mean")),
    "output_tokens_per_s", "requests_per_s", "goodput", "joules_per_output_token", "output_tokens_per_s_per_w",
)  # fmt: skip
PRICE: Final = Quantity(
    "price_per_million_output_tokens", "price per million output tokens", "price", more_is_better=False
)
HELD_SHARE: Final = 0.99
"""Share of requests within the objective from which a load counts as one that is served as it should be."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One result's figure, and how it stands to the first result's."""

    figure: Figure | None
    ratio: Figure | None = None
    """None for the first result, and where one of the two is not known or zero."""
    is_real: bool | None = None
    """Whether the ratio's interval excludes 1; None where there is no interval."""

    def is_better(self, quantity: Quantity) -> bool | None:
        """Whether a real difference is one for the better; None where none can be told."""
        if not self.is_real or self.ratio is None:
            return None
        return (self.ratio.value > 1) == quantity.more_is_better

    def judged(self, quantity: Quantity) -> str:
        """What the difference comes to, in a word or two."""
        if self.is_real is None:
            return "no interval"
        return {True: "better", False: "worse", None: "no difference told"}[self.is_better(quantity)]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of all results."""

    quantity: Quantity
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """A load that the first result and at least one other had, and the figures under it."""

    kind: str
    level: float
    load: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one result brings to a question."""

    name: str
    figure: Figure
    load: str
    """Under which load."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which result is best at something."""

    question: str
    condition: str
    """Of the loads that count; empty where all do."""
    quantity: Quantity
    best: tuple[str, ...]
    """One name; several where these runs cannot tell them apart, best value first; none where no result meets the
    condition."""
    entries: tuple[Entry, ...]
    """Best value first; results that do not meet the condition, or do not know the figure, are not among them."""

    @property
    def said(self) -> str:
        """The verdict in words."""
        if not self.entries:
            return "none: no result meets it, or none has the figure"
        if len(self.best) == 1:
            return self.best[0] if len(self.entries) > 1 else f"{self.best[0]}, the only one"
        if self.entries[0].figure.low95 is None and self.entries[0].figure.value != self.entries[1].figure.value:
            return f"{self.best[0]}, by the value alone: there is no interval to tell how sure that is"
        return f"no difference that these runs can tell: {', '.join(self.best)}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Results side by side; the first is what the others are measured by."""

    names: tuple[str, ...]
    matched: tuple[Matched, ...]
    unmatched: tuple[str, ...]
    """Loads that only one of the results had, in words."""
    saturation: tuple[Row, ...]
    """Where the sweeps ended; empty where not every result is one."""
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    """Why the figures may not be comparable, in sentences without their full stop."""
    currency: str = ""


def compare(results: Sequence[Result], prices: Mapping[str, float], currency: str = "") -> Comparison:
    """Results by the name that each has, which must differ; `prices` are of an hour of a machine, by that name."""
    first, *others = [_by_load(result) for result in results]
    shared = [key for key in first if any(key in other for other in others)]
    alone = [
        f"`{result.name}` at {load_of(stage)}"
        for result, stages in zip(results, (first, *others), strict=True)
        for key, stage in stages.items()
        if key not in shared
    ]
    matched = tuple(
        Matched(
            key[0],
            key[1],
            load_of(first[key]),
            _rows(results, [stages.get(key) for stages in (first, *others)], prices),
        )
        for key in shared
    )
    return Comparison(
        names=tuple(result.name for result in results),
        matched=matched,
        unmatched=tuple(alone),
        saturation=_saturation(results),
        verdicts=_verdicts(results, prices, [[stages.get(key) for stages in (first, *others)] for key in shared]),
        warnings=_warnings(results, is_matched=bool(matched)),
        currency=currency,
    )


def ratio_of(figure: Figure | None, base: Figure | None) -> Figure | None:
    """The ratio of two figures of separate runs, with its 95% interval; None where it is not defined.

    Errors of separate runs are independent, so on the logarithmic scale the distances from each value to the ends of
    its interval add in squares, each side by its own (variances recovered from limits: Zou and Donner, 2008). Where an
    interval reaches zero it has no logarithm, and the quotients of the ends are taken, which is wider.
    """
    if figure is None or base is None or base.value <= 0 or figure.value < 0:
        return None
    value = figure.value / base.value
    if figure.low95 is None or figure.high95 is None or base.low95 is None or base.high95 is None or base.low95 <= 0:
        return Figure(value=value)
    low, high = min(figure.low95, figure.value), max(figure.high95, figure.value)
    base_low, base_high = min(base.low95, base.value), max(base.high95, base.value)
    if low <= 0:
        return Figure(value=value, low95=0.0, high95=high / base_low)
    down = math.hypot(math.log(figure.value / low), math.log(base_high / base.value))
    up = math.hypot(math.log(high / figure.value), math.log(base.value / base_low))
    return Figure(value=value, low95=value * math.exp(-down), high95=value * math.exp(up))


def is_real(ratio: Figure | None) -> bool | None:
    """Whether the interval of a ratio excludes 1; None where there is no interval."""
    if ratio is None or ratio.low95 is None or ratio.high95 is None:
        return None
    return ratio.low95 > 1 or ratio.high95 < 1


def price_of(rate: Figure | None, price_per_hour: float | None) -> Figure | None:
    """What a million output tokens cost at this rate of them a second, on a machine of that price."""
    if rate is None or price_per_hour is None or rate.value <= 0:
        return None
    million = price_per_hour / 3600 * 1e6
    if rate.low95 is None or rate.high95 is None or rate.low95 <= 0:
        return Figure(value=million / rate.value)
    return Figure(value=million / rate.value, low95=million / rate.high95, high95=million / rate.low95)


def stages_matched(first: Result, other: Result) -> list[tuple[Stage, Stage]]:
    """The stages of two results that had the same load."""
    ours, theirs = _by_load(first), _by_load(other)
    return [(stage, theirs[key]) for key, stage in ours.items() if key in theirs]


def _by_load(result: Result) -> dict[tuple[str, float, int], Stage]:
    """Stages by their load; the same load a second time has a number of its own."""
    found: dict[tuple[str, float, int], Stage] = {}
    for stage in result.stages:
        number = sum(key[:2] == (kind_of(stage), stage.level) for key in found)
        found[kind_of(stage), stage.level, number] = stage
    return found


def _rows(results: Sequence[Result], stages: Sequence[Stage | None], prices: Mapping[str, float]) -> tuple[Row, ...]:
    read: list[tuple[Quantity, list[Figure | None]]] = [
        (QUANTITIES[name], [None if stage is None else read_figure(stage, name) for stage in stages])
        for name in COMPARED
    ]
    rates = [None if stage is None else stage.rates.output_tokens_per_s for stage in stages]
    priced = [price_of(rate, prices.get(result.name)) for rate, result in zip(rates, results, strict=True)]
    return tuple(_row(quantity, figures) for quantity, figures in [*read, (PRICE, priced)] if any(figures))


def _row(quantity: Quantity, figures: Sequence[Figure | None]) -> Row:
    base, *others = figures
    ratios = [ratio_of(figure, base) for figure in others]
    cells = [Cell(figure, ratio, is_real(ratio)) for figure, ratio in zip(others, ratios, strict=True)]
    return Row(quantity, (Cell(base), *cells))


def _saturation(results: Sequence[Result]) -> tuple[Row, ...]:
    ends = [result.saturation for result in results]
    if len({end.over for end in ends if end is not None}) != 1 or None in ends:
        return ()
    unit: Unit = "clients" if ends[0] is not None and ends[0].over == "clients" else "requests/s"
    held = Quantity("held", "highest load held", unit, more_is_better=True)
    levels = [None if end is None else Figure(value=end.held or 0) for end in ends]
    most = [None if end is None else end.most_output_tokens_per_s for end in ends]
    rate = Quantity("most_output_tokens_per_s", "most output tokens/s", "tokens/s", more_is_better=True)
    return _row(held, levels), _row(rate, most)


def _verdicts(
    results: Sequence[Result], prices: Mapping[str, float], matched: Sequence[Sequence[Stage | None]]
) -> tuple[Verdict, ...]:
    found = []
    objectives = {objective_text(result) for result in results}
    under = objectives.pop() if len(objectives) == 1 else None
    if under is not None and len(matched) == 1 and all(len(result.stages) == 1 for result in results):
        entries = [
            Entry(result.name, stage.goodput.share, load_of(stage))
            for result, stage in zip(results, matched[0], strict=True)
            if stage is not None and stage.goodput is not None and stage.goodput.share is not None
        ]
        found.append(_verdict(f"most requests within the objective ({under})", "", QUANTITIES["goodput"], entries))
    if under is None:
        condition, counts = "", _any
    else:
        condition, counts = f"where {HELD_SHARE:.0%} of requests are within the objective ({under})", _is_held
    rate, watts = QUANTITIES["output_tokens_per_s"], QUANTITIES["output_tokens_per_s_per_w"]
    best = {result.name: _busiest([stage for stage in result.stages if counts(stage)]) for result in results}
    named = [(name, stage) for name, stage in best.items() if stage is not None]

    def entries_of(figure: Callable[[str, Stage], Figure | None]) -> list[Entry]:
        read = [(name, figure(name, stage), load_of(stage)) for name, stage in named]
        return [Entry(name, value, load) for name, value, load in read if value is not None]

    asked: tuple[tuple[str, Quantity, Callable[[str, Stage], Figure | None]], ...] = (
        ("most output tokens/s", rate, lambda _, stage: stage.rates.output_tokens_per_s),
        ("most output tokens/s per W", watts, lambda _, stage: read_figure(stage, watts.name)),
        (
            "lowest price of output",
            PRICE,
            lambda name, stage: price_of(stage.rates.output_tokens_per_s, prices.get(name)),
        ),
    )
    for question, quantity, figure in asked:
        entries = entries_of(figure)
        if entries or quantity is rate:
            found.append(_verdict(question, condition, quantity, entries))
    return tuple(found)


def _verdict(question: str, condition: str, quantity: Quantity, entries: Sequence[Entry]) -> Verdict:
    """The best value, and with it whatever these runs cannot tell from it."""
    ordered = sorted(entries, key=lambda entry: entry.figure.value, reverse=quantity.more_is_better)
    best = [entry.name for entry in ordered if not is_real(ratio_of(entry.figure, ordered[0].figure))]
    return Verdict(question, condition, quantity, tuple(best), tuple(ordered))


def _any(stage: Stage) -> bool:
    return stage.rates.output_tokens_per_s is not None


def _is_held(stage: Stage) -> bool:
    share = stage.goodput.share if stage.goodput is not None else None
    return share is not None and share.value >= HELD_SHARE


def _busiest(stages: Sequence[Stage]) -> Stage | None:
    rated = [(stage.rates.output_tokens_per_s.value, stage) for stage in stages if stage.rates.output_tokens_per_s]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def _warnings(results: Sequence[Result], *, is_matched: bool) -> tuple[str, ...]:
    first = results[0]
    found = [
        f"`{result.name}` ran another scenario than `{first.name}` ({title_of(result)}, {title_of(first)}): "
        "what differs may be the load, and not the server"
        for result in results[1:]
        if result.scenario_sha256 != first.scenario_sha256
    ]
    if not is_matched:
        found.append("no load is the same in the first result and another: nothing can be compared figure by figure")
    for result in results:
        found += [f"`{result.name}` is not to be trusted: {doubt}" for doubt in doubts_of(result)]
    places = {result.client.is_on_the_servers_machine for result in results}
    if len(places - {None}) > 1:
        found.append("some were measured from the server's own machine and some over a network")
    return tuple(found)
