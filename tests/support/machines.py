"""Machines and models for planner tests."""

from __future__ import annotations

from pathlib import Path

from serving.hardware import Cpu, Machine, Memory
from serving.registry import Architecture, Model, TensorSum, Variant

GIB = 1024**3
MIB = 1024**2


def machine(available: int | None, *, cores: int = 8, quota: float | None = None) -> Machine:
    """A machine with an AVX-512 CPU and `available` bytes of memory free."""
    ids = tuple(range(cores))
    cpu = Cpu("CPU", "x86_64", cores, cores, ids, ids, quota, ("avx2", "avx512f"), 1)
    return Machine(cpu=cpu, memory=Memory(available, available))


LLAMA_8B = Architecture(
    family="llama",
    layers=32,
    embedding=4096,
    feed_forward=14336,
    heads=32,
    kv_heads=(8,) * 32,
    key_length=128,
    value_length=128,
    vocabulary=128256,
)


def gguf(name: str, kind: str, size: int) -> Variant:
    """A GGUF variant whose bytes are all in matrices of one type."""
    tensors = (
        TensorSum(kind, "matrix", size - size // 20, rows_by_8=True),
        TensorSum(kind, "embedding", size // 20, True),
    )
    return Variant(name, "gguf", ("llamacpp",), size, Path(f"/weights/{name}.gguf"), tensors=tensors)


def llama_8b() -> Model:
    """Llama 3 8B with three variants, best first."""
    variants = (
        gguf("q8_0", "Q8_0", 8_540_000_000),
        gguf("q4_k_m", "Q4_K", 4_920_000_000),
        Variant("bf16", "safetensors", ("vllm",), 16_060_000_000, Path("/weights/hf")),
    )
    return Model("llama3-8b", "Llama 3 8B", 8192, LLAMA_8B, variants)
