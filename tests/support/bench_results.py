"""Results as `serve bench run` writes them, made up from a few figures, for tests of what reads them."""

from __future__ import annotations

import math
from typing import Any

from serving.bench.record import (
    CURVE_POINTS,
    Client,
    Distribution,
    Energy,
    Figure,
    Goodput,
    Prompts,
    Rates,
    Requests,
    Result,
    Saturation,
    Server,
    Slice,
    Stage,
    Started,
    Target,
    Tokens,
    Trust,
    Window,
)

MACHINE = {
    "gpus": [
        {
            "index": 0,
            "name": "NVIDIA L40S",
            "memory_total_bytes": 48 << 30,
            "memory_free_bytes": 47 << 30,
            "power_limit_w": 350.0,
            "driver": "570.86",
            "cuda": "12.8",
        }
    ],
    "cpu": {"model": "AMD EPYC 9354", "physical": 32, "logical": 64, "usable": list(range(64))},
    "memory": {"total_bytes": 256 << 30, "available_bytes": 250 << 30},
    "host": {"kernel": "6.8.0"},
}


def figure(value: float, spread: float | None = 0.04) -> Figure:
    """A figure with an interval of so much to each side; without one where that is None."""
    if spread is None:
        return Figure(value=value)
    return Figure(value=value, low95=value * (1 - spread), high95=value * (1 + spread))


def distribution(median: float, spread: float | None = 0.04, *, count: int = 1000, sigma: float = 0.35) -> Distribution:
    """A lognormal duration; p99 is not known from fewer than 500."""
    ends = [math.exp(sigma * z) for z in (1.2816, 2.3263)]
    curve = [median * math.exp(sigma * 1.8 * math.log(q / (1 - q)) / 3) for q in _shares()]
    return Distribution(
        count=count,
        mean=figure(median * math.exp(sigma**2 / 2), spread),
        p50=figure(median, spread),
        p90=figure(median * ends[0], spread),
        p99=figure(median * ends[1], spread) if count >= 500 else None,
        least=curve[0],
        most=curve[-1],
        curve=tuple(curve),
    )


def _shares() -> list[float]:
    return [min(max(place / (CURVE_POINTS - 1), 0.003), 0.997) for place in range(CURVE_POINTS)]


def stage(
    level: float = 16,
    *,
    kind: str = "closed",
    speed: float = 800.0,
    ttft: float = 0.2,
    tpot: float = 0.02,
    spread: float | None = 0.04,
    goodput: float | None = 0.995,
    power_w: float | None = 280.0,
    count: int = 1000,
    **changes: Any,
) -> Stage:
    """A stage with so many output tokens a second."""
    seconds = 120.0
    due = {} if kind == "closed" else {
        "ttft_from_due": distribution(1.1 * ttft, spread, count=count),
        "e2e_from_due": distribution(ttft + 80 * tpot, spread, count=count),
    }  # fmt: skip
    timeline = tuple(
        Slice(
            at=(place + 0.5) * seconds / 60,
            output_tokens_per_s=speed * (min(1.0, (place + 1) / 5) + 0.05 * math.sin(1.7 * place)),
            running=min(level, level * (place + 1) / 4) if place < 56 else level * (60 - place) / 5,
            ttft=ttft * (1 + 0.2 * math.sin(place)) if place % 9 else None,
            power_w=None if power_w is None else power_w * (1 + 0.03 * math.sin(2.1 * place)),
            memory_bytes=None if power_w is None else (31 << 30) + (place << 26),
            utilisation=None if power_w is None else 0.9 + 0.08 * math.sin(0.9 * place),
        )
        for place in range(60)
    )
    plain: dict[str, Any] = {
        "load": {"kind": kind, "clients" if kind == "closed" else "rate": level},
        "level": level,
        "is_whole": True,
        "steady": True,
        "seconds": seconds,
        "requests": Requests(completed=count, failed=2, short=1),
        "errors": {"502 Bad Gateway": 2},
        "window": Window(begin=9.0, end=112.0, kind="steady", left_out=12),
        "figures": {
            "ttft": distribution(ttft, spread, count=count),
            "tpot": distribution(tpot, spread, count=count, sigma=0.15),
            "gap": distribution(tpot, spread, count=80 * count, sigma=0.5),
            "stall": distribution(6 * tpot, spread, count=count),
            "e2e": distribution(ttft + 80 * tpot, spread, count=count),
            **due,
        },
        "rates": Rates(
            output_tokens_per_s=figure(speed, spread),
            prompt_tokens_per_s=figure(1.5 * speed, spread),
            total_tokens_per_s=figure(2.5 * speed, spread),
            requests_per_s=figure(speed / 80, spread),
        ),
        "goodput": None
        if goodput is None
        else Goodput(share=Figure(value=goodput, low95=goodput - 0.003, high95=min(1.0, goodput + 0.003)), per_s=9.0),
        "tokens": Tokens(prompt=120_000, cached=4000, output=80_000, events=79_000),
        "energy": None
        if power_w is None
        else Energy(
            meters=("nvml",),
            mean_w=power_w,
            joules_per_output_token=power_w / speed,
            joules_per_request=80 * power_w / speed,
            output_tokens_per_s_per_w=speed / power_w,
            utilisation=0.93,
            memory_peak_bytes=33 << 30,
            clock_mhz=2400,
        ),
        "timeline": timeline,
        "trust": Trust(loop_lag_p99_s=0.0008, cpu_share=0.21, waited_share=0.01),
    }
    return Stage.model_validate({**plain, **changes})


