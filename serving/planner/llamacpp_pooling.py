"""How llama.cpp would serve a model that embeds or ranks: whole texts in one pass, and no cache but a decoder's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from serving.hardware import Cpu, Machine
from serving.planner.llamacpp import budget, decide_load_mode, decide_wait_policy, halved, unservable, usable_variants
from serving.planner.llamacpp_memory import Shape, pad, plan_pooling_memory
from serving.planner.text import gib
from serving.planner.types import LlamacppPlan, MemoryLine, NoFit, Rejected, Wishes, host_bytes, most_parallel
from serving.pooling import Task
from serving.registry import Architecture, Model, Variant

PASS_TEXTS: Final = 64
"""Texts that one pass takes, at most."""
DECODER_CONTEXT: Final = 8192
"""Tokens of a decoder's longest text that the planner aims at; its cache grows with them."""
DECODER_PASS: Final = 512
"""Tokens that a decoder computes in one pass; it reads a longer text in several."""
LEAST_CONTEXT: Final = 128
TASKS: Final[dict[str, Task]] = {"embedding": "embed", "reranker": "rerank"}
"""What a kind of model is asked for."""


def plan_pooling(machine: Machine, model: Model, wishes: Wishes) -> LlamacppPlan | NoFit:
    """How llama.cpp would serve the model here, or why not.

    The first variant that fits is taken, with the longest text that fits: the model's own context, or half of it, and
    so on. It is computed on the CPU.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "llamacpp")
    architecture = model.architecture
    impossible = unservable(model, wishes, variants, "llama.cpp") or _unwishable(model, wishes)
    if impossible or architecture is None:
        return NoFit(model.name, wishes.variant, impossible or "", None, budget_bytes=limit, rejected=tuple(rejected))
    smallest: tuple[Variant, tuple[MemoryLine, ...]] | None = None
    for variant in variants:
        for shape in _shapes(model, architecture, variant, wishes, machine.cpu.isa):
            lines = plan_pooling_memory(architecture, variant, shape)
            if limit is None or host_bytes(lines) <= limit:
                return _build(machine.cpu, model, variant, wishes, shape, lines, limit, tuple(rejected))
            if smallest is None or host_bytes(lines) < host_bytes(smallest[1]):
                smallest = variant, lines
        rejected.append(Rejected(f"variant {variant.name}", "does not fit into memory"))
    assert smallest is not None  # noqa: S101 - `unservable` refuses a model without variants
    needed, most = host_bytes(smallest[1]), limit or 0
    reason = f"needs {gib(needed)}, {gib(most)} available"
    return NoFit(model.name, smallest[0].name, reason, needed - most, smallest[1], limit, rejected=tuple(rejected))


def _unwishable(model: Model, wishes: Wishes) -> str | None:
    what = "it computes whole texts"
    objections = (
        (wishes.kv_tokens is not None or wishes.kv_layout is not None, f"{what}, so there is no cache to lay out"),
        (bool(wishes.gpu_layers), f"{what}, which this version does on the CPU only"),
        (most_parallel(wishes) > 1, "several GPUs go with vLLM"),
        (
            wishes.context is not None and model.architecture is not None and wishes.context > longest_text(model),
            f"its longest text has {longest_text(model)} tokens",
        ),
    )
    return next((sentence for holds, sentence in objections if holds), None)


def longest_text(model: Model) -> int:
    """Tokens of the longest text that the model was made for."""
    positions = model.architecture.positions if model.architecture else None
    return min(model.context, positions or model.context)


def contexts(model: Model, architecture: Architecture, wishes: Wishes) -> Iterator[int]:
    """Tokens of the longest text, best first: the wish alone, or the model's own, half of it, and so on."""
    longest = longest_text(model)
    most = longest if architecture.encoder else min(longest, DECODER_CONTEXT)
    return halved(wishes.context, most, min(LEAST_CONTEXT, most))


def _shapes(
    model: Model, architecture: Architecture, variant: Variant, wishes: Wishes, isa: tuple[str, ...]
) -> Iterator[Shape]:
    """Longest texts first."""
    for context in contexts(model, architecture, wishes):
        yield Shape(
            context=context,
            concurrency=wishes.concurrency or PASS_TEXTS,
            kv_layout="unified",
            kv_tokens=0 if architecture.encoder else pad(context),
            kv_dtype="f16",
            swa_full=False,
            n_ubatch=context if architecture.encoder else min(context, DECODER_PASS),
            load_mode=wishes.load_mode or decide_load_mode(variant, isa),
            snapshot_bytes=0,
            isa=isa,
        )


def _build(
    cpu: Cpu,
    model: Model,
    variant: Variant,
    wishes: Wishes,
    shape: Shape,
    lines: tuple[MemoryLine, ...],
    limit: int | None,
    rejected: tuple[Rejected, ...],
) -> LlamacppPlan:
    threads = wishes.threads or cpu.parallel
    return LlamacppPlan(
        model=model.name,
        variant=variant.name,
        weights=variant.path,
        weights_bytes=variant.size_bytes or 0,
        context=shape.context,
        concurrency=shape.concurrency,
        task=TASKS[model.kind],
        kv_layout=shape.kv_layout,
        kv_tokens=shape.kv_tokens,
        kv_dtype=shape.kv_dtype,
        swa_full=False,
        n_ubatch=shape.n_ubatch,
        threads=threads,
        cores=cpu.cores[:threads] if threads <= len(cpu.cores) else cpu.usable,
        wait_policy=wishes.wait_policy or decide_wait_policy(cpu),
        load_mode=shape.load_mode,
        snapshot_bytes=0,
        memory=lines,
        budget_bytes=limit,
        dummy=model.dummy,
        rejected=rejected,
        reasons=tuple(_reasons(model, variant, wishes, shape, limit)),
    )


def _reasons(model: Model, variant: Variant, wishes: Wishes, shape: Shape, limit: int | None) -> Iterator[str]:
    if limit is None:
        yield "free memory could not be read, so nothing was checked against it"
    if wishes.context is None and shape.context < longest_text(model):
        yield f"texts of {shape.context} tokens at most, not the model's {longest_text(model)}: `--context` takes more"
    yield "a text is computed whole, in one pass" if not shape.kv_tokens else "a cache for one pass of texts"
    if variant.path is None:
        yield "its weights are not on this host; sizes are those of the published shape"
