"""How vLLM would serve a model: from one GPU, or from several equal ones, which of the layouts, and in what shape.

What each takes of the memory is in `vllm_memory`, which layouts there are in `vllm_layout`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from serving.hardware import Gpu, Machine
from serving.planner.llamacpp import LEAST_CONTEXT, POOL_SHARE, budget, halved, unservable, usable_variants
from serving.planner.text import counted, gib
from serving.planner.types import MemoryLine, NoFit, Rejected, VllmPlan, Wishes, host_bytes, name_of, sum_bytes
from serving.planner.vllm_layout import MOST_PARALLEL, Layout, are_linked, cannot_share, plan_layouts, why_no_layout
from serving.planner.vllm_memory import GIB, MOST_SEQUENCES, Case, free_bytes, plan_case
from serving.registry import Architecture, Model, Variant

COMFORTABLE_CONTEXT: Final = 32768
"""Context for which the planner takes more GPUs rather than less context."""
COMFORTABLE_SEQUENCES: Final = 4
"""Sequences of that context that the cache should hold, before GPUs are spared."""
STEP_TOKENS: Final = 2048
LARGE_STEP_TOKENS: Final = 8192
"""Tokens of one step: vLLM's own defaults for GPUs below and from 70 GiB on."""
LARGE_GPU: Final = 70 * GIB

LEAST_CAPABILITY: Final = (7, 5)
"""Compute capability below which vLLM has no kernels."""
FP8_CAPABILITY: Final = (8, 9)
NO_GPU: Final = "vLLM needs an NVIDIA GPU, and none can be used here"
NEEDS: Final[dict[str, tuple[tuple[int, int], str]]] = {
    "bf16": ((8, 0), "16-bit brain floats"),
    "mxfp4-hf": ((8, 0), "its 4-bit kernels"),
    "fp8": (FP8_CAPABILITY, "8-bit floats"),
}
"""Variants, the compute capability they need, and what for."""
LLAMACPP_ONLY: Final = ("kv_layout", "kv_tokens", "load_mode", "threads", "gpu_layers")
"""Wishes that mean nothing to vLLM."""
NO_FLOAT16: Final = frozenset({"gemma2", "gemma3"})
"""Families whose activations overflow 16-bit floats."""


def plan_vllm(machine: Machine, model: Model, wishes: Wishes) -> VllmPlan | NoFit:
    """How vLLM would serve the model here, or why not; the ways out are the caller's to find.

    The first variant that fits is taken; for it, the first layout whose cache holds a comfortable context several
    times, else as much context as any of them holds.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "vllm")
    gpus = equal_gpus(machine.gpus)
    reason = unservable(model, wishes, variants, "vLLM") if gpus else NO_GPU
    reason = reason or _unwishable(model, wishes, gpus)
    if reason is not None or model.architecture is None:
        return NoFit(model.name, wishes.variant, reason or "", None, budget_bytes=limit, rejected=tuple(rejected))
    refused: list[Case] = []
    for variant in variants:
        lacking = _lacking(model.architecture, variant, gpus[0])
        if lacking:
            rejected.append(Rejected(f"variant {variant.name}", lacking))
            continue
        layouts = plan_layouts(model.architecture, gpus, wishes)
        cases = [
            case
            for layout, step in itertools.product(layouts, _steps(gpus, wishes))
            if (case := plan_case(model, variant, gpus[: layout.gpus], layout, wishes, limit, step)) is not None
        ]
        for case, context, concurrency in _candidates(cases, model, wishes):
            if case.fits(context, concurrency):
                return _build(case, context, concurrency, gpus, tuple(rejected))
        refused += cases
        rejected.append(Rejected(f"variant {variant.name}", "does not fit into the GPUs' memory"))
    return _refusal(model, wishes, refused, tuple(rejected), limit)


def equal_gpus(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The largest group of GPUs of one kind and size, those with the most free memory first.

    Slices of a GPU cannot compute together: of them, the one with the most room.
    """
    groups: dict[tuple[str | None, int], list[Gpu]] = {}
    for gpu in gpus:
        if gpu.memory_total_bytes:
            groups.setdefault((gpu.name, gpu.memory_total_bytes), []).append(gpu)
    if not groups:
        return ()
    largest = max(groups.values(), key=_together)
    best = sorted(largest, key=lambda gpu: (-free_bytes(gpu), gpu.index))
    return tuple(best[:1] if best[0].slice is not None else best)


def _together(group: list[Gpu]) -> int:
    sizes = [gpu.memory_total_bytes or 0 for gpu in group]
    return max(sizes) if group[0].slice is not None else sum(sizes)


def _steps(gpus: tuple[Gpu, ...], wishes: Wishes) -> tuple[int, ...]:
    """Sizes of a step to try, best first."""
    if wishes.step_tokens is not None:
        return (wishes.step_tokens,)
    large = min(gpu.memory_total_bytes or 0 for gpu in gpus) >= LARGE_GPU
    return (LARGE_STEP_TOKENS, STEP_TOKENS) if large else (STEP_TOKENS,)


