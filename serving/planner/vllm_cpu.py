"""How vLLM's CPU build would serve a model: the same server, from main memory.

It is for proving the vLLM path where there is no GPU, and taken only where it is asked for: llama.cpp serves from the
CPU faster and from smaller weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving.hardware import Machine
from serving.planner.llamacpp import LEAST_CONTEXT, budget, halved, unservable, usable_variants
from serving.planner.text import gib
from serving.planner.types import MemoryLine, NoFit, Rejected, VllmPlan, Wishes, host_bytes, most_parallel
from serving.planner.vllm_memory import BLOCK_TOKENS, GIB, MIB, adapters_line, cache_bytes
from serving.registry import Adapter, Architecture, Model, Variant

PROCESSES_BYTES: Final = 1536 * MIB
"""Private memory of API server, engine core and worker with PyTorch loaded and nothing served: a reserve."""
STEP_TOKENS: Final = 2048
SEQUENCES: Final = 16
CACHE_BYTES: Final = 4 * GIB
"""Cache beyond which a pool is shared rather than held for every sequence at its longest."""


@dataclass(frozen=True, slots=True)
class _Case:
    architecture: Architecture
    variant: Variant
    context: int
    concurrency: int
    adapters: tuple[Adapter, ...]

    @property
    def cache(self) -> int:
        """Bytes of cache: one sequence at its longest at least, all of them at most."""
        each = cache_bytes(self.architecture, self.context, 2, 1, STEP_TOKENS)
        return max(each, min(each * self.concurrency, CACHE_BYTES))

    @property
    def tokens(self) -> int:
        """Tokens that the cache holds."""
        each = cache_bytes(self.architecture, self.context, 2, 1, STEP_TOKENS)
        whole = -(-self.context // BLOCK_TOKENS) * BLOCK_TOKENS
        return self.cache * whole // each if each else self.context * self.concurrency

    def table(self) -> tuple[MemoryLine, ...]:
        """What it takes of main memory."""
        it = self.architecture
        inner = it.feed_forward or 4 * it.embedding
        step = STEP_TOKENS * 3 * (it.embedding + inner) * 2 + self.concurrency * (it.vocabulary or 0) * 12
        adapters = [adapters_line(it, self.adapters, "anonymous")] if self.adapters else []
        return (
            MemoryLine("weights", self.variant.size_bytes or 0, "anonymous", f"{self.variant.name}, read in"),
            MemoryLine("KV cache", self.cache, "anonymous", f"{self.tokens} tokens"),
            MemoryLine("activations", step, "anonymous", f"{STEP_TOKENS} tokens a step", as_used=True),
            MemoryLine("processes", PROCESSES_BYTES, "anonymous", "API server, engine core and worker, a reserve"),
            *adapters,
        )


def plan_vllm_cpu(machine: Machine, model: Model, wishes: Wishes) -> VllmPlan | NoFit:
    """How the CPU build would serve the model here, or why not; the ways out are the caller's to find.

    The first variant that it serves, as many sequences as wished for, and the longest context that fits.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "vllm")
    reason = unservable(model, wishes, variants, "vLLM") or _unwishable(machine, wishes)
    architecture = model.architecture
    if reason is not None or architecture is None:
        return NoFit(model.name, wishes.variant, reason or "", None, budget_bytes=limit, rejected=tuple(rejected))
    cases = [
        _Case(architecture, variants[0], context, concurrency, wishes.adapters)
        for concurrency in halved(wishes.concurrency, SEQUENCES, 1)
        for context in halved(wishes.context, model.context, min(LEAST_CONTEXT, model.context))
    ]
    case = next((case for case in cases if limit is None or host_bytes(case.table()) <= limit), None)
    if case is not None:
        return _build(machine, model, wishes, case, limit, tuple(rejected))
    lines = cases[-1].table()
    short = host_bytes(lines) - (limit or 0)
    reason = f"needs {gib(host_bytes(lines))} of main memory, {gib(limit or 0)} available"
    return NoFit(model.name, variants[0].name, reason, short, lines, limit, rejected=tuple(rejected))


def _unwishable(machine: Machine, wishes: Wishes) -> str | None:
    """What was wished for that the CPU build cannot do, as a sentence."""
    if wishes.kv_dtype not in (None, "bf16"):
        return f"vLLM's CPU build keeps no {wishes.kv_dtype} cache; it has bf16"
    if most_parallel(wishes) > 1:
        return (
            f"{most_parallel(wishes)} GPUs are asked for, and the vLLM that is installed here is built for processors"
        )
    if any((wishes.kv_layout, wishes.kv_tokens, wishes.load_mode, wishes.gpu_layers)):
        return "a KV layout, cells, layers on the GPU and load mode can be wished of llama.cpp only"
    if machine.cpu.isa and not {"avx512f", "avx2"} & set(machine.cpu.isa):
        return "vLLM's CPU build needs AVX2 or AVX-512"
    return None


def _build(
    machine: Machine, model: Model, wishes: Wishes, case: _Case, limit: int | None, rejected: tuple[Rejected, ...]
) -> VllmPlan:
    cpu = machine.cpu
    threads = wishes.threads or cpu.parallel
    reasons = ["vLLM's CPU build, as asked for; llama.cpp serves faster from the CPU"]
    if wishes.context is None and case.context < model.context:
        reasons.append(f"context {case.context}, not the model's {model.context}: more does not fit")
    return VllmPlan(
        model=model.name,
        variant=case.variant.name,
        weights=case.variant.path,
        weights_bytes=case.variant.size_bytes or 0,
        context=case.context,
        concurrency=case.concurrency,
        kv_tokens=case.tokens,
        kv_dtype="bf16",
        gpus=(),
        cores=cpu.cores[:threads] if threads <= len(cpu.cores) else cpu.usable,
        memory_utilisation=0.0,
        kv_bytes=case.cache,
        step_tokens=wishes.step_tokens or STEP_TOKENS,
        dtype="bfloat16",
        adapters=wishes.adapters,
        memory=case.table(),
        budget_bytes=limit,
        dummy=model.dummy,
        rejected=rejected,
        reasons=tuple(reasons),
    )
