"""Charts of results. Takes time to import, as `drawing` does: import it when something is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from serving.bench.record import Figure, Result, Slice, Stage
from serving.bench.report.drawing import COLOURS, FAINT, Chart, empty, looks, sheet, styled
from serving.bench.report.figures import QUANTITIES, kind_of, load_of, number, objective_ms, read_figure, shown_stage

_LONGEST_NAME: Final = 40
_BESIDE: Final = (0.03, -0.04)
"""From a point to the middle of its number, as shares of the chart."""
_MARKED_EVERY: Final = 20
"""Points of a cumulative curve from marker to marker: colours are not all that tells curves apart."""


def draw_charts(results: Sequence[Result]) -> tuple[Chart, ...]:
    """Every chart that the results have data for."""
    with styled():
        found: list[Chart | None] = [frontier(results, name) for name in ("ttft_p50", "ttft_p99", "tpot_p50")]
        found += [distributions(results, name) for name in ("ttft", "gap")]
        several = len(results) > 1
        for place, result in enumerate(results):
            stage = shown_stage(result)
            if stage is not None:
                suffix = f"-{place + 1}" if several else ""
                found.append(timeline(stage, f"time-line{suffix}", f"{result.name}, " if several else ""))
    return tuple(chart for chart in found if chart is not None)


def frontier(results: Sequence[Result], name: str) -> Chart | None:
    """Latency against throughput: a point for each load, and lines through those of one sweep.

    None without two points.
    """
    points = [
        [
            (stage, x, y)
            for stage in result.stages
            if (x := stage.rates.output_tokens_per_s) and (y := read_figure(stage, name))
        ]
        for result in results
    ]
    if sum(len(found) for found in points) < 2:
        return None  # a lone point says no more than its figures
    title = QUANTITIES[name].title
    drawing, axes = sheet()
    for (colour, marker, dash), found in zip(looks(), points, strict=False):
        for _, x, y in found:
            axes.errorbar(
                x.value, 1000 * y.value, xerr=_arms(x, 1), yerr=_arms(y, 1000),
                fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.55, capsize=0,
            )  # fmt: skip
        xs, ys = [x.value for _, x, _ in found], [1000 * y.value for _, _, y in found]
        axes.plot(xs, ys, color=colour, marker=marker, linestyle=dash, linewidth=1.5, markersize=5.5)
    every = [1000 * y.value for found in points for _, _, y in found]
    if min(every) > 0 and max(every) / min(every) > 15:
        axes.set_yscale("log")
        _plain_ticks(axes, "y")
    else:
        axes.margins(y=0.12)
        axes.set_ylim(bottom=0)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    _number_points(axes, points)
    axes.set_xlabel("output tokens/s")
    axes.set_ylabel(f"{title}, ms")
    _legend(axes, results)
    left_out = sum(len(result.stages) - len(found) for result, found in zip(results, points, strict=True))
    kinds = {kind_of(stage) == "closed" for found in points for stage, _, _ in found}
    label = " or ".join("clients" if closed else "requests per second" for closed in sorted(kinds, reverse=True))
    caption = f"Further right is more throughput, further down is less waiting. Numbers at points: {label}."
    caption += " Bars: 95% intervals." if any(_arms(y, 1) is not None for found in points for _, _, y in found) else ""
    caption += f" Loads left out for want of data: {left_out}." if left_out else ""
    return Chart(f"frontier-{name.replace('_', '-')}", f"{title} against throughput", caption, drawing)


def distributions(results: Sequence[Result], name: str) -> Chart | None:
    """Which share of requests (or of gaps) took at most so long. None where no result has a curve."""
    title = {"ttft": "Time to first token", "gap": "Gaps between tokens"}[name]
    stages = [shown_stage(result) for result in results]
    curves = [_curve(stage, name) for stage in stages]
    if not any(curves):
        return None
    drawing, axes = sheet()
    for place, ((colour, marker, dash), curve) in enumerate(zip(looks(), curves, strict=False)):
        xs, ys = [x for x, _ in curve], [y for _, y in curve]
        marked = (7 * place % _MARKED_EVERY, _MARKED_EVERY) if len(results) > 1 else []
        axes.plot(
            xs, ys, color=colour, linestyle=dash, linewidth=1.8, marker=marker, markevery=marked, markersize=5
        )  # fmt: skip
    axes.set_xscale("log")
    _plain_ticks(axes, "x")
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel(f"share of {'requests' if name == 'ttft' else 'gaps'}")
    axes.set_xlabel(f"{title.lower()}, at most, ms")
    bounds = {objective_ms(result, "ttft") for result in results} if name == "ttft" else {None}
    bound = bounds.pop()
    caption = "A curve further left is faster; a long foot to the right is what the slowest wait."
    if bound is not None and not bounds:
        axes.axvline(bound, color=FAINT, linestyle=(0, (2, 3)), linewidth=1.2)
        caption += " Dotted upright: the objective."
    _legend(axes, results)
    loads = {load_of(stage) for stage in stages if stage is not None}
    if len(loads) == 1:
        caption += f" At {loads.pop()}."
    else:
        told = [f"{result.name} at {load_of(stage)}" for result, stage in zip(results, stages, strict=True) if stage]
        caption += f" {', '.join(told)}."
    return Chart(f"distribution-{name}", title, caption, drawing)


def timeline(stage: Stage, name: str, whose: str = "") -> Chart | None:
    """How a stage went, over its time. None where it has no time line."""
    if not stage.timeline:
        return None
    read: tuple[tuple[str, Callable[[Slice], float | None]], ...] = (
        ("output\ntokens/s", lambda part: part.output_tokens_per_s),
        ("requests\nrunning", lambda part: part.running),
        ("TTFT\nms", lambda part: None if part.ttft is None else 1000 * part.ttft),
        ("memory\nGiB", lambda part: None if part.memory_bytes is None else part.memory_bytes / (1 << 30)),
        ("utilisation\n%", lambda part: None if part.utilisation is None else 100 * part.utilisation),
        ("power\nW", lambda part: part.power_w),
    )
    series = [(title, [value(part) for part in stage.timeline]) for title, value in read]
    series = [(title, values) for title, values in series if any(value is not None for value in values)]
    drawing = empty(7.2, 0.6 + 1.0 * len(series))
    panels = drawing.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    at = [part.at for part in stage.timeline]
    for axes, (title, values) in zip(panels, series, strict=True):
        known = [math.nan if value is None else value for value in values]
        axes.plot(at, known, color=COLOURS[0], linewidth=1.4, drawstyle="steps-mid")
        axes.plot(at, known, color=COLOURS[0], linestyle="none", marker=".", markersize=3)
        axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8.5)
        axes.locator_params(axis="y", nbins=3)
        most = max(value for value in known if not math.isnan(value))
        axes.set_ylim(0, 1.15 * most if most > 0 else 1)
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        if stage.window is not None:
            axes.axvspan(stage.window.begin, stage.window.end, color="#eef3f8", zorder=0)
    panels[-1].set_xlim(0, max(stage.seconds, at[-1]))
    panels[-1].set_xlabel("seconds from the beginning")
    drawing.align_ylabels(panels)
    shaded = " Shaded: the time that rates are of." if stage.window is not None else ""
    return Chart(name, f"Time line: {whose}{load_of(stage)}", f"Means of equal parts of the time.{shaded}", drawing)


def _number_points(axes: Axes, points: Sequence[Sequence[tuple[Stage, Figure, Figure]]]) -> None:
    """Write each point's load beside it, below the curve, where nothing stands already."""
    to_axes = axes.transData + axes.transAxes.inverted()
    taken = [tuple(to_axes.transform((x.value, 1000 * y.value))) for found in points for _, x, y in found]
    for (colour, _, _), found in zip(looks(), points, strict=False):
        for stage, x, y in reversed(found):
            at = (x.value, 1000 * y.value)
            right, up = to_axes.transform(at) + _BESIDE
            if all(abs(right - other) > 0.025 or abs(up - height) > 0.035 for other, height in taken):
                taken.append((right, up))
                axes.annotate(f"{stage.level:g}", at, (5, -10), textcoords="offset points", color=colour, fontsize=8)


