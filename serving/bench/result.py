"""From samples to a stage of a result: figures with intervals, what went wrong, and whether to believe it. Pure.

Rates are of a window in which the load was whole: from the first measured request to the last one sent, since after it
clients fall idle one after the other and a server is measured that has nothing to do. What arrived in it counts, of
whichever request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from serving.bench import samples as of
from serving.bench.load import Closed, Open, Ramp, Trace
from serving.bench.meter import Metered
from serving.bench.record import (
    CURVE_POINTS,
    Distribution,
    Energy,
    Figure,
    Goodput,
    Rates,
    Requests,
    Slice,
    Stage,
    Tokens,
    Trust,
    Window,
)
from serving.bench.samples import Objective, Sample
from serving.bench.scenario import Scenario
from serving.bench.statistics import BLOCKS, Estimate, mean, quantile, share
from serving.bench.steady import is_steady, transient
from serving.bench.watch import Kept

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
LAG_P99_S: Final = 0.005
LATE_P99_S: Final = 0.010
CPU_SHARE: Final = 0.8
STOLEN_SHARE: Final = 0.1
OFF_SHARE: Final = 0.02
"""Above these the client itself, or its machine, may be what was measured: its event loop's lag, its lateness, its
share of a core, what the hypervisor took; or counts of tokens may not be what they say."""
_TIMELINE: Final = 60
_ERRORS: Final = 20
_LEAST_WINDOW: Final = 0.5
"""Of a stage's time: where the load was whole for less than this, rates are of all of it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a stage left behind."""

    samples: tuple[tuple[int, Sample], ...]
    """By the number of the request, the warm-up's among them."""
    began: float
    """The moment of `time.perf_counter` from which their times count."""
    kept: tuple[Kept, ...] = ()
    """One for each process of the client."""
    metered: Metered = field(default_factory=Metered)
    recounted: tuple[tuple[int, int], ...] = ()
    """Of some answers: the server's count, and that of their text."""


def stage_of(scenario: Scenario, taken: Taken) -> Stage:
    """One stage, all that is known of it."""
    measured = sorted(
        (sample for number, sample in taken.samples if number >= scenario.warm_up), key=lambda sample: sample.sent
    )
    everything = [sample for _, sample in taken.samples]
    since = _since(scenario)
    left_out = _left_out(measured, scenario, since)
    ordered = measured[left_out:]
    completed = [sample for sample in ordered if sample.outcome == "completed"]
    window = window_of(ordered, left_out)
    load = scenario.load.model_dump()
    return Stage(
        load=load,
        level=level_of(scenario),
        is_whole=len(measured) == scenario.requests,
        steady=_is_steady(completed, scenario, since),
        seconds=max((sample.ended for sample in everything), default=0.0),
        # those that are left out of the figures are not left out here: no failure goes unseen
        requests=Requests(**{name: sum(one.outcome == name for one in measured) for name in Requests.model_fields}),
        errors=_counted(sample.error for sample in measured if sample.error),
        window=window,
        figures=figures(completed, since),
        rates=Rates() if window is None else rates(everything, window),
        goodput=goodput(ordered, scenario.objective.objective(), since),
        tokens=tokens_of(completed, taken.recounted),
        energy=None if window is None else energy(everything, window, taken),
        timeline=timeline(everything, taken),
        trust=trust(scenario, ordered, taken),
    )


def level_of(scenario: Scenario) -> float:
    """Clients, or requests a second: the highest of a ramp, a trace's mean (0 where its file has to tell)."""
    load = scenario.load
    if isinstance(load, Closed):
        return load.clients
    if isinstance(load, Open):
        return load.rate
    return max(load.start, load.end) if isinstance(load, Ramp) else 0.0


def _since(scenario: Scenario) -> of.Since:
    """From when a request is counted where it must meet an objective."""
    return "sent" if isinstance(scenario.load, Closed) else "due"


