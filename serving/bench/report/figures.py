"""The figures of a stage by name: how each is read from a result, its unit, and how it is written for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from serving.bench.record import Figure, Result, Stage

Unit = Literal["s", "share", "tokens/s", "requests/s", "J/token", "tokens/s/W", "requests", "clients", "price"]
NOT_ENOUGH: Final = "not enough data"

DURATIONS: Final = {
    "ttft": "TTFT",
    "ttft_from_due": "TTFT from due",
    "tpot": "TPOT",
    "gap": "gap",
    "mean_gap_of_request": "mean gap of a request",
    "stall": "stall",
    "e2e": "E2E",
    "e2e_from_due": "E2E from due",
    "normalised_latency": "normalised latency",
    "normalised_latency_from_due": "normalised latency from due",
}
"""Names in `Stage.figures`, and what people call them."""
PARTS: Final = ("p50", "p90", "p99", "mean")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure that a stage may have."""

    name: str
    title: str
    unit: Unit
    more_is_better: bool


_OTHERS: Final = (
    Quantity("output_tokens_per_s", "output tokens/s", "tokens/s", more_is_better=True),
    Quantity("prompt_tokens_per_s", "prompt tokens/s", "tokens/s", more_is_better=True),
    Quantity("total_tokens_per_s", "total tokens/s", "tokens/s", more_is_better=True),
    Quantity("requests_per_s", "requests/s", "requests/s", more_is_better=True),
    Quantity("goodput", "goodput", "share", more_is_better=True),
    Quantity("joules_per_output_token", "energy per output token", "J/token", more_is_better=False),
    Quantity("output_tokens_per_s_per_w", "output tokens/s per W", "tokens/s/W", more_is_better=True),
    Quantity("failed", "failed requests", "requests", more_is_better=False),
)
QUANTITIES: Final = {
    quantity.name: quantity
    for quantity in (
        *(
            Quantity(f"{name}_{part}", f"{title} {part}", "s", more_is_better=False)
            for name, title in DURATIONS.items()
            for part in PARTS
        ),
        *_OTHERS,
    )
}
"""Every figure by its name: `ttft_p99`, `ttft_from_due_p99`, `output_tokens_per_s`, …"""


def read_figure(stage: Stage, name: str) -> Figure | None:
    """The figure of that name in `QUANTITIES`; None where the stage does not know it."""
    if name == "goodput":
        return None if stage.goodput is None else stage.goodput.share
    if name == "failed":
        return Figure(value=stage.requests.failed)
    if name in ("joules_per_output_token", "output_tokens_per_s_per_w"):
        value = None if stage.energy is None else getattr(stage.energy, name)
        return None if value is None else Figure(value=value)
    if name in type(stage.rates).model_fields:
        rate: Figure | None = getattr(stage.rates, name)
        return rate
    duration, _, part = name.rpartition("_")
    distribution = stage.figures.get(duration)
    found: Figure | None = None if distribution is None else getattr(distribution, part)
    return found


def shown_stage(result: Result) -> Stage | None:
    """The stage that stands for the run where only one can: the highest load that held, else the last."""
    held = result.saturation.held if result.saturation is not None else None
    at_held = [stage for stage in result.stages if held is not None and stage.level == held]
    candidates = at_held or result.stages
    return candidates[-1] if candidates else None


def title_of(result: Result) -> str:
    """What its scenario is called."""
    return str(result.scenario.get("title") or "a load without a title")


def kind_of(stage: Stage) -> str:
    """The load's kind, `closed` or one with a timetable, as the scenario names it."""
    return str(stage.load.get("kind", "load"))


def load_of(stage: Stage) -> str:
    """The load in words: `16 clients`, `4 requests/s (poisson)`."""
    kind = kind_of(stage)
    if kind == "closed":
        return f"{stage.level:g} client{'' if stage.level == 1 else 's'}"
    return f"{stage.level:g} requests/s ({kind})"


def objective_ms(result: Result, name: str) -> float | None:
    """A bound of the scenario's objective in milliseconds: `ttft`, `tpot`, `e2e`, `stall`. None where it sets none."""
    table = result.scenario.get("objective")
    bound = table.get(f"{name}_ms") if isinstance(table, dict) else None
    return float(bound) if isinstance(bound, int | float) else None


def objective_text(result: Result) -> str | None:
    """The scenario's objective in words; None where it has none."""
    bounds = ((name, objective_ms(result, name)) for name in ("ttft", "tpot", "e2e", "stall"))
    told = [f"{DURATIONS[name]} ≤ {bound:g} ms" for name, bound in bounds if bound is not None]
    return ", ".join(told) or None


def doubts_of(result: Result) -> tuple[str, ...]:
    """What speaks against a result, as sentences without their full stop; none where nothing does."""
    found: list[str] = []
    several = len(result.stages) > 1
    for stage in result.stages:
        place = f"at {load_of(stage)}: " if several else ""
        found += [f"{place}{doubt}" for doubt in stage.trust.doubts]
        if not stage.is_whole:
            found.append(f"{place}the run was stopped before its end")
        if stage.steady is False:
            found.append(f"{place}latency still grew at the end: no steady state was reached")
    if not result.stages:
        found.append("the run has no stage: nothing was measured")
    if result.target.started is not None and result.target.started.dummy_weights:
        found.append("the weights are synthetic: its speed is the model's, its answers are noise")
    if not result.prompts.exact:
        found.append("prompts are not of exact length: nobody counted them in the server's tokens")
    return tuple(found)


def number(value: float) -> str:
    """Three significant digits or more, thousands apart: `12,345`, `212`, `21.2`, `2.12`, `0.212`."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4}f}"


def shown(value: float, unit: Unit) -> str:
    """A value for people, without its unit's name: durations in milliseconds, shares in per cent."""
    if unit == "s":
        return number(1000 * value)
    if unit == "share":
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if unit in ("requests", "clients") else number(value)


def unit_name(unit: Unit, currency: str = "") -> str:
    """The unit that `shown` writes in."""
    return {"s": "ms", "share": "%", "J/token": "J", "tokens/s/W": "tokens/s/W", "price": currency}.get(unit, unit)


def interval(figure: Figure, unit: Unit) -> str | None:
    """`198 to 230`; None where there was too little data for one."""
    if figure.low95 is None or figure.high95 is None:
        return None
    return f"{shown(figure.low95, unit)} to {shown(figure.high95, unit)}"


def ratio_text(ratio: Figure) -> str:
    """`0.85x (0.79 to 0.91)`; without the interval where there is none."""
    if ratio.low95 is None or ratio.high95 is None:
        return f"{number(ratio.value)}x"
    return f"{number(ratio.value)}x ({number(ratio.low95)} to {number(ratio.high95)})"