def _legend(axes: Axes, results: Sequence[Result]) -> None:
    if len(results) < 2:
        return
    drawn = [
        Line2D([], [], color=colour, marker=marker, linestyle=dash, linewidth=1.5, markersize=5.5)
        for (colour, marker, dash), _ in zip(looks(), results, strict=False)
    ]
    legend = axes.figure.legend(drawn, ["name"] * len(drawn), loc="outside upper left", ncols=min(3, len(drawn)))
    for text, result in zip(legend.get_texts(), results, strict=True):
        # written afterwards: matplotlib passes over labels that begin with an underscore
        text.set_text(_short(result.name))


def _short(name: str) -> str:
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[: _LONGEST_NAME - 1]}…"


def _curve(stage: Stage | None, name: str) -> list[tuple[float, float]]:
    """Milliseconds and the share that took at most so long; nothing to the left of a logarithm's reach."""
    distribution = None if stage is None else stage.figures.get(name)
    if distribution is None or len(distribution.curve) < 2:
        return []
    last = len(distribution.curve) - 1
    return [(1000 * value, place / last) for place, value in enumerate(distribution.curve) if value > 0]


def _arms(figure: Figure, factor: float) -> list[list[float]] | None:
    """Lengths of the error bar's two arms, as matplotlib takes them; None where there is no interval."""
    if figure.low95 is None or figure.high95 is None:
        return None
    return [[factor * max(0.0, figure.value - figure.low95)], [factor * max(0.0, figure.high95 - figure.value)]]


def _plain_ticks(axes: Axes, which: str) -> None:
    """Plain numbers on a logarithmic axis, between its decades too where it spans few."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    axis.set_major_formatter(FuncFormatter(_tick))
    few = low > 0 and math.log10(high / low) < 2
    axis.set_minor_formatter(FuncFormatter(_between) if few else NullFormatter())


def _tick(value: float, _place: object) -> str:
    return number(value) if value < 1 else f"{value:,.10g}"


def _between(value: float, place: object) -> str:
    digit = round(value / 10 ** math.floor(math.log10(value))) if value > 0 else 0
    return _tick(value, place) if digit in (2, 5) else ""
