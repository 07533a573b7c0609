"""From samples to a result: figures with intervals, what went wrong beside them, and whether to believe it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

import numpy as np

from serving.bench import samples as of
from serving.bench.drive import Watch
from serving.bench.samples import Objective, Sample
from serving.bench.scenario import Closed, Scenario
from serving.bench.statistics import BLOCKS, Estimate, mean, quantile

FORMAT: Final = 1
"""Of a result; a number that grows when a field changes its meaning."""
QUANTILES: Final = (0.5, 0.9, 0.99)
LAG_P99_S: Final = 0.005
LATE_P99_S: Final = 0.010
CPU_SHARE: Final = 0.8
"""Above these the client itself may be what was measured: its event loop's lag, its lateness, its share of a core."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How well the harness itself kept up, and what speaks against the figures."""

    loop_lag_p99_s: float | None
    late_p99_s: float | None
    """By which requests were sent after they were due; None without a timetable."""
    delivered_ratio: float | None
    """Rate at which requests were sent over the rate intended."""
    cpu_share: float
    doubts: tuple[str, ...]


def figures(scenario: Scenario, measured: Sequence[Sample]) -> dict[str, object]:
    """The figures of the requests that count, in the order in which they were sent; durations in seconds."""
    ordered = sorted(measured, key=lambda sample: sample.sent)
    completed = [sample for sample in ordered if sample.outcome == "completed"]
    objective = scenario.objective.objective()
    since: tuple[of.Since, ...] = ("sent",) if isinstance(scenario.load, Closed) else ("sent", "due")
    found: dict[str, object] = {
        "requests": {
            outcome: sum(sample.outcome == outcome for sample in ordered)
            for outcome in ("completed", "short", "truncated", "failed")
        },
        "errors": _counted(sample.error for sample in ordered if sample.error),
    }
    for start in since:
        suffix = "" if start == "sent" else "_from_due"
        for name, figure in (("ttft", of.ttft), ("e2e", of.e2e), ("normalised_latency", of.normalised_latency)):
            found[f"{name}{suffix}"] = distribution(_told(completed, partial(figure, since=start)))
    found["tpot"] = distribution(_told(completed, of.tpot))
    found["gap"] = distribution([gap for sample in completed for gap in of.gaps(sample)])
    found["mean_gap_of_request"] = distribution(_told(completed, of.mean_gap))
    found["stall"] = distribution(_told(completed, of.stall))
    found["rates"] = rates(ordered, completed)
    if objective != Objective():
        held = [1.0 if of.meets(sample, objective, since[-1]) else 0.0 for sample in ordered]
        found["goodput"] = {"share": _shown(mean(held)), "per_s": _rate(sum(held), ordered)}
    return found


def distribution(values: Sequence[float]) -> dict[str, object]:
    """Mean and quantiles, each with its interval; null where there is not enough data for it."""
    found: dict[str, object] = {"count": len(values), "mean": _shown(mean(values))}
    for q in QUANTILES:
        found[f"p{round(100 * q)}"] = _shown(quantile(values, q))
    if values:
        found |= {"least": min(values), "most": max(values)}
    return found


def rates(ordered: Sequence[Sample], completed: Sequence[Sample]) -> dict[str, object]:
    """Tokens and requests per second of what was completed, from the first that was sent to the last that ended.

    The intervals come from slices of that time: output counts when it arrived, a prompt when its first token did.
    """
    if not completed:
        return {}
    begin, end = _span(ordered)
    edges = np.linspace(begin, end, BLOCKS + 1)
    output, prompt, ended = np.zeros(BLOCKS), np.zeros(BLOCKS), np.zeros(BLOCKS)
    for sample in completed:
        places = np.clip(np.searchsorted(edges, sample.arrivals, side="right") - 1, 0, BLOCKS - 1)
        tokens = sample.output_tokens or len(sample.arrivals)
        np.add.at(output, places, tokens / max(1, len(sample.arrivals)))
        if sample.arrivals:
            prompt[places[0]] += sample.prompt_tokens or 0
            ended[places[-1]] += 1
    each = (end - begin) / BLOCKS
    return {
        "output_tokens_per_s": _shown(mean((output / each).tolist())),
        "prompt_tokens_per_s": _shown(mean((prompt / each).tolist())),
        "total_tokens_per_s": _shown(mean(((output + prompt) / each).tolist())),
        "requests_per_s": _shown(mean((ended / each).tolist())),
        "seconds": end - begin,
    }


def trust(scenario: Scenario, measured: Sequence[Sample], watch: Watch) -> Trust:
    """Whether it was the server that was measured."""
    doubts = []
    lag = _p99(watch.lags)
    share = watch.cpu_s / watch.wall_s if watch.wall_s else 0.0
    late = delivered = None
    if lag is not None and lag > LAG_P99_S:
        doubts.append(f"the client's event loop woke up {1000 * lag:.1f} ms late in one of a hundred cases")
    if share > CPU_SHARE:
        doubts.append(f"the client took {share:.0%} of a core")
    if not isinstance(scenario.load, Closed) and len(measured) > 1:
        late = _p99([sample.sent - sample.due for sample in measured])
        wanted = max(sample.due for sample in measured) - min(sample.due for sample in measured)
        took = max(sample.sent for sample in measured) - min(sample.sent for sample in measured)
        delivered = wanted / took if took > 0 else None
        if late is not None and late > LATE_P99_S:
            doubts.append(f"one of a hundred requests was sent {1000 * late:.1f} ms after it was due")
    counts = {sample.output_tokens is None for sample in measured if sample.outcome == "completed"}
    if True in counts:
        doubts.append("the server does not say how many tokens it wrote; events were counted in their place")
    return Trust(lag, late, delivered, share, tuple(doubts))


def result(
    scenario: Scenario, digest: str, taken: Sequence[tuple[int, Sample]], watch: Watch, about: dict[str, object]
) -> dict[str, object]:
    """The whole result; `taken` are the samples by their request's number, `about` is machine, versions and target."""
    measured = [sample for number, sample in taken if number >= scenario.warm_up]
    told = trust(scenario, measured, watch)
    return {
        "format": FORMAT,
        **about,
        "scenario": {**scenario.model_dump(exclude_none=True), "sha256": digest},
        "is_whole": len(measured) == scenario.requests,
        "figures": figures(scenario, measured),
        "trust": asdict(told),
    }


def _told(samples: Iterable[Sample], figure: Callable[[Sample], float | None]) -> list[float]:
    return [value for sample in samples if (value := figure(sample)) is not None]


def _shown(estimate: Estimate | None) -> dict[str, object] | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low95": estimate.low, "high95": estimate.high}


def _span(ordered: Sequence[Sample]) -> tuple[float, float]:
    return min(sample.sent for sample in ordered), max(sample.ended for sample in ordered)


def _rate(count: float, ordered: Sequence[Sample]) -> float | None:
    if not ordered:
        return None
    begin, end = _span(ordered)
    return count / (end - begin) if end > begin else None


def _p99(values: Sequence[float]) -> float | None:
    return sorted(values)[min(len(values) - 1, math.ceil(0.99 * len(values)) - 1)] if values else None


def _counted(texts: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    return dict(sorted(found.items(), key=lambda entry: -entry[1])[:20])
