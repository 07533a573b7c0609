"""How llama.cpp would serve a model: from main memory and, where the installed build can, with layers on a GPU."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from serving.hardware import Cpu, Gpu, Machine
from serving.planner.llamacpp_memory import Shape, kv_bytes_per_token, pad, plan_memory, repacked_bytes
from serving.planner.text import counted, gib
from serving.planner.types import (
    Engine,
    Engines,
    KvLayout,
    LlamacppPlan,
    LoadMode,
    MemoryLine,
    NoFit,
    Rejected,
    WaitPolicy,
    Wishes,
    host_bytes,
    most_parallel,
    name_of,
    sum_bytes,
)
from serving.registry import Architecture, Model, Variant

USEFUL_CONTEXT: Final = 8192
"""Tokens per sequence below which the planner first changes the layout, then gives up concurrency."""
LEAST_CONTEXT: Final = 512
"""Tokens per sequence that the planner does not go below by itself."""
COMFORT: Final = 0.5
"""Share of what is left after the weights that a cache takes at first; all of it only where that serves too little."""
POOL_SHARE: Final = 512
"""Tokens per sequence that a unified pool holds at least, beyond one sequence's whole context."""
SNAPSHOT_CONTEXTS: Final = 4
"""Whole contexts that the prefix snapshots hold at most; more would be a second cache."""
FEW_TENSORS: Final = frozenset({"phi3"})
"""Families whose graph outgrows llama.cpp's bound on nodes (eight for each tensor) where several streams keep a
quantised cache: it ends the process (llama-context.cpp: graph_max_nodes; seen with 0.3.36)."""
SMALL_UBATCHES: Final = (128, 32)
"""Tokens per pass that are tried where nothing else makes a plan fit."""


def decide_wait_policy(cpu: Cpu) -> WaitPolicy:
    """How idle compute threads wait.

    Sleeping at every barrier costs a third of the speed, and spinning for long collapses as soon as anything else
    runs on the same cores, the gateway included (decision 0004). Spinning for a moment and then sleeping keeps nearly
    all of the one without the other; under a CPU quota every spin is time taken from the computation.
    """
    return "passive" if cpu.quota is not None and cpu.quota < len(cpu.cores) else "brief"


def decide_load_mode(variant: Variant, isa: tuple[str, ...]) -> LoadMode:
    """Whether to map the weights or to read them in.

    Mapped weights are shared and start fast. Where llama.cpp makes its own copy of most of them, the mapping stays
    resident beside the copy to no use, so they are read in.
    """
    repacked = repacked_bytes(variant.tensors, isa, tied_output=variant.tied_output)
    return "none" if 2 * repacked > (variant.size_bytes or 0) else "mmap"


def budget(machine: Machine, headroom: float) -> int | None:
    """Bytes that a plan may take: what this process can still have, less the headroom; None if that is not known."""
    usable = machine.memory.usable_bytes
    return None if usable is None else int(usable * (1 - headroom))


