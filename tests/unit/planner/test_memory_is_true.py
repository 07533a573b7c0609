"""The memory table against llama.cpp itself: dry runs of large shapes, and real loads of the demonstration model."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

import serving
from benchmarks.memory import llamacpp
from serving.hardware import detect
from serving.planner.llamacpp_memory import Shape, pad, plan_memory
from serving.registry import Model, Variant, load_catalogue, model_from_file
from serving.synthetic import write_hollow

PUBLISHED = (
    "llama3.2-1b",
    "llama3-8b",
    "llama3.1-70b",
    "qwen3-8b",
    "mixtral-8x7b",
    "gemma3-4b",
    "gpt-oss-20b",
    "gigachat-20b-a3b",
    "deepseek-v3",
)
"""Shapes of the catalogue: small and large, plain and windowed, mixtures of experts, latent attention."""
GAPS = {"gpt-oss-20b": 5 * 2**20}
"""Bytes that llama.cpp's graph allocator loses between buffers of very unequal size: a large vocabulary, few tokens."""
DEMO = Path(serving.__file__).parent / "models/demo"
OTHER_LINES = ("process", "code", "prefix snapshots")


def shape(context: int, concurrency: int, layout: str, **more: object) -> Shape:
    """A shape; unified pools hold a quarter of what all sequences together could."""
    cells = pad(context) * concurrency
    tokens = cells if layout == "streams" else max(pad(context), cells // 4)
    fields = {"kv_dtype": "f16", "n_ubatch": 512, "load_mode": "mmap", **more}
    isa = detect().cpu.isa
    return Shape(context, concurrency, layout, tokens, swa_full=False, snapshot_bytes=0, isa=isa, **fields)  # type: ignore[arg-type]


def predicted(model: Model, wanted: Shape, *names: str) -> int:
    """Bytes that the table has under these names."""
    assert model.architecture is not None
    return sum(line.bytes for line in plan_memory(model.architecture, model.variants[0], wanted) if line.name in names)


@pytest.mark.parametrize("name", PUBLISHED)
def test_buffers_are_what_dry_runs_report(name: str, tmp_path: Path) -> None:
    """Compute and output buffers are llama.cpp's own: never 4% (or 1 MiB) below, never 10% above."""
    gap = GAPS.get(name, 2**20)
    published = dataclasses.replace(load_catalogue().find(name), context=1 << 17)
    path = write_hollow(published, Variant("q8_0", "gguf", ("llamacpp",), None), tmp_path / f"{name}.gguf")
    model = model_from_file(path)
    sizes = itertools.product((1024, 8192, 32768), (1, 16), ("streams", "unified"), (64, 512))
    shapes = [shape(context, together, layout, n_ubatch=ubatch) for context, together, layout, ubatch in sizes]
    for wanted, found in zip(shapes, llamacpp([(path, one) for one in shapes], dry=True), strict=True):
        buffers = predicted(model, wanted, "compute buffers", "attention masks")
        assert found["compute"] * 0.96 - gap <= buffers <= found["compute"] * 1.10 + 2**16, wanted
        assert predicted(model, wanted, "output") == pytest.approx(found["output"], rel=0.03, abs=2**16), wanted


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("demo-q8_0.gguf", shape(4096, 16, "streams")),
        ("demo-q8_0.gguf", shape(4096, 16, "unified")),
        ("demo-f16.gguf", shape(4096, 16, "streams", load_mode="none")),
        ("demo-f16.gguf", shape(1024, 4, "streams", kv_dtype="q8_0")),
        ("demo-f16.gguf", shape(4096, 8, "unified", kv_dtype="f32")),
        ("demo-q8_0.gguf", shape(4096, 64, "streams", kv_dtype="bf16", n_ubatch=128)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kv_layout}-{value.concurrency}-{value.kv_dtype}",
)
def test_resident_memory_is_as_planned(file: str, wanted: Shape) -> None:
    """RssAnon and RssFile of a context that computed grow by what the table says, within 10% and 4 MiB."""
    path = DEMO / file
    model = model_from_file(path)
    assert model.architecture is not None
    (found,) = llamacpp([(path, wanted)], dry=False)
    lines = plan_memory(model.architecture, model.variants[0], wanted)
    for kind, name in (("anonymous", "RssAnon"), ("file", "RssFile")):
        ours = [line for line in lines if line.kind == kind and line.name not in OTHER_LINES]
        least = sum(line.bytes for line in ours if not line.as_used)
        most = sum(line.bytes for line in ours)
        assert least * 0.9 - 4 * 2**20 <= found[name] <= most * 1.1 + 4 * 2**20, (name, least, found, most)
