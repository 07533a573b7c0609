"""How vLLM would serve a model: from one GPU, or from several equal ones that share each layer (tensor parallelism).

vLLM takes a share of each GPU's memory (`gpu-memory-utilization`), loads its part of the weights, runs one step of the
largest size to see what activations take, and gives all that is left to the KV cache; it refuses to start where that
does not hold one sequence of the longest context. The table foretells those numbers. What cannot be derived from the
model is a reserve, and called so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from serving.hardware import Gpu, Machine
from serving.planner.llamacpp import LEAST_CONTEXT, POOL_SHARE, budget, halved, unservable, usable_variants
from serving.planner.text import gib
from serving.planner.types import MemoryLine, NoFit, Rejected, VllmPlan, Wishes, host_bytes, name_of, sum_bytes
from serving.registry import Architecture, Model, Variant
from serving.registry.sizes import shard_bytes

GIB: Final = 1024**3
MIB: Final = 1024**2

MOST_SEQUENCES: Final = 256
"""Sequences computed at the same time, where the cache holds as many; vLLM's own default."""
COMFORTABLE_CONTEXT: Final = 32768
"""Context for which the planner takes more GPUs rather than less context."""
COMFORTABLE_SEQUENCES: Final = 4
"""Sequences of that context that the cache should hold, before GPUs are spared."""
MOST_PARALLEL: Final = 64
STEP_TOKENS: Final = 2048
LARGE_STEP_TOKENS: Final = 8192
"""Tokens of one step: vLLM's own defaults for GPUs below and from 70 GiB on."""
LARGE_GPU: Final = 70 * GIB
DRIVER_BYTES: Final = 600 * MIB
"""CUDA context, kernels and cuBLAS workspaces of one process on one GPU: a reserve."""
COLLECTIVES_BYTES: Final = 500 * MIB
"""NCCL's and the custom all-reduce's buffers where several GPUs take part: a reserve."""
GRAPH_BASE_BYTES: Final = 256 * MIB
GRAPH_LAYER_BYTES: Final = 10 * MIB
"""CUDA graphs of the usual batch sizes: a reserve that grows with the layers."""
FRONT_BYTES: Final = 3 * GIB
WORKER_BYTES: Final = 4 * GIB
"""Main memory of vLLM's API process and of each worker (Python, torch, pinned buffers): a reserve."""
BLOCK_TOKENS: Final = 16
LOGIT_BYTES: Final = 12
"""Per sequence and vocabulary entry while choosing tokens: logits in 32 bits, their sorted copy and their indices."""

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


@dataclass(frozen=True, slots=True)
class _Case:
    """One variant on some of the machine's GPUs."""

    model: Model
    architecture: Architecture
    variant: Variant
    gpus: tuple[Gpu, ...]
    wishes: Wishes
    host_limit: int | None
    utilisation: float
    limit: int
    """Bytes that vLLM may take of each GPU."""
    weights: int
    step_tokens: int

    @property
    def parallel(self) -> int:
        """GPUs that share the model."""
        return len(self.gpus)

    def fixed(self) -> tuple[MemoryLine, ...]:
        """The table without the cache."""
        it, count = self.architecture, self.parallel
        graphs = GRAPH_BASE_BYTES + it.layers * GRAPH_LAYER_BYTES
        share = f", one of {count} shares" if count > 1 else ""
        lines = [
            MemoryLine("weights", self.weights, "gpu", f"{self.variant.name}{share}"),
            _activations(it, self.step_tokens, count),
            MemoryLine("CUDA graphs", graphs, "gpu", f"{it.layers} layers × 10 MiB and 256 MiB, a reserve"),
            MemoryLine("driver", DRIVER_BYTES, "gpu", "CUDA context and libraries, a reserve"),
        ]
        if count > 1:
            lines.append(MemoryLine("collectives", COLLECTIVES_BYTES, "gpu", "NCCL and all-reduce buffers, a reserve"))
        formula = f"one front and {count} worker{'s' if count > 1 else ''}, a reserve"
        lines.append(MemoryLine("processes", FRONT_BYTES + count * WORKER_BYTES, "anonymous", formula))
        return tuple(lines)

    def sequence_bytes(self, context: int) -> int:
        """KV cache that one sequence of this length takes on each GPU."""
        return cache_bytes(self.architecture, context, self.number_bytes, self.parallel, self.step_tokens)

    @property
    def number_bytes(self) -> int:
        """Bytes of a number in the cache."""
        return 1 if self.wishes.kv_dtype == "fp8" else 2

    def room(self) -> int:
        """Bytes of each GPU that are left for the cache; negative where the rest alone is too much."""
        return self.limit - sum_bytes(self.fixed(), "gpu")

    def least(self, context: int, concurrency: int) -> int:
        """Bytes of cache below which this is not worth starting: one whole sequence, and a beginning of the others."""
        others = min(context, POOL_SHARE)
        return self.sequence_bytes(context) + (concurrency - 1) * self.sequence_bytes(others)

    def fits(self, context: int, concurrency: int) -> bool:
        """Whether GPUs and main memory can hold it."""
        on_host = host_bytes(self.fixed())
        return (self.host_limit is None or on_host <= self.host_limit) and self.least(
            context, concurrency
        ) <= self.room()


