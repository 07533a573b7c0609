"""How vLLM would serve a model that embeds or ranks: whole texts, on one GPU or by its CPU build.

Encoders keep no cache, so that vLLM needs nothing of a GPU beyond weights and one step, and is given no more. A decoder
that pools its last token keeps a cache for a few of its longest texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from serving.hardware import Gpu, Machine
from serving.planner.llamacpp import budget, unservable, usable_variants
from serving.planner.llamacpp_pooling import PASS_TEXTS, TASKS, contexts, longest_text
from serving.planner.text import gib
from serving.planner.types import (
    KvDtype,
    MemoryKind,
    MemoryLine,
    NoFit,
    Rejected,
    VllmPlan,
    Wishes,
    host_bytes,
    name_of,
    sum_bytes,
)
from serving.planner.vllm import LEAST_CAPABILITY, LLAMACPP_ONLY, NO_GPU, STEP_TOKENS, equal_gpus
from serving.planner.vllm_cpu import PROCESSES_BYTES
from serving.planner.vllm_memory import (
    DRIVER_BYTES,
    FRONT_BYTES,
    GRAPH_BASE_BYTES,
    GRAPH_LAYER_BYTES,
    MIB,
    WORKER_BYTES,
    cache_bytes,
)
from serving.pooling import SERVED_ENCODERS
from serving.registry import Architecture, Model, Variant

Dtype = Literal["bfloat16", "float16", "float32"]
CACHED_TEXTS: Final = 4
"""Longest texts that a decoder's cache holds at a time."""
NO_CACHE_BYTES: Final = MIB
"""The CPU build is told a size in place of taking a share of all memory; an encoder puts nothing into it."""
CPU_HEADS: Final = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Widths of an attention head that the CPU build computes; it starts with others, and dies at the first text
(v1/attention/backends/cpu_attn.py)."""
_BYTES: Final[dict[Dtype, int]] = {"bfloat16": 2, "float16": 2, "float32": 4}
_STORED: Final = {"f32": 4, "f16": 2, "bf16": 2}
_CACHE: Final[dict[Dtype, KvDtype]] = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


@dataclass(frozen=True, slots=True)
class _Case:
    """One variant with one longest text, on a GPU or without."""

    model: Model
    architecture: Architecture
    variant: Variant
    gpu: Gpu | None
    context: int
    concurrency: int

    @property
    def dtype(self) -> Dtype:
        """Type of the activations: 16 bits on a GPU, as vLLM has it for such models; the file's own without one."""
        if self.variant.name == "bf16":
            old = self.gpu is not None and (self.gpu.compute_capability or LEAST_CAPABILITY) < (8, 0)
            return "float16" if old and self.gpu and self.gpu.compute_capability else "bfloat16"
        return "float16" if self.gpu is not None else "float32"

    @property
    def step_tokens(self) -> int:
        """Tokens of one step: an encoder's longest text at least."""
        return max(STEP_TOKENS, self.context) if self.architecture.encoder else STEP_TOKENS

    @property
    def cache(self) -> int:
        """Bytes of cache."""
        if self.architecture.encoder:
            return 0
        each = cache_bytes(self.architecture, self.context, _BYTES[self.dtype], 1, self.step_tokens)
        return each * min(CACHED_TEXTS, self.concurrency)

    @property
    def cached_tokens(self) -> int:
        """Tokens that the cache holds."""
        return 0 if self.architecture.encoder else self.context * min(CACHED_TEXTS, self.concurrency)

    def table(self) -> tuple[MemoryLine, ...]:
        """What it takes, on the GPU where there is one."""
        it, dtype = self.architecture, self.dtype
        where: MemoryKind = "gpu" if self.gpu is not None else "anonymous"
        stored = self.variant.size_bytes or 0
        weights = stored * _BYTES[dtype] // _STORED.get(self.variant.name, _BYTES[dtype])
        inner = it.feed_forward or 4 * it.embedding
        step = self.step_tokens * 3 * (it.embedding + inner) * _BYTES[dtype]
        graphs = GRAPH_BASE_BYTES + it.layers * GRAPH_LAYER_BYTES
        lines = [
            MemoryLine("weights", weights, where, f"{self.variant.name}, computed in {dtype}"),
            MemoryLine("activations", step, where, f"{self.step_tokens} tokens a step", as_used=self.gpu is None),
        ]
        if self.cache:
            lines.append(MemoryLine("KV cache", self.cache, where, f"{self.cached_tokens} tokens"))
        if self.gpu is None:
            formula = "API server, engine core and worker, a reserve"
            return (*lines, MemoryLine("processes", PROCESSES_BYTES, "anonymous", formula))
        return (
            *lines,
            MemoryLine("CUDA graphs", graphs, "gpu", f"{it.layers} layers × 10 MiB and 256 MiB, a reserve"),
            MemoryLine("driver", DRIVER_BYTES, "gpu", "CUDA context and libraries, a reserve"),
            MemoryLine("processes", FRONT_BYTES + WORKER_BYTES, "anonymous", "one front and one worker, a reserve"),
        )


