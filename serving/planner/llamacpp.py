"""From machine, model and wishes to a plan, or to a refusal with numbers. Pure: no files, no clock, no environment."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serving.hardware import Cpu, Machine
from serving.planner.memory import Shape, kv_bytes_per_token, pad, plan_memory, repacked_bytes
from serving.planner.text import gib
from serving.planner.types import (
    KvLayout,
    LoadMode,
    MemoryLine,
    NearestFit,
    NoFit,
    Plan,
    Rejected,
    WaitPolicy,
    Wishes,
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
MOST_ALTERNATIVES: Final = 3
"""Ways out that a refusal names."""
SMALL_UBATCHES: Final = (128, 32)
"""Tokens per pass that are tried where nothing else makes a plan fit."""


def plan(machine: Machine, model: Model, wishes: Wishes) -> Plan | NoFit:
    """How to serve `model` on `machine`, or why not, and what would fit instead.

    The first variant that fits is taken; within it, as many sequences as wished for (else `most_concurrency`, halved
    until it fits), the longest context that fits, and streams before a unified cache. Without a reading of the
    machine's memory nothing is refused for its size.
    """
    outcome = _plan(machine, model, wishes)
    if isinstance(outcome, NoFit):
        return dataclasses.replace(outcome, nearest=_nearest(machine, model, wishes))
    return outcome


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
    weights: Path
    wishes: Wishes
    limit: int | None

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

    def table(self, shape: Shape) -> tuple[MemoryLine, ...]:
        """The memory table of a shape."""
        return plan_memory(self.architecture, self.variant, shape)

    def fits(self, lines: tuple[MemoryLine, ...]) -> bool:
        """Whether the machine can hold it."""
        return self.limit is None or _total(lines) <= self.limit


def _plan(machine: Machine, model: Model, wishes: Wishes, comforts: tuple[float, ...] = (COMFORT, 1.0)) -> Plan | NoFit:
    limit = budget(machine, wishes.headroom)
    variants, rejected = _variants(model, wishes)
    impossible = _impossible(model, wishes, variants)
    if impossible or model.architecture is None:
        reason = impossible or "its architecture is not known"
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=tuple(rejected))
    refused: list[tuple[Variant, tuple[MemoryLine, ...]]] = []
    for variant, weights in variants:
        case = _Case(machine.cpu, model.architecture, model.context, variant, weights, wishes, limit)
        least = list(_least(case))
        best = min(map(case.table, least), key=_total)
        if case.fits(best):
            candidates = itertools.chain(_candidates(case, comforts), least)
            shape = next(shape for shape in candidates if case.fits(case.table(shape)))
            return _build(machine, model, case, shape, tuple(rejected))
        refused.append((variant, best))
        rejected.append(Rejected(f"variant {variant.name}", "does not fit into memory"))
    variant, lines = min(refused, key=lambda one: _total(one[1]))
    short = _total(lines) - (limit or 0)
    reason = f"needs {gib(_total(lines))}, {gib(limit or 0)} available"
    return NoFit(model.name, variant.name, reason, short, lines, limit, rejected=tuple(rejected))


def _variants(model: Model, wishes: Wishes) -> tuple[list[tuple[Variant, Path]], list[Rejected]]:
    chosen: list[tuple[Variant, Path]] = []
    rejected: list[Rejected] = []
    for variant in model.variants:
        if wishes.variant is not None and variant.name != wishes.variant:
            continue
        if "llamacpp" not in variant.backends:
            rejected.append(Rejected(f"variant {variant.name}", f"{variant.format} is served by {variant.backends[0]}"))
        elif variant.path is None or variant.size_bytes is None:
            rejected.append(Rejected(f"variant {variant.name}", "its weights are not on this host"))
        else:
            chosen.append((variant, variant.path))
    return chosen, rejected


def _impossible(model: Model, wishes: Wishes, variants: list[tuple[Variant, Path]]) -> str | None:
    """What no memory could mend, as a sentence."""
    names = [variant.name for variant in model.variants]
    if wishes.variant is not None and wishes.variant not in names:
        return f"there is no variant `{wishes.variant}`; there are {', '.join(names)}"
    if not variants:
        asked = f"its variant `{wishes.variant}`" if wishes.variant else f"none of its variants ({', '.join(names)})"
        return f"{asked} can{'not' if wishes.variant else ''} be served by llama.cpp on this host"
    if wishes.context is not None and wishes.context > model.context:
        return f"it was made for {model.context} tokens of context, {wishes.context} are asked for"
    if wishes.kv_tokens is not None and wishes.kv_layout == "streams":
        return "a number of cells in all goes with the unified layout; in streams it is concurrency × context"
    least = wishes.context or min(LEAST_CONTEXT, model.context)
    if wishes.kv_tokens is not None and wishes.kv_tokens < least:
        return f"a cache of {wishes.kv_tokens} cells cannot hold one sequence of {least} tokens; the least is {least}"
    return None


def _candidates(case: _Case, comforts: tuple[float, ...]) -> Iterator[Shape]:
    """Ways to serve the variant, best first, whose cache leaves room."""
    wishes = case.wishes
    most = min(case.model_context, wishes.kv_tokens or case.model_context)
    for floor in (USEFUL_CONTEXT, LEAST_CONTEXT):
        for concurrency in _halved(wishes.concurrency, wishes.most_concurrency, 1):
            for comfort in comforts:
                for layout in _layouts(wishes):
                    for context in _halved(wishes.context, most, min(floor, most)):
                        shape = case.shape(context, concurrency, layout)
                        if _is_comfortable(case, shape, comfort):
                            yield _grow(case, shape, comfort)


def _least(case: _Case) -> Iterator[Shape]:
    """The smallest ways to serve the variant, whatever the memory: where none of these fits, nothing does."""
    wishes = case.wishes
    context = wishes.context or min(LEAST_CONTEXT, case.model_context)
    modes: tuple[LoadMode, ...] = (wishes.load_mode,) if wishes.load_mode else ("mmap", "none")
    for ubatch in (wishes.ubatch, *(size for size in SMALL_UBATCHES if size < wishes.ubatch)):
        for layout in _layouts(wishes):
            for mode in modes:
                yield case.shape(context, wishes.concurrency or 1, layout, ubatch=ubatch, load_mode=mode)


def _layouts(wishes: Wishes) -> tuple[KvLayout, ...]:
    if wishes.kv_tokens is not None:
        return ("unified",)
    return (wishes.kv_layout,) if wishes.kv_layout else ("streams", "unified")


def _halved(wish: int | None, most: int, least: int) -> Iterator[int]:
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
    return cache, _total(lines) - cache


def _is_comfortable(case: _Case, shape: Shape, comfort: float) -> bool:
    """Whether the cache leaves enough of what the rest leaves."""
    if case.limit is None:
        return True
    cache, rest = _cache_and_rest(case.table(shape))
    return cache <= comfort * (case.limit - rest)


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


def _build(machine: Machine, model: Model, case: _Case, shape: Shape, rejected: tuple[Rejected, ...]) -> Plan:
    cpu, wishes = case.cpu, case.wishes
    threads = wishes.threads or cpu.parallel
    return Plan(
        model=model.name,
        engine="llamacpp",
        variant=case.variant.name,
        weights=case.weights,
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
        memory=case.table(shape),
        budget_bytes=case.limit,
        rejected=rejected,
        reasons=tuple(_reasons(machine, model, case, shape)),
    )


def _reasons(machine: Machine, model: Model, case: _Case, shape: Shape) -> Iterator[str]:
    wishes = case.wishes
    if case.limit is None:
        yield "free memory could not be read, so nothing was checked against it"
    if machine.gpus:
        yield f"{len(machine.gpus)} GPU(s) seen and not used: this version serves from the CPU"
    if wishes.concurrency is None and shape.concurrency < wishes.most_concurrency:
        yield f"concurrency {shape.concurrency}, not {wishes.most_concurrency}: more does not fit"
    if wishes.context is None and shape.context < model.context:
        yield f"context {shape.context}, not the model's {model.context}: more does not fit comfortably"
    if wishes.kv_layout is None and shape.kv_layout == "streams":
        yield "a region of cache per sequence: the whole context of all fits, and this is the faster layout"
    if wishes.kv_layout is None and shape.kv_layout == "unified":
        yield "one pool of cache: the whole context of every sequence at once does not fit comfortably"
    if wishes.load_mode is None and shape.load_mode == "none":
        yield "weights are read in, not mapped: llama.cpp keeps its own copy of most of them"
    if shape.n_ubatch < wishes.ubatch:
        yield f"{shape.n_ubatch} tokens per pass, not {wishes.ubatch}: the buffers for more do not fit"


def _nearest(machine: Machine, model: Model, wishes: Wishes) -> tuple[NearestFit, ...]:
    """Changes of wishes that fit: each that suffices alone, else pairs, else all of them, last a quantised cache."""
    names = ("variant", "context", "concurrency", "kv_dtype", "kv_layout", "load_mode", "swa_full")
    asked = [name for name in names if getattr(wishes, name)]
    singles: list[tuple[str, ...]] = [(name,) for name in asked]
    pairs: list[tuple[str, ...]] = [(one, other) for index, one in enumerate(asked) for other in asked[index + 1 :]]
    for choices in (singles, pairs, [tuple(asked)]):
        found = [fit for dropped in choices if (fit := _without(machine, model, wishes, dropped))]
        if found:
            return tuple(found[:MOST_ALTERNATIVES])
    fit = _without(machine, model, wishes, tuple(asked), kv_dtype="q8_0")
    return (fit,) if fit else ()


def _without(
    machine: Machine, model: Model, wishes: Wishes, dropped: tuple[str, ...], **instead: str
) -> NearestFit | None:
    """What fits when these wishes are given up, filling the memory rather than leaving room."""
    changed: dict[str, Any] = {name: False if name == "swa_full" else None for name in dropped}
    outcome = _plan(machine, model, dataclasses.replace(wishes, **{**changed, **instead}), comforts=(1.0,))
    if isinstance(outcome, NoFit):
        return None
    names = dict.fromkeys((*dropped, *instead))
    return NearestFit(tuple((name, getattr(outcome, name)) for name in names), outcome.total_bytes)


def _total(lines: tuple[MemoryLine, ...]) -> int:
    return sum(line.bytes for line in lines)