def _lacking(it: Architecture, variant: Variant, gpu: Gpu) -> str | None:
    """What this kind of GPU lacks for the variant, as a sentence; an unknown capability lacks nothing."""
    if gpu.compute_capability is None or _dtype(it, variant, gpu) == "float16":
        return None
    least, what = NEEDS.get(variant.name, (LEAST_CAPABILITY, "its kernels"))
    if gpu.compute_capability >= least:
        return None
    have = _dotted(gpu.compute_capability)
    return f"{what} need compute capability {_dotted(least)}; {gpu.name or 'this GPU'} has {have}"


def _dtype(it: Architecture, variant: Variant, gpu: Gpu) -> Literal["bfloat16", "float16"]:
    """Type of the activations: brain floats where the GPU has them, else plain 16 bits where the model bears it."""
    if variant.name == "f16":
        return "float16"
    old = gpu.compute_capability is not None and gpu.compute_capability < (8, 0)
    return "float16" if old and variant.name == "bf16" and it.family not in NO_FLOAT16 else "bfloat16"


def _unwishable(model: Model, wishes: Wishes, gpus: tuple[Gpu, ...]) -> str | None:
    """What was wished for that vLLM cannot do on these GPUs, as a sentence."""
    capability = gpus[0].compute_capability
    have = f"{gpus[0].name or 'this GPU'} has {_dotted(capability)}" if capability else ""
    foreign = [f"`--{name.replace('_', '-')}`" for name in LLAMACPP_ONLY if getattr(wishes, name)]
    objections = (
        (
            capability is not None and capability < LEAST_CAPABILITY,
            f"vLLM needs compute capability {_dotted(LEAST_CAPABILITY)} or higher; {have}",
        ),
        (
            wishes.kv_dtype in ("f32", "q8_0"),
            f"vLLM keeps no {wishes.kv_dtype} cache; it has f16, bf16 and fp8",
        ),
        (
            wishes.kv_dtype == "fp8" and capability is not None and capability < FP8_CAPABILITY,
            f"an fp8 cache needs compute capability {_dotted(FP8_CAPABILITY)}; {have}",
        ),
        (
            bool(foreign),
            f"{' and '.join(foreign)} can be asked of llama.cpp only",
        ),
    )
    layout = why_no_layout(model.architecture, len(gpus), wishes) if model.architecture else None
    return next((sentence for holds, sentence in objections if holds), layout)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _candidates(cases: list[Case], model: Model, wishes: Wishes) -> Iterator[tuple[Case, int, int]]:
    """Ways to serve the variant, best first: comfortable on few GPUs, then as much context as any of them holds."""
    full = wishes.context or model.context
    comfortable = min(full, COMFORTABLE_CONTEXT)
    together = wishes.concurrency or 1
    for case in cases:
        stages = range(len(case.stages))
        if all(COMFORTABLE_SEQUENCES * case.sequence_bytes(comfortable, at) <= case.room(at) for at in stages):
            for context in halved(None, full, comfortable):
                yield case, context, together
    for context in (full,) if wishes.context else halved(None, full, min(LEAST_CONTEXT, full)):
        yield from itertools.product(cases, (context,), (together,))


