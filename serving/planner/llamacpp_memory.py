"""How much memory the llama.cpp engine takes, line by line.

Each formula follows what llama.cpp allocates (the version that llama-cpp-python 0.3.36 pins), was fitted to dry runs
over fourteen architectures and checked against running engines: docs/decisions/0012 has the tables. Numbers are bytes
that become resident, not what is merely reserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from serving.planner.types import KvDtype, KvLayout, LoadMode, MemoryLine
from serving.registry import Architecture, TensorSum, Variant

CELL_STEP: Final = 256
"""llama.cpp rounds the cells of a cache (and of each stream) up to this (llama-context.cpp: GGML_PAD)."""
PROCESS_BYTES: Final = 40 * 1024**2
"""Python, the HTTP server and llama.cpp's own structures, anonymous; measured with an engine that served."""
CODE_BYTES: Final = 25 * 1024**2
"""Shared libraries and the interpreter, file-backed; measured likewise."""
VOCABULARY_BYTES: Final = 155
"""Per token and merge rule, for llama.cpp's tables; measured over 19 vocabularies: 119 to 176 (a T5 one: 524)."""
KV_BYTES: Final[dict[KvDtype, float]] = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}
_REPACKED_BY: Final[dict[str, str]] = {
    "Q4_0": "avx2",
    "Q4_K": "avx2",
    "IQ4_NL": "avx2",
    "MXFP4": "avx2",
    "Q2_K": "avx512f",
}
"""Types that llama.cpp copies into an interleaved layout on x86, and the flag that makes it (ggml-cpu/repack.cpp)."""
_REPACKED_ON_ARM: Final = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4")
"""The same where ARM's dot-product instructions are there."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to lay out an engine's memory."""

    context: int
    concurrency: int
    kv_layout: KvLayout
    kv_tokens: int
    kv_dtype: KvDtype
    swa_full: bool
    n_ubatch: int
    load_mode: LoadMode
    snapshot_bytes: int
    isa: tuple[str, ...]

    @property
    def streams(self) -> int:
        """Regions that the cache is made of."""
        return self.concurrency if self.kv_layout == "streams" else 1

    @property
    def cells(self) -> int:
        """Cells of one region."""
        return pad(self.kv_tokens // self.streams)


def pad(tokens: int) -> int:
    """Tokens rounded up to whole steps of llama.cpp's cache."""
    return -(-tokens // CELL_STEP) * CELL_STEP


def plan_memory(architecture: Architecture, variant: Variant, shape: Shape) -> tuple[MemoryLine, ...]:
    """The memory table of an engine of this shape. The total grows with context, concurrency and kv_tokens."""
    lines = [
        *_weights(variant, shape),
        _kv(architecture, shape),
        _compute(architecture, shape),
        _masks(architecture, shape),
        _work(architecture, shape),
        _output(architecture, shape),
        _vocabulary(architecture, variant),
    ]
    if architecture.recurrent_state:
        numbers = shape.concurrency * architecture.recurrent_state
        formula = f"{shape.concurrency} sequences × {architecture.recurrent_state} numbers × 4 bytes"
        lines.append(MemoryLine("recurrent state", numbers * 4, "anonymous", formula))
    if shape.snapshot_bytes:
        formula = "engines.llamacpp.snapshot_bytes, four whole contexts at most"
        lines.append(MemoryLine("prefix snapshots", shape.snapshot_bytes, "anonymous", formula, as_used=True))
    lines.append(MemoryLine("process", PROCESS_BYTES, "anonymous", "Python and its packages, measured"))
    lines.append(MemoryLine("code", CODE_BYTES, "file", "interpreter and shared libraries, measured"))
    return tuple(lines)


def kv_bytes_per_token(architecture: Architecture, kv_dtype: KvDtype) -> int:
    """Bytes that one token takes in all layers together, windowed ones included."""
    return round(sum(_kv_width(architecture, layer) for layer in range(architecture.layers)) * KV_BYTES[kv_dtype])


def repacked_bytes(tensors: tuple[TensorSum, ...], isa: tuple[str, ...], *, tied_output: bool) -> int:
    """Bytes of the second, interleaved copy that llama.cpp makes of some quantised matrices on this CPU."""
    return sum(group.size_bytes for group in tensors if _is_repacked(group, isa, tied_output=tied_output))


def _is_repacked(group: TensorSum, isa: tuple[str, ...], *, tied_output: bool) -> bool:
    by_x86 = _REPACKED_BY.get(group.type) in isa
    by_arm = "asimddp" in isa and group.type in _REPACKED_ON_ARM
    if not (by_x86 or by_arm) or not group.rows_by_8:
        return False
    return group.role in ("matrix", "expert") or (group.role == "embedding" and tied_output)


def _weights(variant: Variant, shape: Shape) -> list[MemoryLine]:
    """The file as it is mapped, and beside it the copies; or, read in, each tensor once.

    Read in, a tied embedding that is repacked is there twice, since the rows of the original are still looked up.
    """
    size = variant.size_bytes or 0
    repacked = repacked_bytes(variant.tensors, shape.isa, tied_output=variant.tied_output)
    if shape.load_mode == "none":
        twice = repacked - repacked_bytes(variant.tensors, shape.isa, tied_output=False)
        formula = f"file of {size} bytes, read into memory"
        return [MemoryLine("weights", size + twice, "anonymous", formula + (f", {twice} of it twice" if twice else ""))]
    lines = [MemoryLine("weights", size, "file", f"file of {size} bytes, mapped")]
    if repacked:
        lines.append(MemoryLine("repacked weights", repacked, "anonymous", "interleaved copy of quantised matrices"))
    return lines


def _kv_width(architecture: Architecture, layer: int) -> int:
    heads = architecture.kv_heads[layer] if layer < len(architecture.kv_heads) else 0
    return heads * (architecture.key_length + (0 if architecture.latent else architecture.value_length))


def _window_cells(architecture: Architecture, shape: Shape) -> int:
    """Cells of one region that windowed layers keep; 0 where none is windowed (llama-kv-cache-iswa.cpp)."""
    if architecture.sliding_window is None or not any(architecture.windowed):
        return 0
    if shape.swa_full:
        return shape.cells
    sequences = shape.concurrency if shape.kv_layout == "unified" else 1
    return pad(min(shape.cells, architecture.sliding_window * sequences + shape.n_ubatch))


def _kv(architecture: Architecture, shape: Shape) -> MemoryLine:
    short = _window_cells(architecture, shape)
    widths = [_kv_width(architecture, layer) for layer in range(architecture.layers)]
    windowed = sum(width for width, is_windowed in zip(widths, architecture.windowed, strict=False) if is_windowed)
    if not short:
        windowed = 0
    full = sum(widths) - windowed
    size = KV_BYTES[shape.kv_dtype]
    total = shape.streams * (shape.cells * full + short * windowed) * size
    formula = f"{shape.streams} × {shape.cells} cells × {full} numbers × {size:g} bytes"
    if windowed:
        formula += f" + {shape.streams} × {short} cells × {windowed} windowed numbers × {size:g} bytes"
    return MemoryLine("KV cache", round(total), "anonymous", formula)


def _compute(architecture: Architecture, shape: Shape) -> MemoryLine:
    """The graph's buffer, attention masks apart: the largest of its phases.

    Fitted to dry runs: exact for llama, qwen2, qwen3 and mixtral shapes, within 2% for gemma. A cache of f32 is
    converted to f16 as a whole, layer by layer, before flash attention reads it.
    """
    tokens = min(shape.n_ubatch, shape.cells * shape.streams)
    embedding = architecture.embedding
    used = architecture.experts_used or 1
    inner = architecture.feed_forward or 4 * embedding
    if architecture.experts_used:
        inner = architecture.expert_feed_forward or inner
    numbers = 4 * embedding + 3 * used * inner
    if architecture.experts_used:
        numbers = max(numbers, 3 * embedding + used * (2 * embedding + inner))
    feeding = tokens * numbers * 4
    # The last layer needs no masks any more, and takes their place in the buffer.
    logits = shape.concurrency * (architecture.vocabulary or 0) + (tokens + 2 * shape.concurrency) * embedding
    output = logits * 4 - _masks(architecture, shape).bytes
    attending = tokens * 5 * embedding * 4
    if shape.kv_dtype == "f32":
        widest = max((_kv_width(architecture, layer) for layer in range(architecture.layers)), default=0)
        attending += shape.streams * shape.cells * widest * 2
    formula = f"{tokens} tokens × {numbers} numbers × 4 bytes"
    if max(output, attending) > feeding:
        formula = "logits and the last layer" if output > attending else "attention over a converted cache"
    return MemoryLine("compute buffers", max(feeding, output, attending), "anonymous", formula)


def _masks(architecture: Architecture, shape: Shape) -> MemoryLine:
    """Part of the graph's buffer too, written only as far as the cache is filled."""
    tokens = min(shape.n_ubatch, shape.cells * shape.streams)
    cells = shape.cells + _window_cells(architecture, shape)
    formula = f"{cells} cells × {tokens} tokens × 2 bytes"
    return MemoryLine("attention masks", cells * tokens * 2, "anonymous", formula, as_used=True)


def _work(architecture: Architecture, shape: Shape) -> MemoryLine:
    """Where activations are converted to what the weights are multiplied with, two bytes a number at most."""
    tokens = min(shape.n_ubatch, shape.cells * shape.streams)
    used = architecture.experts_used or 1
    inner = architecture.feed_forward or 4 * architecture.embedding
    if architecture.experts_used:
        inner = used * (architecture.expert_feed_forward or inner)
    widest = max(inner, architecture.embedding, architecture.heads * architecture.key_length)
    return MemoryLine("work buffer", tokens * widest * 2, "anonymous", f"{tokens} tokens × {widest} numbers × 2 bytes")


def _output(architecture: Architecture, shape: Shape) -> MemoryLine:
    vocabulary = architecture.vocabulary or 0
    total = shape.concurrency * vocabulary * 4
    return MemoryLine("output", total, "anonymous", f"{shape.concurrency} rows × {vocabulary} logits × 4 bytes")


def _vocabulary(architecture: Architecture, variant: Variant) -> MemoryLine:
    entries = variant.vocabulary_entries
    if entries is None:
        entries = 3 * (architecture.vocabulary or 0)
    formula = f"{entries} tokens and merges × {VOCABULARY_BYTES} bytes"
    return MemoryLine("vocabulary", entries * VOCABULARY_BYTES, "anonymous", formula)
