"""How the Transformers engine would serve a model: one request at a time, from main memory or one GPU.

It is the oracle for the fast engines and the way to run an architecture that neither knows; so it is taken only where
it is asked for, and needs no shape from the registry to be planned.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from serving.hardware import Gpu, Machine
from serving.planner.llamacpp import budget, halved, unservable, usable_variants
from serving.planner.text import gib
from serving.planner.types import (
    Engines,
    KvDtype,
    MemoryKind,
    MemoryLine,
    NoFit,
    TransformersPlan,
    Wishes,
    host_bytes,
    name_of,
    sum_bytes,
)
from serving.registry import Architecture, Model, Variant

MIB: Final = 1024**2
PROCESS_BYTES: Final = 300 * MIB
CODE_BYTES: Final = 180 * MIB
"""PyTorch and Transformers loaded and nothing served; measured with torch 2.13 and Transformers 5.19."""
DRIVER_BYTES: Final = 600 * MIB
"""CUDA context and cuBLAS workspaces on a GPU: a reserve."""
CONTEXT: Final = 4096
"""Tokens that it aims at: what an oracle and a trial need."""
LEAST_CONTEXT: Final = 128
CHUNK_TOKENS: Final = 64
"""Tokens of a prompt computed together (serving.hf.engine), whose activations are held at once."""
UNKNOWN_TOKEN_BYTES: Final = MIB
"""Cache and activations for one token of a shape that is not known: what a large dense model takes."""
_ANY: Final = Architecture("any", 1, 1, None, 1, (1,), 1, 1, None)
"""Stands for a shape that is not known, where only the rest is looked at."""
_DTYPES: Final[dict[str, KvDtype]] = {"bf16": "bf16", "f16": "f16", "f16-hf": "f16", "f32": "f32"}


def plan_transformers(machine: Machine, model: Model, wishes: Wishes, engines: Engines) -> TransformersPlan | NoFit:
    """How PyTorch would serve the model here, or why not; the ways out are the caller's to find.

    On the GPU with the most free memory where this PyTorch can use one and the model fits there, else from main memory.
    """
    limit = budget(machine, wishes.headroom)
    variants, rejected = usable_variants(model, wishes, "transformers")
    shape_known = dataclasses.replace(model, architecture=model.architecture or _ANY)
    reason = unservable(shape_known, wishes, variants, "Transformers") or _unwishable(model, wishes)
    if reason is not None:
        return NoFit(model.name, wishes.variant, reason, None, budget_bytes=limit, rejected=tuple(rejected))
    variant = variants[0]
    gpus = sorted(machine.gpus if engines.transformers_cuda else (), key=lambda gpu: -(gpu.memory_free_bytes or 0))
    contexts = list(halved(wishes.context, min(model.context, CONTEXT), min(LEAST_CONTEXT, model.context)))
    for gpu in (*gpus[:1], None):
        on_gpu = None if gpu is None else int((gpu.memory_free_bytes or 0) * (1 - wishes.headroom))
        for context in contexts:
            lines = _table(model, variant, context, gpu)
            fits_gpu = on_gpu is None or sum_bytes(lines, "gpu") <= on_gpu
            if fits_gpu and (limit is None or host_bytes(lines) <= limit):
                return TransformersPlan(
                    model=model.name,
                    variant=variant.name,
                    weights=variant.path,
                    weights_bytes=variant.size_bytes or 0,
                    context=context,
                    concurrency=1,
                    kv_tokens=context,
                    kv_dtype=_DTYPES.get(variant.name, "bf16"),
                    memory=lines,
                    budget_bytes=limit,
                    gpu_budget_bytes=on_gpu,
                    dummy=model.dummy,
                    rejected=tuple(rejected),
                    reasons=("one request at a time, in the order they come: this engine is an oracle, not a server",),
                    cores=machine.cpu.cores,
                    threads=wishes.threads or machine.cpu.parallel,
                    gpu=None if gpu is None else name_of(gpu),
                )
    lines = _table(model, variant, contexts[-1], None)
    short = host_bytes(lines) - (limit or 0)
    reason = f"needs {gib(host_bytes(lines))} of main memory, {gib(limit or 0)} available"
    return NoFit(model.name, variant.name, reason, short, lines, limit, rejected=tuple(rejected))


def _unwishable(model: Model, wishes: Wishes) -> str | None:
    """What was wished for that this engine does not do, as a sentence."""
    if model.kind != "chat":
        return "the Transformers engine generates text; llama.cpp and vLLM serve embedders and rerankers"
    if wishes.concurrency not in (None, 1):
        return f"the Transformers engine computes one request at a time, {wishes.concurrency} are asked for"
    named = ("kv_layout", "kv_tokens", "kv_dtype", "parallel", "gpu_layers", "load_mode")
    asked = next((name for name in named if getattr(wishes, name) is not None), None)
    return None if asked is None else f"`{asked}` is nothing that the Transformers engine has"


def _table(model: Model, variant: Variant, context: int, gpu: Gpu | None) -> tuple[MemoryLine, ...]:
    it, number = model.architecture, 4 if variant.name == "f32" else 2
    where: MemoryKind = "gpu" if gpu is not None else "anonymous"
    if it is None:
        cache = MemoryLine(
            "KV cache", context * UNKNOWN_TOKEN_BYTES, where, "its shape is not known: a reserve", as_used=True
        )
        step = 0
    else:
        each = sum(it.kv_heads) * (it.key_length + it.value_length) * number
        cache = MemoryLine("KV cache", context * each, where, f"{context} tokens × {each} bytes", as_used=True)
        chunk = min(CHUNK_TOKENS, context)
        step = chunk * (it.embedding * 8 + (it.feed_forward or 4 * it.embedding) * 3) * number
        step += chunk * it.heads * context * 4 + (it.vocabulary or 0) * 8
    weights = variant.size_bytes or 0
    lines = [
        MemoryLine("weights", weights, where if gpu else "file", f"{variant.name}, as the files have them"),
        cache,
        MemoryLine("activations", step, where, f"{CHUNK_TOKENS} tokens of a prompt at once", as_used=True),
        MemoryLine("process", PROCESS_BYTES, "anonymous", "Python, PyTorch and Transformers, measured"),
        MemoryLine("code", CODE_BYTES, "file", "interpreter and shared libraries, measured"),
    ]
    if gpu is not None:
        lines.append(MemoryLine("driver", DRIVER_BYTES, "gpu", "CUDA context and libraries, a reserve"))
    return tuple(line for line in lines if line.bytes)