def _build(
    case: Case, context: int, concurrency: int, available: tuple[Gpu, ...], rejected: tuple[Rejected, ...]
) -> VllmPlan:
    wishes, layout = case.wishes, case.layout
    at = case.tightest(context)
    tokens, each = case.tokens(context), case.sequence_bytes(context, at)
    dtype = _dtype(case.architecture, case.variant, case.gpus[0])
    formula = f"all that is left: {tokens} tokens × {each // context} bytes"
    if layout.data > 1:
        formula += f"; {layout.data} copies hold {tokens * layout.data} together"
    cache = MemoryLine("KV cache", case.room(at), "gpu", formula)
    kv_dtype = wishes.kv_dtype or ("bf16" if dtype == "bfloat16" else "f16")
    of_each = max(-(-concurrency // layout.data), min(MOST_SEQUENCES, tokens // min(context, POOL_SHARE)))
    return VllmPlan(
        model=case.model.name,
        variant=case.variant.name,
        weights=case.variant.path,
        weights_bytes=case.variant.size_bytes or case.stages[at][1] * layout.copy,
        context=context,
        concurrency=wishes.concurrency or of_each * layout.data,
        kv_tokens=tokens * layout.data,
        kv_dtype=kv_dtype,
        gpus=tuple(map(name_of, case.gpus)),
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        adapters=wishes.adapters,
        memory_utilisation=case.utilisation,
        step_tokens=case.step_tokens,
        dtype=dtype,
        memory=(*case.fixed(at), cache),
        budget_bytes=case.host_limit,
        gpu_budget_bytes=case.limit,
        dummy=case.model.dummy,
        rejected=(*rejected, *_other_layouts(case, available)),
        reasons=tuple(_reasons(case, context, len(available))),
    )


def _reasons(case: Case, context: int, available: int) -> Iterator[str]:
    wishes, model, layout = case.wishes, case.model, case.layout
    asked = wishes.parallel or wishes.tensor_parallel or wishes.pipeline_parallel
    yield from model.warnings
    if layout.tensor > 1 and layout.pipeline == 1 and not asked:
        yield f"{layout.tensor} GPUs share each layer: fewer do not hold it, or too little context"
    if layout.pipeline > 1:
        each = f" of {counted(layout.tensor, 'GPU')}" if layout.tensor > 1 else ""
        held = case.stages[case.tightest(context)][0]
        yield f"{layout.pipeline} stages{each} share the layers; the fullest has {held}"
    if layout.data > 1:
        spread = ", which share its experts" if case.architecture.experts else ""
        yield f"{layout.data} copies{spread}, each with its own cache: a prefix is known to the copy that computed it"
    if layout.gpus < available and not asked:
        spare = available - layout.gpus
        more = "" if wishes.data_parallel or spare < layout.copy else "; `--data-parallel` makes copies on them"
        yield f"{spare} more GPU{'s' if spare > 1 else ''} of this kind stay{'' if spare > 1 else 's'} free{more}"
    if wishes.context is None and context < model.context:
        yield f"context {context}, not the model's {model.context}: more does not fit"
    if case.utilisation < 1 - wishes.headroom - 0.001:
        yield f"{case.utilisation:.0%} of each GPU's memory: the rest is taken by others"
    if case.variant.path is None:
        yield "its weights are not on this host; sizes are those of the published shape"
    dtype = _dtype(case.architecture, case.variant, case.gpus[0])
    if case.variant.name == "bf16" and dtype == "float16":
        yield "computed in float16: this GPU has no brain floats"


def _other_layouts(case: Case, available: tuple[Gpu, ...]) -> Iterator[Rejected]:
    """What else could have been done with these GPUs, and why it was not."""
    wishes, layout, it = case.wishes, case.layout, case.architecture
    if wishes.parallel or wishes.tensor_parallel or wishes.pipeline_parallel:
        return
    if layout.tensor > 1 and not are_linked(case.gpus, layout.tensor):
        why = "no NVLink joins these GPUs: it would serve more under load, and a token would take as long as on one GPU"
        yield Rejected(f"pipeline {layout.tensor * layout.pipeline}", why)
    for count in (layout.copy, len(available)) if layout.pipeline > 1 else (len(available),):
        why_not = cannot_share(it, count)
        if why_not and count > layout.tensor:
            yield Rejected(str(Layout(count)), why_not)
            return


def _refusal(
    model: Model,
    wishes: Wishes,
    refused: list[Case],
    rejected: tuple[Rejected, ...],
    limit: int | None,
) -> NoFit:
    if not refused:
        reason = "; ".join(f"{one.what}: {one.why}" for one in rejected) or "no number of GPUs here divides its heads"
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=rejected)
    context = wishes.context or min(LEAST_CONTEXT, model.context)
    concurrency = wishes.concurrency or 1
    best = min(refused, key=lambda case: _shortage(case, context, concurrency))
    at = best.fullest(context, concurrency)
    least = best.least(context, concurrency, at)
    cache = MemoryLine("KV cache", least, "gpu", f"{concurrency} at a time, {context} tokens at least")
    lines = (*best.fixed(at), cache)
    on_gpu, on_host = sum_bytes(lines, "gpu"), host_bytes(lines)
    each = "the GPU" if best.layout.gpus == 1 else f"each of {best.layout.gpus} GPUs"
    if best.layout.pipeline > 1:
        each = f"the fullest of {best.layout.gpus} GPUs"
    if on_gpu > best.limit:
        short, reason = on_gpu - best.limit, f"needs {gib(on_gpu)} on {each}, {gib(best.limit)} available there"
    else:
        short, reason = on_host - (limit or 0), f"needs {gib(on_host)} of main memory, {gib(limit or 0)} available"
    return NoFit(
        model.name,
        best.variant.name,
        reason,
        short,
        lines,
        limit,
        best.limit,
        enough=_enough(model, wishes, refused, context, concurrency),
        rejected=rejected,
    )


def _shortage(case: Case, context: int, concurrency: int) -> int:
    at = case.fullest(context, concurrency)
    return case.least(context, concurrency, at) - case.room(at)


def _enough(model: Model, wishes: Wishes, refused: list[Case], context: int, concurrency: int) -> str | None:
    """How many GPUs of this kind would hold it."""
    if wishes.parallel or wishes.tensor_parallel or wishes.pipeline_parallel:
        return None
    kinds = {case.variant.name: case for case in refused}
    for count in _powers(MOST_PARALLEL):
        for case in kinds.values():
            gpu, data = case.gpus[0], wishes.data_parallel or 1
            if cannot_share(case.architecture, count, data):
                continue
            layout = Layout(count, 1, data)
            bigger = plan_case(model, case.variant, (gpu,) * layout.gpus, layout, wishes, None, STEP_TOKENS)
            if bigger is not None and bigger.fits(context, concurrency):
                return f"{layout.gpus} × {gpu.name or 'this GPU'}"
    return None


def _powers(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]