def _left_out(measured: Sequence[Sample], scenario: Scenario, since: of.Since) -> int:
    if isinstance(scenario.load, Ramp | Trace):
        return 0  # these are not meant to be steady
    return transient([of.ttft(sample, since) or 0.0 for sample in measured])


def _is_steady(completed: Sequence[Sample], scenario: Scenario, since: of.Since) -> bool | None:
    if isinstance(scenario.load, Ramp | Trace):
        return None
    told = [is_steady(_told(completed, partial(figure, since=since))) for figure in (of.ttft, of.normalised_latency)]
    return None if None in told else all(told)


def window_of(ordered: Sequence[Sample], left_out: int = 0) -> Window | None:
    """The time that rates are of; None where nothing was measured."""
    if not ordered:
        return None
    begin, last = ordered[0].sent, max(sample.sent for sample in ordered)
    end = max(sample.ended for sample in ordered)
    if end <= begin:
        return None
    if last - begin >= _LEAST_WINDOW * (end - begin):
        return Window(begin=begin, end=last, kind="steady", left_out=left_out)
    return Window(begin=begin, end=end, kind="whole", left_out=left_out)


def figures(completed: Sequence[Sample], since: of.Since) -> dict[str, Distribution]:
    """Every duration's distribution, in seconds; those that a timetable makes differ, also from when they were due."""
    found: dict[str, Distribution] = {}
    for start in dict.fromkeys(("sent", since)):
        suffix = "" if start == "sent" else "_from_due"
        for name, figure in (("ttft", of.ttft), ("e2e", of.e2e), ("normalised_latency", of.normalised_latency)):
            found[f"{name}{suffix}"] = distribution(_told(completed, partial(figure, since=start)))
    found["tpot"] = distribution(_told(completed, of.tpot))
    found["gap"] = distribution([gap for sample in completed for gap in of.gaps(sample)])
    found["mean_gap_of_request"] = distribution(_told(completed, of.mean_gap))
    found["stall"] = distribution(_told(completed, of.stall))
    return found


def distribution(values: Sequence[float]) -> Distribution:
    """Mean and quantiles, each with its interval; None where there is not enough data for it."""
    if not values:
        return Distribution(count=0)
    curve = np.quantile(np.asarray(values), np.linspace(0, 1, CURVE_POINTS))
    return Distribution(
        count=len(values),
        mean=_shown(mean(values)),
        **{name: _shown(quantile(values, q)) for name, q in QUANTILES.items()},
        least=min(values),
        most=max(values),
        curve=tuple(float(value) for value in curve),
    )


def rates(everything: Sequence[Sample], window: Window) -> Rates:
    """Tokens and requests a second of what was completed; intervals come from slices of the window.

    Output counts when it arrived, a prompt when its first token did, a request when its last did.
    """
    completed = [sample for sample in everything if sample.outcome == "completed" and sample.arrivals]
    if not completed:
        return Rates()
    edges = np.linspace(window.begin, window.end, BLOCKS + 1)
    output, prompt, ended = (np.zeros(BLOCKS) for _ in range(3))
    for sample in completed:
        each = of.tokens_of(sample) / len(sample.arrivals)
        output += each * np.histogram(sample.arrivals, edges)[0]
        for total, moment, count in (
            (prompt, sample.arrivals[0], sample.prompt_tokens or 0),
            (ended, sample.arrivals[-1], 1),
        ):
            if window.begin <= moment <= window.end:
                total[min(BLOCKS - 1, int(np.searchsorted(edges, moment, side="right")) - 1)] += count
    slice_s = (window.end - window.begin) / BLOCKS

    def rate(counts: npt.NDArray[np.float64]) -> Figure | None:
        return _shown(mean((counts / slice_s).tolist()))

    return Rates(
        output_tokens_per_s=rate(output),
        prompt_tokens_per_s=rate(prompt),
        total_tokens_per_s=rate(output + prompt),
        requests_per_s=rate(ended),
    )