def plan_vllm_pooling(machine: Machine, model: Model, wishes: Wishes, *, on_gpu: bool) -> VllmPlan | NoFit:
    """How vLLM would serve the model here, or why not; the ways out are the caller's to find.

    The first variant that fits, with the longest text that fits: the model's own context, or half of it, and so on.
    Of several GPUs it takes the one with the most room.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "vllm")
    gpus = equal_gpus(machine.gpus) if on_gpu else ()
    gpu = gpus[0] if gpus else None
    reason = NO_GPU if on_gpu and gpu is None else unservable(model, wishes, variants, "vLLM")
    reason = reason or _unwishable(machine, model, wishes, gpu)
    architecture = model.architecture
    if reason is not None or architecture is None:
        return NoFit(model.name, wishes.variant, reason or "", None, budget_bytes=limit, rejected=tuple(rejected))
    room = None if gpu is None else _room(gpu, wishes.headroom)
    smallest: _Case | None = None
    for variant in variants:
        unsaid = _unsaid(model, variant)
        if unsaid:
            rejected.append(Rejected(f"variant {variant.name}", unsaid))
            continue
        for context in contexts(model, architecture, wishes):
            case = _Case(model, architecture, variant, gpu, context, wishes.concurrency or PASS_TEXTS)
            lines = case.table()
            fits = limit is None or host_bytes(lines) <= limit
            if fits and (room is None or sum_bytes(lines, "gpu") <= room):
                return _build(machine, case, wishes, limit, tuple(rejected))
            if smallest is None or _size(lines) < _size(smallest.table()):
                smallest = case
        rejected.append(Rejected(f"variant {variant.name}", "does not fit into memory"))
    if smallest is None:
        reason = "; ".join(f"{one.what}: {one.why}" for one in rejected)
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=tuple(rejected))
    return _refusal(smallest, limit, room, tuple(rejected))


def _unwishable(machine: Machine, model: Model, wishes: Wishes, gpu: Gpu | None) -> str | None:
    """What was wished for, or what the model is, that vLLM cannot serve here, as a sentence."""
    it = model.architecture
    foreign = LLAMACPP_ONLY if gpu is not None else tuple(name for name in LLAMACPP_ONLY if name != "threads")
    asked = [f"`--{name.replace('_', '-')}`" for name in foreign if getattr(wishes, name)]
    capability = gpu.compute_capability if gpu is not None else None
    is_encoder = it is not None and it.encoder
    asked_for = (wishes.parallel, wishes.tensor_parallel, wishes.pipeline_parallel, wishes.data_parallel)
    several = [number or 1 for number in asked_for]
    objections = (
        (bool(asked), f"{' and '.join(asked)} can be asked of llama.cpp only"),
        (max(several) > 1, "it computes whole texts on one GPU; several share models that write"),
        (
            is_encoder and it is not None and it.family not in SERVED_ENCODERS,
            f"encoders of the family `{it.family if it else ''}` are not served yet",
        ),
        (model.kind == "reranker" and not is_encoder, "it ranks by what it would write, which is not served yet"),
        (
            capability is not None and capability < LEAST_CAPABILITY,
            f"vLLM needs compute capability {'.'.join(map(str, LEAST_CAPABILITY))} or higher",
        ),
        (
            gpu is None and bool(machine.cpu.isa) and not {"avx512f", "avx2"} & set(machine.cpu.isa),
            "vLLM's CPU build needs AVX2 or AVX-512",
        ),
        (
            gpu is None and it is not None and it.key_length not in CPU_HEADS,
            f"vLLM's CPU build has no attention for heads of {it.key_length if it else 0} numbers",
        ),
        (
            wishes.context is not None and it is not None and wishes.context > longest_text(model),
            f"its longest text has {longest_text(model)} tokens",
        ),
    )
    return next((sentence for holds, sentence in objections if holds), None)


def _unsaid(model: Model, variant: Variant) -> str | None:
    """What the variant's directory leaves unsaid, as a sentence: vLLM would take the first token's numbers then."""
    if model.kind == "reranker" or variant.path is None or variant.pooling is not None:
        return None
    return f"`{variant.path}` does not say how texts are pooled: it lacks modules.json, or 1_Pooling/config.json"


def _room(gpu: Gpu, headroom: float) -> int:
    total = gpu.memory_total_bytes or 0
    return min(total if gpu.memory_free_bytes is None else gpu.memory_free_bytes, int(total * (1 - headroom)))


def _size(lines: tuple[MemoryLine, ...]) -> int:
    return host_bytes(lines) + sum_bytes(lines, "gpu")


def _build(
    machine: Machine, case: _Case, wishes: Wishes, limit: int | None, rejected: tuple[Rejected, ...]
) -> VllmPlan:
    cpu, gpu, lines, variant = machine.cpu, case.gpu, case.table(), case.variant
    threads = wishes.threads or cpu.parallel
    share = 0.0
    if gpu is not None:
        share = min(math.ceil(1000 * sum_bytes(lines, "gpu") / (gpu.memory_total_bytes or 1)) / 1000, 1.0)
    return VllmPlan(
        model=case.model.name,
        variant=variant.name,
        weights=variant.path,
        weights_bytes=variant.size_bytes or 0,
        context=case.context,
        concurrency=case.concurrency,
        task=TASKS[case.model.kind],
        pooling="rank" if case.model.kind == "reranker" else variant.pooling,
        is_encoder=case.architecture.encoder,
        kv_tokens=case.cached_tokens,
        kv_dtype=_CACHE[case.dtype],
        gpus=() if gpu is None else (name_of(gpu),),
        cores=() if gpu is not None else cpu.cores[:threads] if threads <= len(cpu.cores) else cpu.usable,
        memory_utilisation=share,
        kv_bytes=None if gpu is not None else case.cache or NO_CACHE_BYTES,
        step_tokens=case.step_tokens,
        dtype=case.dtype,
        memory=lines,
        budget_bytes=limit,
        gpu_budget_bytes=None if gpu is None else _room(gpu, wishes.headroom),
        dummy=case.model.dummy,
        rejected=rejected,
        reasons=tuple(_reasons(machine, case, wishes)),
    )


def _reasons(machine: Machine, case: _Case, wishes: Wishes) -> Iterator[str]:
    yield from case.model.warnings
    if case.gpu is None:
        yield "vLLM's CPU build, as asked for; llama.cpp serves faster from the CPU"
    elif len(machine.gpus) > 1:
        yield f"one GPU of {len(machine.gpus)}: the others stay free"
    longest = longest_text(case.model)
    if wishes.context is None and case.context < longest:
        yield f"texts of {case.context} tokens at most, not the model's {longest}: `--context` takes more"
    yield "a text is computed whole, in one pass" if not case.cache else "a cache for a few of the longest texts"
    if case.variant.path is None:
        yield "its weights are not on this host; sizes are those of the published shape"


def _refusal(case: _Case, limit: int | None, room: int | None, rejected: tuple[Rejected, ...]) -> NoFit:
    lines = case.table()
    on_gpu, on_host = sum_bytes(lines, "gpu"), host_bytes(lines)
    if room is not None and on_gpu > room:
        short, reason = on_gpu - room, f"needs {gib(on_gpu)} on the GPU, {gib(room)} available there"
    else:
        short, reason = on_host - (limit or 0), f"needs {gib(on_host)} of main memory, {gib(limit or 0)} available"
    return NoFit(case.model.name, case.variant.name, reason, short, lines, limit, room, rejected=rejected)