@dataclass(frozen=True, slots=True)
class _Case:
    """One variant on one machine under one set of wishes."""

    cpu: Cpu
    architecture: Architecture
    model_context: int
    variant: Variant
    wishes: Wishes
    limit: int | None
    gpu: Gpu | None = None
    gpu_limit: int = 0

    def shape(
        self,
        context: int,
        concurrency: int,
        layout: KvLayout,
        *,
        ubatch: int | None = None,
        load_mode: LoadMode | None = None,
    ) -> Shape:
        """A shape with the smallest cache that its layout allows."""
        wishes = self.wishes
        dtype = wishes.kv_dtype or "f16"
        snapshots = 0
        if layout == "streams":
            tokens = pad(context) * concurrency
            contexts = SNAPSHOT_CONTEXTS * pad(context) * kv_bytes_per_token(self.architecture, dtype)
            snapshots = min(wishes.snapshot_bytes, contexts)
        else:
            least = min(context + POOL_SHARE * (concurrency - 1), context * concurrency)
            tokens = pad(wishes.kv_tokens or least)
        return Shape(
            context=context,
            concurrency=concurrency,
            kv_layout=layout,
            kv_tokens=tokens,
            kv_dtype=dtype,
            swa_full=wishes.swa_full,
            n_ubatch=ubatch or wishes.ubatch,
            load_mode=load_mode or wishes.load_mode or decide_load_mode(self.variant, self.cpu.isa),
            snapshot_bytes=snapshots,
            isa=self.cpu.isa,
        )

    def place(self, shape: Shape) -> Shape:
        """The shape with as many layers on the GPU as it holds, or as were wished for."""
        if self.gpu is None:
            return shape
        most = self.architecture.layers + 1
        if self.wishes.gpu_layers is not None:
            return dataclasses.replace(shape, gpu_layers=min(self.wishes.gpu_layers, most))

        def on_gpu(count: int) -> int:
            return sum_bytes(self.table(dataclasses.replace(shape, gpu_layers=count)), "gpu")

        count = bisect.bisect_right(range(most + 1), self.gpu_limit, key=on_gpu) - 1
        return dataclasses.replace(shape, gpu_layers=max(0, count))

    def table(self, shape: Shape) -> tuple[MemoryLine, ...]:
        """The memory table of a shape."""
        return plan_memory(self.architecture, self.variant, shape)

    def fits(self, lines: tuple[MemoryLine, ...]) -> bool:
        """Whether the machine can hold it."""
        on_gpu = sum_bytes(lines, "gpu")
        return (self.limit is None or host_bytes(lines) <= self.limit) and on_gpu <= self.gpu_limit


def plan_llamacpp(
    machine: Machine, model: Model, wishes: Wishes, engines: Engines, comforts: tuple[float, ...] = (COMFORT, 1.0)
) -> LlamacppPlan | NoFit:
    """How llama.cpp would serve the model here, or why not; the ways out are the caller's to find.

    The first variant that fits is taken; within it, as many sequences as wished for (else `most_concurrency`, halved
    until it fits), the longest context that fits, and streams before a unified cache. Without a reading of the
    machine's memory nothing is refused for its size.
    """
    limit = budget(machine, wishes.headroom)
    gpu, gpu_limit = _offload_to(machine, wishes, engines)
    variants, rejected = usable_variants(model, wishes, "llamacpp")
    architecture = model.architecture
    impossible = unservable(model, wishes, variants, "llama.cpp") or _unwishable(model, wishes, gpu)
    if impossible or architecture is None:
        reason = impossible or ""
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=tuple(rejected))
    refused: list[tuple[_Case, tuple[MemoryLine, ...]]] = []
    for variant in variants:
        case = _Case(machine.cpu, architecture, model.context, variant, wishes, limit, gpu, gpu_limit)
        least = [case.place(shape) for shape in _least(case)]
        # The one that leaves the most room where room is short.
        best = min(map(case.table, least), key=lambda lines: (not case.fits(lines), host_bytes(lines)))
        if case.fits(best):
            candidates = itertools.chain((case.place(shape) for shape in _candidates(case, comforts)), least)
            shape = next(shape for shape in candidates if case.fits(case.table(shape)))
            return _build(machine, model, case, shape, tuple(rejected))
        refused.append((case, best))
        rejected.append(Rejected(f"variant {variant.name}", "does not fit into memory"))
    case, lines = min(refused, key=lambda one: host_bytes(one[1]))
    short, reason = _shortage(case, lines)
    return NoFit(
        model.name, case.variant.name, reason, short, lines, limit, gpu_limit if gpu else None, rejected=tuple(rejected)
    )


def usable_variants(model: Model, wishes: Wishes, backend: Engine) -> tuple[list[Variant], list[Rejected]]:
    """The model's variants that this engine serves and the wishes allow, and why not the others."""
    chosen: list[Variant] = []
    rejected: list[Rejected] = []
    for variant in model.variants:
        if wishes.variant is not None and variant.name != wishes.variant:
            continue
        if backend not in variant.backends:
            rejected.append(Rejected(f"variant {variant.name}", f"{variant.format} is served by {variant.backends[0]}"))
        elif wishes.local and variant.path is None:
            rejected.append(Rejected(f"variant {variant.name}", "its weights are not on this host"))
        elif variant.size_bytes is None:
            rejected.append(Rejected(f"variant {variant.name}", "its size is not known"))
        else:
            chosen.append(variant)
    return chosen, rejected


