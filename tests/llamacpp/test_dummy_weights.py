"""Synthetic weights: llama.cpp loads every family and type of them, and computes finite numbers with them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from serving.errors import NoFitError, UsageError
from serving.gguf import read_header
from serving.registry import Architecture, Model, Variant, model_from_file
from serving.registry.local import DUMMY_KEY
from serving.registry.tensors import FAMILIES, GGUF_QUANTISATIONS, gguf_types, tensor_bytes
from serving.synthetic import write_dummy

PLAIN = Architecture(
    family="llama",
    layers=2,
    embedding=256,
    feed_forward=512,
    heads=4,
    kv_heads=(2, 2),
    key_length=64,
    value_length=64,
    vocabulary=1024,
)
LATENT = dataclasses.replace(
    PLAIN,
    family="deepseek2",
    kv_heads=(1, 1),
    key_length=256 + 32,
    value_length=256,
    latent=True,
    kv_rank=256,
    q_rank=256,
    key_length_mla=64 + 32,
    value_length_mla=64,
)
EXPERTS = {"experts": 8, "experts_used": 2}
SHAPES = {
    **{family: dataclasses.replace(PLAIN, family=family) for family in sorted(FAMILIES - {"bert", "deepseek2"})},
    "gemma2": dataclasses.replace(PLAIN, family="gemma2", tied=True, sliding_window=64, windowed=(True, False)),
    "gemma3": dataclasses.replace(PLAIN, family="gemma3", tied=True, sliding_window=64, windowed=(True, True)),
    "command-r": dataclasses.replace(PLAIN, family="command-r", tied=True),
    "mixtral": dataclasses.replace(PLAIN, **EXPERTS),
    "qwen3moe": dataclasses.replace(PLAIN, family="qwen3moe", expert_feed_forward=256, **EXPERTS),
    "gpt-oss": dataclasses.replace(
        PLAIN, family="gpt-oss", sliding_window=64, windowed=(True, False), expert_feed_forward=256, **EXPERTS
    ),
    "deepseek": dataclasses.replace(
        PLAIN, family="deepseek", expert_feed_forward=256, shared_experts=2, dense_layers=1, **EXPERTS
    ),
    "deepseek2": dataclasses.replace(
        LATENT, expert_feed_forward=256, shared_experts=1, dense_layers=1, experts=8, experts_used=2
    ),
}


def model_of(architecture: Architecture, name: str = "tiny") -> Model:
    variants = tuple(Variant(kind, "gguf", ("llamacpp",), None) for kind in GGUF_QUANTISATIONS)
    return Model(name, "Tiny", 512, architecture, variants)


def variant_of(model: Model, name: str) -> Variant:
    return next(variant for variant in model.variants if variant.name == name)


@pytest.mark.parametrize("family", SHAPES)
def test_every_family_loads(family: str, tmp_path: Path) -> None:
    """llama.cpp takes each family's tensors as its own, every one of them, and computes finite logits."""
    model = model_of(SHAPES[family])
    path = write_dummy(model, variant_of(model, "q8_0"), tmp_path)
    found = computed(path)
    typed = gguf_types(SHAPES[family], "q8_0")
    assert typed is not None
    assert found["parameters"] == sum(shape.elements for shape, _ in typed)
    assert found["finite"]
    assert 0.01 < found["spread"] < 100


@pytest.mark.parametrize("kind", GGUF_QUANTISATIONS)
def test_every_quantisation_computes(kind: str, tmp_path: Path) -> None:
    """Blocks of every type are valid: the logits are finite and neither flat nor exploding."""
    model = model_of(SHAPES["mixtral"] if kind == "mxfp4" else PLAIN)
    found = computed(write_dummy(model, variant_of(model, kind), tmp_path))
    assert found["finite"]
    assert 0.01 < found["spread"] < 100


def test_the_header_reads_back_as_the_shape(tmp_path: Path) -> None:
    """Our own reader finds in the file what it was made from, and that it is synthetic."""
    model = model_of(SHAPES["mixtral"])
    path = write_dummy(model, variant_of(model, "q4_k_m"), tmp_path)
    header = read_header(path)
    assert header.metadata[DUMMY_KEY] == "tiny q4_k_m"
    read = model_from_file(path)
    assert read.dummy
    assert read.architecture == model.architecture
    typed = gguf_types(SHAPES["mixtral"], "q4_k_m")
    assert typed is not None
    assert [(tensor.name, tensor.type) for tensor in header.tensors] == [(s.name, kind.name) for s, kind in typed]
    assert header.tensor_bytes == sum(tensor_bytes(shape, kind) for shape, kind in typed)


def test_no_page_is_empty_or_there_twice(tmp_path: Path) -> None:
    """Pages that repeat or are zero would be merged or skipped, and the bandwidth measured with them too good."""
    model = model_of(dataclasses.replace(PLAIN, embedding=1024, feed_forward=4096, vocabulary=8192))
    path = write_dummy(model, variant_of(model, "q4_k_m"), tmp_path)
    header = read_header(path)
    data = path.read_bytes()[header.data_offset :]
    pages = [zlib.crc32(data[at : at + 4096]) for at in range(0, len(data) - 4095, 4096)]
    assert len(pages) > 4000
    assert len(set(pages)) == len(pages)
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_it_is_written_once_and_again_when_damaged(tmp_path: Path) -> None:
    """A finished file is kept, a truncated one replaced, and no half-written one is left behind."""
    model = model_of(PLAIN)
    variant = variant_of(model, "q8_0")
    path = write_dummy(model, variant, tmp_path)
    first = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    assert write_dummy(model, variant, tmp_path) == path
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(first[: len(first) // 2])
    assert write_dummy(model, variant, tmp_path).read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle removes what was written."""
    model = model_of(PLAIN)

    def stop(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dummy(model, variant_of(model, "q8_0"), tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A disk too small and a shape that is not known are refused before anything is written."""
    huge = model_of(
        dataclasses.replace(PLAIN, layers=4000, embedding=65536, feed_forward=1 << 20, kv_heads=(2,) * 4000)
    )
    with pytest.raises(NoFitError, match="are free in"):
        write_dummy(huge, variant_of(huge, "f16"), tmp_path)
    unknown = model_of(dataclasses.replace(PLAIN, family="mamba"))
    with pytest.raises(UsageError, match="no synthetic weights"):
        write_dummy(unknown, variant_of(unknown, "q8_0"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def computed(path: Path) -> dict[str, float]:
    """What llama.cpp makes of the file, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.logits_of", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    parameters, finite, spread = done.stdout.split()
    return {"parameters": int(parameters), "finite": finite == "True", "spread": float(spread)}