def plan_vllm(machine: Machine, model: Model, wishes: Wishes) -> VllmPlan | NoFit:
    """How vLLM would serve the model here, or why not; the ways out are the caller's to find.

    The first variant that fits is taken; for it, the fewest GPUs whose cache holds a comfortable context several
    times, else as much context as all of them hold.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "vllm")
    gpus = equal_gpus(machine.gpus)
    reason = unservable(model, wishes, variants, "vLLM") if gpus else NO_GPU
    reason = reason or _unwishable(model, wishes, gpus)
    if reason is not None or model.architecture is None:
        return NoFit(model.name, wishes.variant, reason or "", None, budget_bytes=limit, rejected=tuple(rejected))
    refused: list[_Case] = []
    for variant in variants:
        lacking = _lacking(model.architecture, variant, gpus[0])
        if lacking:
            rejected.append(Rejected(f"variant {variant.name}", lacking))
            continue
        counts = _parallel(model.architecture, len(gpus), wishes)
        cases = [
            case
            for count, step in itertools.product(counts, _steps(gpus))
            if (case := _case(model, variant, gpus[:count], wishes, limit, step)) is not None
        ]
        for case, context, concurrency in _candidates(cases, model, wishes):
            if case.fits(context, concurrency):
                return _build(case, context, concurrency, len(gpus), tuple(rejected))
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
    best = sorted(largest, key=lambda gpu: (-_free(gpu), gpu.index))
    return tuple(best[:1] if best[0].slice is not None else best)


def _together(group: list[Gpu]) -> int:
    sizes = [gpu.memory_total_bytes or 0 for gpu in group]
    return max(sizes) if group[0].slice is not None else sum(sizes)


def cache_bytes(architecture: Architecture, tokens: int, number_bytes: int, parallel: int, step_tokens: int) -> int:
    """Bytes of KV cache that one sequence of `tokens` takes on each of `parallel` GPUs.

    Key and value heads are split as far as there are enough of them; a latent (MLA) is whole on every GPU. Windowed
    layers keep their window and what one step adds.
    """
    blocks = -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS
    window = architecture.sliding_window or tokens
    short = min(blocks, -(-(window + step_tokens) // BLOCK_TOKENS) * BLOCK_TOKENS)
    total = 0
    for layer in range(architecture.layers):
        windowed = layer < len(architecture.windowed) and architecture.windowed[layer]
        total += (short if windowed else blocks) * _width(architecture, layer, parallel)
    return total * number_bytes


def _width(it: Architecture, layer: int, parallel: int) -> int:
    if it.latent:
        return it.key_length
    heads = it.kv_heads[layer]
    return -(-heads // parallel) * (it.key_length + it.value_length)


def _activations(it: Architecture, tokens: int, parallel: int) -> MemoryLine:
    """The widest moment of a step: the feed-forward's two inputs and their product, beside input and residual.

    Of experts each token has its own copy of the input. The logits come on top, for all sequences at once.
    """
    inner = it.feed_forward or 4 * it.embedding
    width = 3 * it.embedding + 3 * inner / parallel
    if it.experts_used:
        expert = it.expert_feed_forward or inner
        width = max(width, 3 * it.embedding + it.experts_used * (it.embedding + 3 * expert / parallel))
    vocabulary = it.vocabulary or 0
    size = math.ceil(tokens * width * 2) + MOST_SEQUENCES * vocabulary * LOGIT_BYTES
    formula = f"{tokens} tokens × {math.ceil(width)} numbers × 2 bytes, {MOST_SEQUENCES} × {vocabulary} logits"
    return MemoryLine("activations", size, "gpu", formula)


def _steps(gpus: tuple[Gpu, ...]) -> tuple[int, ...]:
    """Sizes of a step to try, best first."""
    large = min(gpu.memory_total_bytes or 0 for gpu in gpus) >= LARGE_GPU
    return (LARGE_STEP_TOKENS, STEP_TOKENS) if large else (STEP_TOKENS,)


def _case(
    model: Model, variant: Variant, gpus: tuple[Gpu, ...], wishes: Wishes, host_limit: int | None, step_tokens: int
) -> _Case | None:
    architecture = model.architecture
    weights = shard_bytes(model, variant.name, len(gpus))
    if weights is None and variant.size_bytes is not None:
        weights = -(-variant.size_bytes // len(gpus))
    if architecture is None or weights is None or not gpus:
        return None
    total = min(gpu.memory_total_bytes or 0 for gpu in gpus)
    # vLLM refuses to start where its share of the whole is not free.
    share = min(1 - wishes.headroom, *(_free(gpu) / (gpu.memory_total_bytes or 1) for gpu in gpus))
    utilisation = math.floor(share * 1000) / 1000
    limit = int(total * utilisation)
    return _Case(model, architecture, variant, gpus, wishes, host_limit, utilisation, limit, weights, step_tokens)


def _parallel(it: Architecture, gpus: int, wishes: Wishes) -> list[int]:
    """Numbers of GPUs that divide the heads, fewest first."""
    counts = [wishes.parallel] if wishes.parallel is not None else _powers(gpus)
    return [count for count in counts if count <= gpus and _divides(it, count)]


def _powers(most: int) -> list[int]:
    return [1 << power for power in range(MOST_PARALLEL.bit_length()) if 1 << power <= most]


def _divides(it: Architecture, count: int) -> bool:
    inner = it.expert_feed_forward or it.feed_forward or 0
    # DeepSeek's weights come in 8-bit blocks of 128 by 128, which a share must not cut.
    if it.heads % count or (it.latent and inner % (128 * count)):
        return False
    if it.latent:
        return True
    return all(heads % count == 0 or count % heads == 0 for heads in set(it.kv_heads) if heads)


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
    parallel = wishes.parallel or 1
    foreign = [f"`--{name.replace('_', '-')}`" for name in LLAMACPP_ONLY if getattr(wishes, name)]
    shares = model.architecture is None or _divides(model.architecture, parallel)
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
        (parallel > len(gpus), f"{parallel} GPUs are asked for, {len(gpus)} equal ones are here"),
        (not shares, f"{parallel} GPUs cannot share its heads equally"),
    )
    return next((sentence for holds, sentence in objections if holds), None)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _candidates(cases: list[_Case], model: Model, wishes: Wishes) -> Iterator[tuple[_Case, int, int]]:
    """Ways to serve the variant, best first: comfortable on few GPUs, then as much context as any of them holds."""
    full = wishes.context or model.context
    comfortable = min(full, COMFORTABLE_CONTEXT)
    together = wishes.concurrency or 1
    for case in cases:
        wanted = COMFORTABLE_SEQUENCES * case.sequence_bytes(comfortable)
        if wanted <= case.room():
            for context in halved(None, full, comfortable):
                yield case, context, together
    for context in (full,) if wishes.context else halved(None, full, min(LEAST_CONTEXT, full)):
        yield from itertools.product(cases, (context,), (together,))


def _build(case: _Case, context: int, concurrency: int, available: int, rejected: tuple[Rejected, ...]) -> VllmPlan:
    wishes = case.wishes
    room, each = case.room(), case.sequence_bytes(context)
    tokens = room * context // each if each else context
    dtype = _dtype(case.architecture, case.variant, case.gpus[0])
    formula = f"all that is left: {tokens} tokens × {each // context} bytes"
    cache = MemoryLine("KV cache", room, "gpu", formula)
    kv_dtype = wishes.kv_dtype or ("bf16" if dtype == "bfloat16" else "f16")
    return VllmPlan(
        model=case.model.name,
        variant=case.variant.name,
        weights=case.variant.path,
        weights_bytes=case.variant.size_bytes or case.weights * case.parallel,
        context=context,
        concurrency=wishes.concurrency or max(concurrency, min(MOST_SEQUENCES, tokens // min(context, POOL_SHARE))),
        kv_tokens=tokens,
        kv_dtype=kv_dtype,
        gpus=tuple(map(name_of, case.gpus)),
        memory_utilisation=case.utilisation,
        step_tokens=case.step_tokens,
        dtype=dtype,
        memory=(*case.fixed(), cache),
        budget_bytes=case.host_limit,
        gpu_budget_bytes=case.limit,
        dummy=case.model.dummy,
        rejected=rejected,
        reasons=tuple(_reasons(case, context, available)),
    )


def _reasons(case: _Case, context: int, available: int) -> Iterator[str]:
    wishes, model = case.wishes, case.model
    yield from model.warnings
    if case.parallel > 1 and wishes.parallel is None:
        yield f"{case.parallel} GPUs share each layer: fewer do not hold it, or too little context"
    if case.parallel < available and wishes.parallel is None:
        spare = available - case.parallel
        yield f"{spare} more GPU{'s' if spare > 1 else ''} of this kind stay{'' if spare > 1 else 's'} free"
    if wishes.context is None and context < model.context:
        yield f"context {context}, not the model's {model.context}: more does not fit"
    if case.utilisation < 1 - wishes.headroom - 0.001:
        yield f"{case.utilisation:.0%} of each GPU's memory: the rest is taken by others"
    if case.variant.path is None:
        yield "its weights are not on this host; sizes are those of the published shape"
    dtype = _dtype(case.architecture, case.variant, case.gpus[0])
    if case.variant.name == "bf16" and dtype == "float16":
        yield "computed in float16: this GPU has no brain floats"


def _refusal(
    model: Model,
    wishes: Wishes,
    refused: list[_Case],
    rejected: tuple[Rejected, ...],
    limit: int | None,
) -> NoFit:
    if not refused:
        reason = "; ".join(f"{one.what}: {one.why}" for one in rejected) or "no number of GPUs here divides its heads"
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=rejected)
    context = wishes.context or min(LEAST_CONTEXT, model.context)
    concurrency = wishes.concurrency or 1
    best = min(refused, key=lambda case: case.least(context, concurrency) - case.room())
    cache = MemoryLine(
        "KV cache", best.least(context, concurrency), "gpu", f"{concurrency} at a time, {context} tokens at least"
    )
    lines = (*best.fixed(), cache)
    on_gpu, on_host = sum_bytes(lines, "gpu"), host_bytes(lines)
    each = "the GPU" if best.parallel == 1 else f"each of {best.parallel} GPUs"
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


def _enough(model: Model, wishes: Wishes, refused: list[_Case], context: int, concurrency: int) -> str | None:
    """How many GPUs of this kind would hold it."""
    if wishes.parallel is not None:
        return None
    kinds = {case.variant.name: case for case in refused}
    for count in _powers(MOST_PARALLEL):
        for case in kinds.values():
            gpu = case.gpus[0]
            if not _divides(case.architecture, count):
                continue
            bigger = _case(model, case.variant, (gpu,) * count, wishes, None, STEP_TOKENS)
            if bigger is not None and bigger.fits(context, concurrency):
                return f"{count} × {gpu.name or 'this GPU'}"
    return None


def _free(gpu: Gpu) -> int:
    """Free memory; where it could not be read, all of it."""
    return gpu.memory_free_bytes if gpu.memory_free_bytes is not None else gpu.memory_total_bytes or 0
