"""What came of each step, and how figures are judged. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal
from xml.etree import ElementTree as ET

from benchmarks.gpu.domains import Leaks
from benchmarks.machine import interval
from benchmarks.peers.compare import Measured

Status = Literal["passed", "failed", "unchecked"]
LABELS: Final[Mapping[Status, str]] = {
    "passed": "passed",
    "failed": "FAILED",
    "unchecked": "could not be checked",
}
_NO_FIT: Final = 6
"""Exit status of a refusal with numbers (docs/exit-statuses.md)."""
_MIB: Final = 1024**2
_ROOM_MIB: Final = 64
"""Drivers and their tools count reserved memory one way or the other."""
EVEN: Final = (0.9, 1.1)
"""Ratios of times that tell nothing apart."""
MOST_CPU_US: Final = 30.0
"""Processor time of the gateway for each relayed chunk, in microseconds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step."""

    step: str
    status: Status
    why: str = ""
    """What failed, or why it could not be checked; empty where it passed."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the figures of a step are judged."""

    status: Status
    why: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0: all passed; 1: something failed; 2: nothing failed, and something could not be checked."""
    statuses = {outcome.status for outcome in outcomes}
    return 1 if "failed" in statuses else 2 if "unchecked" in statuses else 0


def page(outcomes: Sequence[Outcome]) -> str:
    """The outcomes for people, a line each, with the reason beneath."""
    widest = max((len(outcome.step) for outcome in outcomes), default=0)
    lines = []
    for outcome in outcomes:
        lines.append(f"{outcome.step:<{widest}}  {LABELS[outcome.status]} ({outcome.took_s:.0f} s)")
        lines += [f"{'':<{widest}}  {line}" for line in outcome.why.splitlines()]
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in LABELS}
    return "\n".join([*lines, "", ", ".join(f"{count} {LABELS[one]}" for one, count in counts.items())]) + "\n"


def judge_detection(hardware: Mapping[str, Any], oracle: Sequence[tuple[str, int]] | None) -> Verdict:
    """`serve hardware --json` against what nvidia-smi says: name and MiB of each GPU; None where that was not asked."""
    gpus = hardware["gpus"]
    seen = [(str(gpu["name"]), (gpu["memory_total_bytes"] or 0) // _MIB) for gpu in gpus]
    figures = {"gpus": gpus, "nvidia_smi": oracle}
    if hardware["gpu_faults"]:
        return Verdict("failed", "\n".join(hardware["gpu_faults"]), figures)
    if not seen:
        return Verdict("unchecked", "there is no GPU here", figures)
    if oracle is None:
        return Verdict("passed", figures=figures)
    differ = len(seen) != len(oracle) or any(
        ours != theirs or abs(our_mib - their_mib) > _ROOM_MIB
        for (ours, our_mib), (theirs, their_mib) in zip(sorted(seen), sorted(oracle), strict=False)
    )
    if differ:
        return Verdict("failed", f"`serve hardware` sees {seen}, nvidia-smi {list(oracle)}", figures)
    return Verdict("passed", figures=figures)


def judge_plans(asked: Mapping[str, tuple[int, Mapping[str, Any] | None]], *, needs_gpu: bool) -> Verdict:
    """Plans by model, each with the exit status of `serve plan` and what it printed: one by vLLM, or a refusal."""
    wrong = []
    for model, (status, plan) in asked.items():
        if plan is None or status not in (0, _NO_FIT):
            wrong.append(f"`serve plan {model}` ended with {status}, and no plan or refusal")
        elif status == 0 and plan["engine"] != "vllm":
            wrong.append(f"`{model}` was to be served by vLLM, and is planned for {plan['engine']}")
        elif status == 0 and needs_gpu and not plan["gpus"]:
            wrong.append(f"`{model}` is planned without a GPU")
        elif status != 0 and not plan["reason"]:
            wrong.append(f"`{model}` is refused without a reason")
    if not any(status == 0 for status, _ in asked.values()) and not wrong:
        wrong.append("nothing can be served")
    return Verdict("failed" if wrong else "passed", "\n".join(wrong))


def judge_capacity(planned: int, held: int | None, tolerance: float) -> Verdict:
    """Tokens that the planner expects in the KV cache against those that vLLM says it holds.

    Fewer than planned by more than `tolerance` (a share) break the plan's promise; more by that much waste the GPU.
    """
    if held is None:
        return Verdict("unchecked", "vLLM did not say how large its cache is", {"planned_tokens": planned})
    ratio = held / planned
    figures = {"planned_tokens": planned, "held_tokens": held, "ratio": round(ratio, 4)}
    if abs(ratio - 1) <= tolerance:
        return Verdict("passed", figures=figures)
    than = "fewer" if ratio < 1 else "more"
    why = f"vLLM holds {held} tokens, {planned} were planned: {abs(ratio - 1):.1%} {than}, {tolerance:.0%} are allowed"
    return Verdict("failed", why, figures)


def judge_conformance(junit: str) -> Verdict:
    """A run of the suite by the file that pytest wrote (`--junitxml`)."""
    passed, failed, skipped = [], [], {}
    for case in ET.fromstring(junit).iter("testcase"):  # noqa: S314 - pytest's own file
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif (skip := case.find("skipped")) is not None:
            skipped[name] = skip.get("message", "")
        else:
            passed.append(name)
    figures = {"passed": len(passed), "failed": failed, "skipped": skipped}
    if failed:
        return Verdict("failed", "\n".join(failed), figures)
    if not passed:
        return Verdict("unchecked", "no test ran", figures)
    return Verdict("passed", figures=figures)


def judge_overhead(
    rounds: Sequence[tuple[Measured, Measured]], least: float, cpu_us: float, most_cpu_us: float = MOST_CPU_US
) -> Verdict:
    """Rounds of (through the gateway, straight to the engine): the median ratio of tokens/s must reach `least`.

    `cpu_us` is the gateway's processor time for each chunk that it relayed, requests and all; at most `most_cpu_us`.
    """
    speeds = [gateway.tokens_per_s / bare.tokens_per_s for gateway, bare in rounds]
    waits = [gateway.ttft_p50_s - bare.ttft_p50_s for gateway, bare in rounds]
    low, high = interval(speeds)
    ratio = statistics.median(speeds)
    figures = {
        "throughput_ratio": {"median": round(ratio, 4), "low95": round(low, 4), "high95": round(high, 4)},
        "ttft_p50_added_ms": round(1000 * statistics.median(waits), 2),
        "gateway": {name: statistics.median(asdict(one)[name] for one, _ in rounds) for name in asdict(rounds[0][0])},
        "bare": {name: statistics.median(asdict(one)[name] for _, one in rounds) for name in asdict(rounds[0][1])},
        "gateway_cpu_us_per_chunk": round(cpu_us, 2),
        "rounds": len(rounds),
    }
    if cpu_us > most_cpu_us:
        return Verdict(
            "failed", f"{cpu_us:.1f} µs of the gateway for each chunk, {most_cpu_us:g} are the most", figures
        )
    if ratio < least:
        return Verdict("failed", f"{ratio:.3f} of the bare engine's tokens/s, {least:g} is the least", figures)
    return Verdict("passed", figures=figures)


def judge_leaks(leaks: Leaks) -> Verdict:
    """No token of another domain's is shared, and the clock says no more than the count."""
    figures = asdict(leaks)
    low, high = EVEN
    if leaks.leaked_tokens:
        return Verdict(
            "failed", f"{leaks.leaked_tokens} tokens of another cache domain were not computed again", figures
        )
    if not leaks.kept_tokens:
        return Verdict("failed", "a domain does not find what it has computed itself: nothing is proved", figures)
    if not low <= leaks.ttft_ratio <= high:
        why = (
            f"another domain's prefix takes {leaks.ttft_ratio:.3f} × the time of a new one, {low:g} to {high:g} is even"
        )
        return Verdict("failed", why, figures)
    return Verdict("passed", figures=figures)


def stages_of(seen: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    """Stages of a start, each with the second at which it was first told of."""
    first: dict[str, float] = {}
    for at_s, stage in seen:
        first.setdefault(stage, at_s)
    return [{"stage": stage, "at_s": round(at_s, 1)} for stage, at_s in first.items()]