def result(name: str = "l40s", *stages: Stage, **changes: Any) -> Result:
    """A run of the chat scenario."""
    plain: dict[str, Any] = {
        "made": "2026-11-20T10:00:00+00:00",
        "version": "0.1.0",
        "name": name,
        "target": Target(
            url="http://127.0.0.1:8000",
            model="llama3-8b",
            server=Server(name="vllm", version="0.22.1", facts={"max_num_seqs": 64}),
            started=Started(
                command=("serve", "--model", "llama3-8b", "--concurrency", "64"),
                plan={"engine": "vllm", "variant": "awq-int4", "context": 8192, "concurrency": 64},
                ready_s=71.2,
                load_s=38.0,
                weights="llama3-8b-awq",
                weights_sha256="5f" * 32,
            ),
        ),
        "machine": MACHINE,
        "client": Client(cores=8, is_on_the_servers_machine=True),
        "scenario": {"title": "Chat", "load": {"kind": "closed"}, "objective": {"ttft_ms": 2000, "tpot_ms": 100}},
        "scenario_sha256": "ab" * 32,
        "prompts": Prompts(exact=True, counted_by="server"),
        "stages": stages or (stage(),),
    }
    return Result.model_validate({**plain, **changes})


def sweep(
    name: str = "l40s", *, speed: float = 900.0, capacity: float = 32.0, base: float = 0.06, **changes: Any
) -> Result:
    """A sweep of eight loads that saturates at a capacity of clients."""
    stages = []
    for level in (1, 2, 4, 8, 16, 32, 64, 128):
        share = level / capacity
        stages.append(
            stage(
                level,
                speed=speed * (1 - math.exp(-1.6 * share)),
                ttft=base * (1 + share**2),
                tpot=base / 5 * (1 + share),
                goodput=0.999 if share <= 1 else max(0.05, 1.3 - share / 2),
                power_w=160 + 160 * (1 - math.exp(-2 * share)),
            )
        )
    held = max(one.level for one in stages if one.level <= capacity)
    end = Saturation(
        over="clients",
        held=held,
        failed=2 * held,
        why="99 of 100 requests were within the objective",
        most_output_tokens_per_s=stages[-1].rates.output_tokens_per_s,
    )
    return result(name, *stages, saturation=end, **changes)