def _offload_to(machine: Machine, wishes: Wishes, engines: Engines) -> tuple[Gpu | None, int]:
    """The GPU that llama.cpp may use, the one with the most room, and what it can give."""
    if not engines.offload or wishes.gpu_layers == 0:
        return None, 0
    known = [gpu for gpu in machine.gpus if gpu.memory_free_bytes is not None]
    if not known:
        return None, 0
    best = max(known, key=lambda gpu: gpu.memory_free_bytes or 0)
    return best, int((best.memory_free_bytes or 0) * (1 - wishes.headroom))


def _shortage(case: _Case, lines: tuple[MemoryLine, ...]) -> tuple[int, str]:
    """What is missing, in bytes and as a sentence: on the GPU where layers were insisted on, else in main memory."""
    on_gpu = sum_bytes(lines, "gpu")
    if on_gpu > case.gpu_limit:
        return on_gpu - case.gpu_limit, f"needs {gib(on_gpu)} on the GPU, {gib(case.gpu_limit)} available there"
    needed, limit = host_bytes(lines), case.limit or 0
    return needed - limit, f"needs {gib(needed)}, {gib(limit)} available"


def unservable(model: Model, wishes: Wishes, variants: list[Variant], engine: str) -> str | None:
    """What an engine cannot serve of this model whatever the memory, as a sentence."""
    names = [variant.name for variant in model.variants]
    if wishes.variant is not None and wishes.variant not in names:
        return f"there is no variant `{wishes.variant}`; there are {', '.join(names)}"
    if not variants:
        asked = f"its variant `{wishes.variant}`" if wishes.variant else f"none of its variants ({', '.join(names)})"
        others = sorted(
            {backend for one in model.variants if wishes.variant in (None, one.name) for backend in one.backends}
        )
        elsewhere = f"; served by {', '.join(others)}" if others else ""
        return f"{asked} can{'not' if wishes.variant else ''} be served by {engine} on this host{elsewhere}"
    if wishes.context is not None and wishes.context > model.context:
        return f"it was made for {model.context} tokens of context, {wishes.context} are asked for"
    if model.architecture is None:
        return "its architecture is not known"
    return None


def _unwishable(model: Model, wishes: Wishes, gpu: Gpu | None) -> str | None:
    """What was wished for that llama.cpp cannot do here, as a sentence."""
    few = model.architecture is not None and _outgrows(model.architecture, wishes, wishes.concurrency or 1)
    least = wishes.context or min(LEAST_CONTEXT, model.context)
    objections = (
        (
            wishes.kv_tokens is not None and wishes.kv_layout == "streams",
            "a number of cells in all goes with the unified layout; in streams it is concurrency × context",
        ),
        (
            wishes.kv_tokens is not None and wishes.kv_tokens < least,
            f"a cache of {wishes.kv_tokens} cells cannot hold one sequence of {least} tokens; the least is {least}",
        ),
        (
            few and wishes.kv_layout == "streams",
            "llama.cpp cannot keep a q8_0 cache of several streams for this family; the unified layout can",
        ),
        (wishes.kv_dtype == "fp8", "llama.cpp keeps no fp8 cache; it has f32, f16, bf16 and q8_0"),
        (
            bool(wishes.gpu_layers) and gpu is None,
            "layers on a GPU are asked for, and the installed llama.cpp has none to put them on",
        ),
        (
            most_parallel(wishes) > 1,
            "several GPUs go with vLLM; llama.cpp uses one at most here",
        ),
    )
    return next((sentence for holds, sentence in objections if holds), None)


def _candidates(case: _Case, comforts: tuple[float, ...]) -> Iterator[Shape]:
    """Ways to serve the variant, best first, whose cache leaves room; with smaller buffers where none has it."""
    first, *tighter = _passes(case)
    for floor in (USEFUL_CONTEXT, LEAST_CONTEXT):
        yield from _candidates_of(case, floor, comforts, *first)
    for ubatch, mode in tighter:
        yield from _candidates_of(case, LEAST_CONTEXT, (1.0,), ubatch, mode)


