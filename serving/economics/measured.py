"""What was measured, as inputs: a machine's capacity and power from a benchmark, a workload from the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from serving.bench.record import Figure, Result, Stage
from serving.bench.report.figures import doubts_of, objective_text, shown_stage, title_of
from serving.economics.bills import Usage
from serving.economics.inputs import DAY_H, WEEK_DAYS
from serving.errors import UsageError


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one machine, by a benchmark."""

    capacity: Mapping[str, Any]
    """The table `own.capacity` of a case."""
    busy_w: Decimal | None
    """None where nothing metered it."""
    notes: tuple[str, ...]
    """What speaks against using it so."""


def measured_machine(result: Result) -> Measured:
    """A machine's capacity at the highest load that kept the objective. Raises UsageError where there is none.

    Each rate is a range: the interval in which the truth is in 95 of 100 such runs.
    """
    stage = shown_stage(result)
    if stage is None or stage.rates.prompt_tokens_per_s is None or stage.rates.output_tokens_per_s is None:
        raise UsageError(f"the result of {title_of(result)} has no rates", hint="measure again, with more requests")
    if result.saturation is not None and result.saturation.held is None:
        raise UsageError(
            f"no load held in the result of {title_of(result)}: {result.saturation.why}",
            hint="measure a larger machine, or promise less",
        )
    objective = objective_text(result)
    load = f"{stage.level:g} {result.saturation.over if result.saturation else stage.load.get('kind', '')}".strip()
    ran = f"{result.target.model} on {_machine_of(result)}"
    source = f"{title_of(result)}, {ran}, {result.made[:10]}, at {load}, {objective or 'no objective'}"
    capacity = {
        "prefill_tokens_per_s": _range(stage.rates.prompt_tokens_per_s),
        "decode_tokens_per_s": _range(stage.rates.output_tokens_per_s),
        "measured": "together",
        "source": source,
    }
    watts = None if stage.energy is None else Decimal(str(stage.energy.mean_w))
    doubts = [f"the benchmark is not to be trusted: {doubt}" for doubt in doubts_of(result)]
    return Measured(capacity, watts, (*_notes(result, stage, objective), *doubts))


def _machine_of(result: Result) -> str:
    """In a few words: its GPUs, or its processors where it has none."""
    if result.machine is None:
        return "a machine that the result does not name"
    gpus = _gpus_of(result)
    if gpus:
        return f"{len(gpus)} × {gpus[0]}"
    processor = result.machine.get("cpu")
    name = str(processor.get("model") or "CPU") if isinstance(processor, dict) else "CPU"
    return f"{name}, no GPU"


def _gpus_of(result: Result) -> list[str]:
    found = (result.machine or {}).get("gpus", ())
    return [str(each.get("name", "")) for each in found if isinstance(each, dict)]


def _notes(result: Result, stage: Stage, objective: str | None) -> list[str]:
    notes = []
    if objective is None:
        notes.append("the benchmark had no objective: what it measured is no promise of latency")
    if result.saturation is None:
        notes.append("the benchmark was no sweep: a higher load may hold, and is not counted on")
    if stage.energy is None:
        notes.append("the benchmark metered no power")
    elif stage.energy.meters == ("nvml",):
        notes.append("the benchmark metered the GPUs alone: their power is not that of the machine around them")
    if any("prefix" in str(each) for each in result.scenario.values()):
        notes.append("the benchmark's prompts share a prefix: `prefix_reuse` of the case counts it twice")
    return notes


def other_machine(result: Result, gpu: object) -> list[str]:
    """That the benchmark's machine has other GPUs than the case names, or none, where both are known."""
    if not isinstance(gpu, str) or result.machine is None:
        return []
    there = _gpus_of(result)
    if not there:
        return [
            f"the benchmark ran on a machine without a GPU, and the case rents or buys {gpu}: its figures are not of it"
        ]
    words = gpu.replace("-", " ").split()
    if all(words[0] in name.replace("-", " ").split() for name in there):
        return []
    return [f"the benchmark ran on {there[0]}, and the case rents or buys {gpu}"]


def _range(figure: Figure) -> Any:
    value = _decimal(figure.value)
    if figure.low95 is None or figure.high95 is None or figure.low95 <= 0:
        return value
    return {"low": _decimal(figure.low95), "likely": value, "high": _decimal(figure.high95)}


def _decimal(number: float) -> Decimal:
    return Decimal(f"{number:.6g}")


def measured_workload(usage: Usage, hours: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a case's `workload` that a ledger knows. Raises UsageError where it is empty.

    What the ledger counts is what was sent: history that was sent again is in it, so `turns` is 1. `hours` has those in
    which there was work: how many they were is when work comes, and the busiest over their mean is the peak, of prompts
    or of answers, whichever is the higher.
    """
    if not usage.requests:
        raise UsageError("the ledger has no request in that time", hint="name another one: `--since`, `--before`")
    sent = usage.fresh + usage.cached
    return {
        "requests_per_day": Decimal(usage.requests) / usage.days,
        "input_tokens_per_day": Decimal(sent) / usage.days,
        "output_tokens_per_day": Decimal(usage.output) / usage.days,
        "turns": 1,
        "cached": Decimal(usage.cached) / sent if sent else 0,
        "reasoning": Decimal(usage.reasoning) / usage.output if usage.output else 0,
        "hours_per_day": min(Decimal(DAY_H), _decimal(len(hours) / usage.days)),
        "days_per_week": WEEK_DAYS,
        "peak": max(_peak([int(each[name]) for each in hours]) for name in ("input", "output")),
    }


def _peak(loads: Sequence[int]) -> Decimal:
    """The highest over the mean."""
    return Decimal(max(loads) * len(loads)) / sum(loads) if any(loads) else Decimal(1)