def goodput(ordered: Sequence[Sample], objective: Objective, since: of.Since) -> Goodput | None:
    """Requests that met the objective, of all that were sent; None where there is none to meet."""
    if objective == Objective() or not ordered:
        return None
    met = [of.meets(sample, objective, since) for sample in ordered]
    served = None if since == "sent" else _shown(share([of.meets(sample, objective, "sent") for sample in ordered]))
    took = max(sample.ended for sample in ordered) - ordered[0].sent
    return Goodput(share=_shown(share(met)), share_from_sent=served, per_s=sum(met) / took if took > 0 else None)


def tokens_of(completed: Sequence[Sample], recounted: Sequence[tuple[int, int]]) -> Tokens:
    """Counts of what was completed, and how far the server's are off ours."""
    written = [
        (sample.prompt_tokens, sample.written_tokens)
        for sample in completed
        if sample.prompt_tokens is not None and sample.written_tokens
    ]
    cached = [sample.cached_tokens for sample in completed if sample.cached_tokens is not None]
    return Tokens(
        prompt=sum(sample.prompt_tokens or 0 for sample in completed),
        cached=sum(cached) if cached else None,
        output=sum(map(of.tokens_of, completed)),
        events=sum(len(sample.arrivals) for sample in completed),
        prompt_off=_off(written),
        recounted=len(recounted),
        output_off=_off(recounted),
    )


def _off(pairs: Sequence[tuple[int, int]]) -> float | None:
    """Share by which the first counts differ from the second, on the whole."""
    ours = sum(our for _, our in pairs)
    return sum(theirs for theirs, _ in pairs) / ours - 1 if ours else None


def energy(everything: Sequence[Sample], window: Window, taken: Taken) -> Energy | None:
    """What the window took; None where no meter told."""
    inside = [
        reading
        for at, reading in taken.metered.readings
        if window.begin <= at - taken.began <= window.end and reading.power_w is not None
    ]
    watts = [reading.power_w for reading in inside if reading.power_w is not None]
    if not watts:
        return None
    power, seconds = sum(watts) / len(watts), window.end - window.begin
    completed = [sample for sample in everything if sample.outcome == "completed" and sample.arrivals]
    output, ended = 0.0, 0
    for sample in completed:
        within = sum(window.begin <= moment <= window.end for moment in sample.arrivals)
        output += of.tokens_of(sample) * within / len(sample.arrivals)
        ended += window.begin <= sample.arrivals[-1] <= window.end
    return Energy(
        meters=taken.metered.meters,
        mean_w=power,
        joules_per_output_token=power * seconds / output if output else None,
        joules_per_request=power * seconds / ended if ended else None,
        output_tokens_per_s_per_w=output / seconds / power if power else None,
        utilisation=_mean([one.utilisation for one in inside]),
        memory_peak_bytes=max((one.memory_bytes for one in inside if one.memory_bytes is not None), default=None),
        clock_mhz=_mean([one.clock_mhz for one in inside]),
    )


def timeline(everything: Sequence[Sample], taken: Taken) -> tuple[Slice, ...]:
    """The stage in equal parts, for drawing; requests of every outcome."""
    end = max((sample.ended for sample in everything), default=0.0)
    if end <= 0:
        return ()
    edges = np.linspace(0.0, end, _TIMELINE + 1)
    each = end / _TIMELINE
    output, running = np.zeros(_TIMELINE), np.zeros(_TIMELINE)
    first: list[list[float]] = [[] for _ in range(_TIMELINE)]
    for sample in everything:
        if sample.arrivals:
            share = of.tokens_of(sample) / len(sample.arrivals)
            output += share * np.histogram(sample.arrivals, edges)[0]
            place = min(_TIMELINE - 1, int(sample.arrivals[0] / each))
            first[place].append(sample.arrivals[0] - sample.sent)
        running += np.clip(np.minimum(edges[1:], sample.ended) - np.maximum(edges[:-1], sample.sent), 0, None) / each
    metered = [
        [one for at, one in taken.metered.readings if low <= at - taken.began < high] for low, high in pairwise(edges)
    ]
    return tuple(
        Slice(
            at=float(edges[at] + each / 2),
            output_tokens_per_s=float(output[at] / each),
            running=float(running[at]),
            ttft=_mean(first[at]),
            power_w=_mean([one.power_w for one in metered[at]]),
            memory_bytes=max((one.memory_bytes for one in metered[at] if one.memory_bytes is not None), default=None),
            utilisation=_mean([one.utilisation for one in metered[at]]),
        )
        for at in range(_TIMELINE)
    )


