"""Charts of a case. Takes time to import, as what draws them does: import it when something is drawn."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from serving.bench.report.drawing import COLOURS, FAINT, Chart, empty, looks, styled
from serving.economics.findings import Findings
from serving.economics.inputs import MILLION
from serving.economics.report.titles import title_of
from serving.economics.report.words import Speech
from serving.economics.statement import exact

_POINTS: Final = 240
_WIDTH, _HEIGHT = 7.2, 3.6
_BARS: Final = 10


def draw_charts(found: Findings, speech: Speech) -> tuple[Chart, ...]:
    """Every chart that the case has data for."""
    with styled():
        charts = [by_volume(found, speech), by_month(found, speech), swings(found, speech)]
    return tuple(chart for chart in charts if chart is not None)


def by_volume(found: Findings, speech: Speech) -> Chart | None:
    """A month's cost over the volume, each option a line; None for a case without work."""
    case = found.case
    daily = found.served_per_day / MILLION
    if daily == 0:
        return None
    drawing = empty(_WIDTH, _HEIGHT)
    axes = drawing.add_subplot()
    most = _reach(found)
    scales = [most * place / _POINTS for place in range(1, _POINTS + 1)]
    for (colour, _, dash), each in zip(looks(), found.statements, strict=False):
        costs = [float(exact(case, each.option, scale)) for scale in scales]
        title = speech(f"option.{each.option}")
        axes.plot([float(scale * daily) for scale in scales], costs, color=colour, linestyle=dash, label=title)
    axes.axvline(float(daily), color=FAINT, linestyle=(0, (2, 3)), linewidth=1.2)
    axes.set_xlabel(speech("chart.volume.x"))
    axes.set_ylabel(f"{case.currency} {speech('per month')}")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, float(most * daily))
    axes.yaxis.set_major_formatter(lambda value, _: speech.number(Decimal(round(value))))
    axes.legend()
    return Chart("volume", speech("chart.volume"), speech("chart.volume.says"), drawing)


def _reach(found: Findings) -> Decimal:
    """How far the volumes go, in those of the case: past where owning begins to pay, where that is not far away."""
    point = found.break_even
    ends = [Decimal(2)]
    if point is not None:
        ends += [each * Decimal("1.5") for each in (point.first, point.always_from) if each is not None and each < 100]
    return max(ends)


def by_month(found: Findings, speech: Speech) -> Chart:
    """What has been spent until the end of each month."""
    drawing = empty(_WIDTH, _HEIGHT)
    axes = drawing.add_subplot()
    months = range(1, found.case.horizon_months + 1)
    for (colour, _, dash), flow in zip(looks(), found.flows, strict=False):
        spent = [float(amount) for amount in flow.cumulative]
        axes.plot(months, spent, color=colour, linestyle=dash, label=speech(f"option.{flow.option}"))
    axes.set_xlabel(speech("chart.cash.x"))
    axes.set_ylabel(found.case.currency)
    axes.set_xlim(1, max(2, found.case.horizon_months))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: speech.number(Decimal(round(value))))
    axes.legend()
    return Chart("cash", speech("chart.cash"), speech("chart.cash.says"), drawing)


def swings(found: Findings, speech: Speech) -> Chart | None:
    """A bar for each range: from the figure at its low end to that at its high end; None where nothing is a range."""
    widest = [swing for swing in found.swings[:_BARS] if swing.width]
    if not widest:
        return None
    drawing = empty(_WIDTH, 0.9 + 0.32 * len(widest))
    axes = drawing.add_subplot()
    for place, swing in enumerate(reversed(widest)):
        low, high = float(swing.at_low), float(swing.at_high)
        axes.barh(place, high - low, left=low, height=0.62, color=COLOURS[0] if high >= low else COLOURS[1])
    axes.axvline(float(found.likely), color=FAINT, linewidth=1.2)
    axes.margins(x=0.04)
    axes.set_yticks(range(len(widest)), [title_of(swing.path, speech) for swing in reversed(widest)], fontsize=8.5)
    axes.xaxis.set_major_formatter(lambda value, _: speech.number(Decimal(round(value))))
    axes.locator_params(axis="x", nbins=5)  # a million has nine signs
    what = "of one" if found.break_even is None else "of difference"
    drawing.supxlabel(f"{speech(what)}, {found.case.currency}", fontsize=9)
    axes.grid(visible=False, axis="y")
    return Chart("tornado", speech("chart.tornado"), speech("chart.tornado.says"), drawing)
