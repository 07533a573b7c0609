"""From machine, model and wishes to a plan, or to a refusal with numbers. Pure: no files, no clock, no environment."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Final

from serving.hardware import Machine
from serving.planner.llamacpp import LEAST_CONTEXT, plan_llamacpp
from serving.planner.llamacpp_pooling import plan_pooling
from serving.planner.transformers import plan_transformers
from serving.planner.types import AnyPlan, Engine, Engines, NearestFit, NoFit, Rejected, VllmPlan, Wishes
from serving.planner.vllm import equal_gpus, plan_vllm
from serving.planner.vllm_cpu import plan_vllm_cpu
from serving.planner.vllm_pooling import plan_vllm_pooling
from serving.registry import Model

MOST_ALTERNATIVES: Final = 3
"""Ways out that a refusal names."""
STEPS: Final = {"context": (256, LEAST_CONTEXT), "concurrency": (1, 1), "kv_tokens": (256, LEAST_CONTEXT)}
"""Wishes that are offered as large as they fit: in which steps, and the least that is offered."""
SLACK: Final = 0.02
"""Share of the memory that an offered number leaves beside the headroom."""
MOST_HEADROOM: Final = 0.95
RELAXED: Final = (
    "backend", "variant", "context", "concurrency", "kv_dtype", "kv_layout", "kv_tokens", "load_mode", "swa_full",
    "parallel", "tensor_parallel", "pipeline_parallel", "data_parallel", "gpu_layers", "threads",
    "step_tokens",
)  # fmt: skip
"""Wishes that a way out may give up."""


def plan(
    machine: Machine,
    model: Model,
    wishes: Wishes,
    engines: Engines = Engines(),  # noqa: B008 - frozen
) -> AnyPlan | NoFit:
    """How to serve `model` on `machine` with what this host can start, or why not, and what would fit instead.

    vLLM wherever it can be started and there is a GPU that it can use; llama.cpp elsewhere. A model that the GPUs
    cannot hold is refused, not served slowly from the CPU: that is named among the ways out, for a person to choose.
    """
    outcome = _plan(machine, model, wishes, engines)
    if isinstance(outcome, NoFit):
        return dataclasses.replace(outcome, nearest=tuple(_nearest(machine, model, wishes, engines)))
    return outcome


def choose_engine(machine: Machine, model: Model, wishes: Wishes, engines: Engines) -> tuple[Engine, str | None]:
    """The engine to plan for, and why not the other one where that is not plain."""
    if wishes.backend is not None:
        return wishes.backend, None
    gpus = equal_gpus(machine.gpus)
    if not gpus:
        return "llamacpp", None
    if not engines.vllm:
        return "llamacpp", engines.vllm_lacks
    chosen = [variant for variant in model.variants if wishes.variant in (None, variant.name)]
    if not any("vllm" in variant.backends for variant in chosen):
        return "llamacpp", "no variant asked for is served by vLLM"
    if wishes.local and not any("vllm" in variant.backends and variant.path for variant in chosen):
        return "llamacpp", "no weights for vLLM are on this host"
    return "vllm", None


def _plan(
    machine: Machine, model: Model, wishes: Wishes, engines: Engines, comforts: tuple[float, ...] | None = None
) -> AnyPlan | NoFit:
    engine, why_not = choose_engine(machine, model, wishes, engines)
    lacks = {
        "vllm": None if engines.vllm or engines.vllm_cpu else f"vLLM cannot be started: {engines.vllm_lacks}",
        "transformers": None
        if engines.transformers
        else f"Transformers cannot be started: {engines.transformers_lacks}",
    }.get(engine)
    if lacks is not None:
        return NoFit(model.name, wishes.variant, lacks, None)
    others: dict[str, Any] = {name: None for name, whose in wishes.configured if whose != engine}
    wishes = dataclasses.replace(wishes, **others, configured=())
    outcome: AnyPlan | NoFit
    if engine == "transformers":
        outcome = plan_transformers(machine, model, wishes, engines)
    elif engine == "vllm" and model.kind != "chat":
        outcome = plan_vllm_pooling(machine, model, wishes, on_gpu=engines.vllm)
    elif engine == "vllm":
        outcome = (plan_vllm if engines.vllm else plan_vllm_cpu)(machine, model, wishes)
    elif model.kind == "chat":
        outcome = plan_llamacpp(machine, model, wishes, engines, *(() if comforts is None else (comforts,)))
    else:
        outcome = plan_pooling(machine, model, wishes)
    if why_not is None:
        return outcome
    return dataclasses.replace(outcome, rejected=(Rejected("engine vllm", why_not), *outcome.rejected))


def _nearest(machine: Machine, model: Model, wishes: Wishes, engines: Engines) -> Iterator[NearestFit]:
    """Changes of wishes that fit: each that suffices alone, else pairs, else all, last another cache or engine."""
    asked = [name for name in RELAXED if getattr(wishes, name)]
    for size in (1, 2, len(asked)):
        found = [
            fit
            for dropped in itertools.combinations(asked, size)
            if (fit := _without(machine, model, wishes, engines, dropped))
        ]
        if found:
            yield from found[:MOST_ALTERNATIVES]
            return
    instead: tuple[dict[str, Any], ...] = (
        {"kv_dtype": "fp8"},
        {"kv_dtype": "q8_0"},
        {"backend": "llamacpp"},
        {"backend": "llamacpp", "kv_dtype": "q8_0"},
        {"backend": "vllm"},
        {"backend": "vllm", "kv_dtype": "fp8"},
    )
    for change in instead:
        fit = _without(machine, model, wishes, engines, tuple(asked), **change)
        if fit:
            yield fit
            return


def _without(
    machine: Machine, model: Model, wishes: Wishes, engines: Engines, dropped: tuple[str, ...], **instead: Any
) -> NearestFit | None:
    """What fits when these wishes are given up, near what was asked for, filling the memory rather than leaving room.

    The bytes are those of the plan that comes of asking for it.
    """
    changed: dict[str, Any] = {name: False if name == "swa_full" else None for name in dropped}
    outcome = _plan(machine, model, dataclasses.replace(wishes, **{**changed, **instead}), engines, comforts=(1.0,))
    if isinstance(outcome, NoFit):
        return None
    values = {name: _value(outcome, name) for name in dict.fromkeys((*dropped, *instead))}
    if len(dropped) == 1 and dropped[0] in STEPS and not instead:
        values[dropped[0]] = _most(machine, model, wishes, engines, dropped[0]) or values[dropped[0]]
    # Some values are no wish that can be insisted on beside the others (cells in all, of streams): those are given up.
    for change in (values, {**changed, **instead}):
        followed = _plan(machine, model, dataclasses.replace(wishes, **change), engines)
        if not isinstance(followed, NoFit):
            return NearestFit(tuple(change.items()), followed.total_bytes, followed.bytes_of("gpu"))
    return None


def _most(machine: Machine, model: Model, wishes: Wishes, engines: Engines, name: str) -> int | None:
    """The largest number below the one asked for that fits beside the other wishes, in whole steps.

    A little memory is left: what is free changes from one look to the next, and the way out has to work on the second.
    """
    step, least = STEPS[name]
    asked: int = getattr(wishes, name)
    ceiling = min(asked, model.context) if name == "context" else asked

    def refuses(number: int) -> bool:
        change: dict[str, Any] = {name: number, "headroom": min(MOST_HEADROOM, wishes.headroom + SLACK)}
        return isinstance(_plan(machine, model, dataclasses.replace(wishes, **change), engines, (1.0,)), NoFit)

    if ceiling < asked and not refuses(ceiling):
        return ceiling
    numbers = range(-(-min(least, ceiling) // step) * step, ceiling, step)
    count = bisect.bisect_left(numbers, True, key=refuses)  # noqa: FBT003 - the first that is refused
    return numbers[count - 1] if count else None


def _value(outcome: AnyPlan, name: str) -> Any:
    """The value of a wish that the outcome stands for; None where it has none."""
    match name:
        case "backend":
            return outcome.engine
        case "parallel":
            return outcome.tensor * outcome.pipeline if isinstance(outcome, VllmPlan) else None
        case "tensor_parallel" | "pipeline_parallel" | "data_parallel":
            return getattr(outcome, name.removesuffix("_parallel"), None)
    return getattr(outcome, name, None)
