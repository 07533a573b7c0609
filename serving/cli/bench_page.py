"""A result as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from serving.bench.record import Distribution, Figure, Result, Stage

_WIDTH: Final = 17
_NAMES: Final = {
    "ttft": "TTFT",
    "ttft_from_due": "TTFT from due",
    "tpot": "TPOT",
    "gap": "gaps",
    "stall": "stall",
    "e2e": "E2E",
}


def page(result: Result) -> str:
    """The whole of it: every stage, and what speaks against it."""
    target = result.target
    server = ""
    if target.server is not None and target.server.name:
        server = f" ({target.server.name} {target.server.version or ''})".replace(" )", ")")
    lines = [f"{result.scenario['title']}: {target.model} at {target.url}{server}", ""]
    for stage in result.stages:
        lines += [*_stage(stage, is_one=len(result.stages) == 1), ""]
    lines += _saturation(result)
    if not result.stages:
        lines.append("It was stopped before its first request.")
    if not result.prompts.exact:
        by = {"usage": "by the usage of two requests", "none": "by a guess"}.get(result.prompts.counted_by, "nearly")
        lines.append(f"Prompts are not of exact length: their tokens were counted {by}.")
    return "\n".join(lines).rstrip() + "\n"


def _stage(stage: Stage, *, is_one: bool) -> Iterator[str]:
    if not is_one:
        unit = "clients" if stage.load["kind"] == "closed" else "requests/s"
        yield f"{stage.level:.4g} {unit}"
    counts = stage.requests.model_dump()
    yield f"{'requests':{_WIDTH}} " + ", ".join(f"{count} {name}" for name, count in counts.items())
    yield from (f"{'':{_WIDTH}} {count} × {error}" for error, count in stage.errors.items())
    yield _row("output", stage.rates.output_tokens_per_s, 1, "tokens/s")
    yield _row("completed", stage.rates.requests_per_s, 1, "requests/s")
    for name, title in _NAMES.items():
        if name in stage.figures:
            yield from _durations(title, stage.figures[name])
    if stage.goodput is not None:
        yield _row("goodput", stage.goodput.share, 100, "% of requests")
    if stage.energy is not None:
        yield f"{'power':{_WIDTH}} {stage.energy.mean_w:,.0f} W"
        if stage.energy.joules_per_output_token is not None:
            yield f"{'energy':{_WIDTH}} {stage.energy.joules_per_output_token:,.2f} J per output token"
    if not stage.is_whole:
        yield "It was stopped before its end."
    if stage.window is not None and stage.window.left_out:
        yield f"The first {stage.window.left_out} requests are left out of the figures: the server was not steady yet."
    if stage.steady is False:
        more = "" if stage.load["kind"] == "closed" else "; more is asked of the server than it can do"
        yield f"NOT STEADY: latency still grew at the end{more}."
    yield from (f"NOT TO BE TRUSTED: {doubt}." for doubt in stage.trust.doubts)


def _durations(title: str, distribution: Distribution) -> Iterator[str]:
    yield _row(f"{title} p50", distribution.p50, 1000, "ms")
    yield _row(f"{title} p99", distribution.p99, 1000, "ms")


def _saturation(result: Result) -> Iterator[str]:
    found = result.saturation
    if found is None:
        return
    unit = "clients" if found.over == "clients" else "requests/s"
    held = f"{found.held:g} {unit}" if found.held is not None else "none: the lowest level did not hold"
    failed = "" if found.failed is None else f"; {found.failed:.4g} did not"
    yield f"{'saturation':{_WIDTH}} {held}{failed} ({found.why})"
    yield _row("most", found.most_output_tokens_per_s, 1, "tokens/s")


def _row(title: str, figure: Figure | None, factor: float, unit: str) -> str:
    return f"{title:{_WIDTH}} {_interval(figure, factor, unit)}"


def _interval(figure: Figure | None, factor: float, unit: str) -> str:
    if figure is None:
        return "not enough data"
    text = f"{factor * figure.value:,.1f} {unit}"
    if figure.low95 is None or figure.high95 is None:
        return text
    return f"{text} (95%: {factor * figure.low95:,.1f} to {factor * figure.high95:,.1f})"