def _candidates_of(
    case: _Case, floor: int, comforts: tuple[float, ...], ubatch: int, mode: LoadMode
) -> Iterator[Shape]:
    wishes = case.wishes
    most = min(case.model_context, wishes.kv_tokens or case.model_context)
    for concurrency in halved(wishes.concurrency, wishes.most_concurrency, 1):
        for comfort in comforts:
            for layout in _layouts(case, concurrency):
                for context in halved(wishes.context, most, min(floor, most)):
                    shape = case.shape(context, concurrency, layout, ubatch=ubatch, load_mode=mode)
                    if _is_comfortable(case, shape, comfort):
                        yield _grow(case, shape, comfort)


def _passes(case: _Case) -> list[tuple[int, LoadMode]]:
    """Tokens per pass and ways to load, best first; the later ones take less memory, one way or the other."""
    wishes = case.wishes
    chosen = wishes.load_mode or decide_load_mode(case.variant, case.cpu.isa)
    modes: tuple[LoadMode, ...] = ("none", "mmap") if chosen == "none" else ("mmap", "none")
    sizes = (wishes.ubatch, *(size for size in SMALL_UBATCHES if size < wishes.ubatch))
    return list(itertools.product(sizes, modes[:1] if wishes.load_mode else modes))


def _least(case: _Case) -> Iterator[Shape]:
    """The smallest ways to serve the variant, whatever the memory: where none of these fits, nothing does."""
    wishes = case.wishes
    context = wishes.context or min(LEAST_CONTEXT, case.model_context)
    for ubatch, mode in _passes(case):
        for layout in _layouts(case, wishes.concurrency or 1):
            yield case.shape(context, wishes.concurrency or 1, layout, ubatch=ubatch, load_mode=mode)


def _layouts(case: _Case, concurrency: int) -> tuple[KvLayout, ...]:
    wishes = case.wishes
    if wishes.kv_tokens is not None or _outgrows(case.architecture, wishes, concurrency):
        return ("unified",)
    return (wishes.kv_layout,) if wishes.kv_layout else ("streams", "unified")


def _outgrows(architecture: Architecture, wishes: Wishes, concurrency: int) -> bool:
    """Whether so many streams of this cache would be more than llama.cpp's graph can hold."""
    return architecture.family in FEW_TENSORS and wishes.kv_dtype == "q8_0" and concurrency > 1


def halved(wish: int | None, most: int, least: int) -> Iterator[int]:
    """The wish alone, or `most`, then half of it, and so on down to `least`."""
    if wish is not None:
        yield wish
        return
    number = most
    while number > least:
        yield number
        number //= 2
    yield least


def _cache_and_rest(lines: tuple[MemoryLine, ...]) -> tuple[int, int]:
    cache = sum(line.bytes for line in lines if line.name == "KV cache")
    return cache, host_bytes(lines) - cache


def _is_comfortable(case: _Case, shape: Shape, comfort: float) -> bool:
    """Whether the cache leaves enough of what the rest leaves; one whose size was asked for need not."""
    if case.limit is None or case.wishes.kv_tokens is not None:
        return True
    return _leaves_room(case, case.table(shape), comfort)


def _leaves_room(case: _Case, lines: tuple[MemoryLine, ...], comfort: float = COMFORT) -> bool:
    cache, rest = _cache_and_rest(lines)
    return case.limit is None or cache <= comfort * (case.limit - rest)


def _grow(case: _Case, shape: Shape, comfort: float) -> Shape:
    """A unified pool made as large as is comfortable and useful."""
    per_token = kv_bytes_per_token(case.architecture, shape.kv_dtype)
    most = pad(shape.context) * shape.concurrency
    if shape.kv_layout == "streams" or case.wishes.kv_tokens or not per_token or shape.kv_tokens >= most:
        return shape
    if case.limit is None:
        return dataclasses.replace(shape, kv_tokens=most)
    cache, rest = _cache_and_rest(case.table(shape))
    spare = int(comfort * (case.limit - rest)) - cache
    # The attention masks grow with the pool: two bytes per cell and token of a pass, in each of two at most.
    more = max(0, spare) // (per_token + 4 * shape.n_ubatch) // 256 * 256
    return dataclasses.replace(shape, kv_tokens=min(most, shape.kv_tokens + more))