def trust(scenario: Scenario, ordered: Sequence[Sample], taken: Taken) -> Trust:
    """Whether it was the server that was measured."""
    kept = taken.kept
    lag = _p99([lag for one in kept for lag in one.lags])
    busy = max((one.cpu_s / one.wall_s for one in kept if one.wall_s), default=0.0)
    waited = max((one.waited_s / one.wall_s for one in kept if one.wall_s and one.waited_s is not None), default=None)
    stolen = max((one.stolen_share for one in kept if one.stolen_share is not None), default=None)
    late = delivered = None
    if not isinstance(scenario.load, Closed) and len(ordered) > 1:
        late = _p99([sample.sent - sample.due for sample in ordered])
        wanted = max(sample.due for sample in ordered) - min(sample.due for sample in ordered)
        took = max(sample.sent for sample in ordered) - min(sample.sent for sample in ordered)
        delivered = wanted / took if took > 0 else None
    counts = tokens_of([one for one in ordered if one.outcome == "completed"], taken.recounted)
    silent = any(sample.output_tokens is None for sample in ordered if sample.outcome == "completed")
    doubts = [
        doubt
        for is_so, doubt in (
            (_over(lag, LAG_P99_S), f"the client's event loop woke up {_ms(lag)} late in one of a hundred cases"),
            (busy > CPU_SHARE, f"the client took {busy:.0%} of a core"),
            (_over(stolen, STOLEN_SHARE), f"the hypervisor gave {stolen or 0:.0%} of the processors' time to others"),
            (_over(late, LATE_P99_S), f"one of a hundred requests was sent {_ms(late)} after it was due"),
            (silent, "the server does not say how many tokens it wrote; events were counted in their place"),
            (
                _over(_absolute(counts.prompt_off), OFF_SHARE),
                f"by the server's count prompts are {counts.prompt_off or 0:+.1%} off the length that they were given",
            ),
            (
                # text that is cut into tokens anew need not be cut as it was written, so this one is let go further
                _over(_absolute(counts.output_off), 10 * OFF_SHARE),
                f"by the server's count answers are {counts.output_off or 0:+.1%} off that of their text",
            ),
        )
        if is_so
    ]
    return Trust(
        loop_lag_p99_s=lag,
        late_p99_s=late,
        delivered_ratio=delivered,
        cpu_share=busy,
        waited_share=waited,
        stolen_share=stolen,
        doubts=tuple(doubts),
    )


def _over(value: float | None, bound: float) -> bool:
    return value is not None and value > bound


def _absolute(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _ms(seconds: float | None) -> str:
    return f"{1000 * (seconds or 0):.1f} ms"


def _told(samples: Iterable[Sample], figure: Callable[[Sample], float | None]) -> list[float]:
    return [value for sample in samples if (value := figure(sample)) is not None]


def _shown(estimate: Estimate | None) -> Figure | None:
    return None if estimate is None else Figure(value=estimate.value, low95=estimate.low, high95=estimate.high)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _p99(values: Sequence[float]) -> float | None:
    return sorted(values)[min(len(values) - 1, math.ceil(0.99 * len(values)) - 1)] if values else None


def _counted(texts: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    return dict(sorted(found.items(), key=lambda entry: -entry[1])[:_ERRORS])