def _build(machine: Machine, model: Model, case: _Case, shape: Shape, rejected: tuple[Rejected, ...]) -> LlamacppPlan:
    cpu, wishes = case.cpu, case.wishes
    threads = wishes.threads or cpu.parallel
    return LlamacppPlan(
        model=model.name,
        variant=case.variant.name,
        weights=case.variant.path,
        weights_bytes=case.variant.size_bytes or 0,
        context=shape.context,
        concurrency=shape.concurrency,
        kv_layout=shape.kv_layout,
        kv_tokens=shape.kv_tokens,
        kv_dtype=shape.kv_dtype,
        swa_full=shape.swa_full,
        n_ubatch=shape.n_ubatch,
        threads=threads,
        cores=cpu.cores[:threads] if threads <= len(cpu.cores) else cpu.usable,
        wait_policy=wishes.wait_policy or decide_wait_policy(cpu),
        load_mode=shape.load_mode,
        snapshot_bytes=shape.snapshot_bytes,
        gpu_layers=shape.gpu_layers,
        gpu=name_of(case.gpu) if case.gpu and shape.gpu_layers else None,
        memory=case.table(shape),
        budget_bytes=case.limit,
        gpu_budget_bytes=case.gpu_limit if case.gpu else None,
        dummy=model.dummy,
        rejected=rejected,
        reasons=tuple(_reasons(machine, model, case, shape)),
    )


def _reasons(machine: Machine, model: Model, case: _Case, shape: Shape) -> Iterator[str]:
    wishes = case.wishes
    yield from model.warnings
    yield from _placement(machine, case, shape)
    if wishes.concurrency is None and shape.concurrency < wishes.most_concurrency:
        yield f"concurrency {shape.concurrency}, not {wishes.most_concurrency}: more does not fit"
    if wishes.context is None and shape.context < model.context:
        why = "more does not fit"
        if _leaves_room(case, case.table(shape)):
            why = "a longer one would take over half of the memory that the weights leave; `--context` asks for it"
        yield f"context {shape.context}, not the model's {model.context}: {why}"
    if wishes.kv_layout is None:
        yield _why_layout(case, shape)
    if crowding := crowded(machine.cpu, wishes.threads):
        yield crowding
    if wishes.load_mode is None and shape.load_mode == "none":
        yield "weights are read in, not mapped: llama.cpp keeps its own copy of most of them"
    if shape.n_ubatch < wishes.ubatch:
        yield f"{shape.n_ubatch} tokens per pass, not {wishes.ubatch}: the buffers for more do not fit"


def _why_layout(case: _Case, shape: Shape) -> str:
    if shape.kv_layout == "streams":
        return "a region of cache per sequence: the whole context of all fits, and this is the faster layout"
    if case.wishes.kv_tokens is not None:
        return "one pool of cache: a number of cells for all together is asked for"
    if _outgrows(case.architecture, case.wishes, shape.concurrency):
        return "one pool of cache: llama.cpp cannot keep a q8_0 cache of several streams for this family"
    return "one pool of cache: a whole context for each would take over half of the memory that the weights leave"


def crowded(cpu: Cpu, threads: int | None) -> str | None:
    """A warning of more compute threads than cores, as a sentence; None where there are enough."""
    cores = len(cpu.cores) or len(cpu.usable)
    if threads is None or not cores or threads <= cores:
        return None
    return f"{threads} threads on {counted(cores, 'core')}: they wait for each other, which is slower than {cores}"


def _placement(machine: Machine, case: _Case, shape: Shape) -> Iterator[str]:
    if case.limit is None:
        yield "free memory could not be read, so nothing was checked against it"
    if shape.gpu_layers:
        yield f"{min(shape.gpu_layers, case.architecture.layers)} of {case.architecture.layers} layers on the GPU"
    elif machine.gpus:
        yield f"{counted(len(machine.gpus), 'GPU')} seen and not used: llama.cpp serves from the CPU here"
    if case.variant.path is None:
        yield "its weights are not on this host; sizes are those of the published shape"
