"""How much memory the llama.cpp engine takes, line by line.

Each formula follows what llama.cpp allocates (the version that llama-cpp-python 0.3.36 pins), was fitted to dry runs
over fourteen architectures and checked against running engines: docs/decisions/0012 has the tables. Numbers are bytes
that become resident, not what is merely reserved.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final

from serving.planner.text import counted
from serving.planner.types import KvDtype, KvLayout, LoadMode, MemoryKind, MemoryLine
from serving.registry import Architecture, TensorSum, Variant

CELL_STEP: Final = 256
"""llama.cpp rounds the cells of a cache (and of each stream) up to this (llama-context.cpp: GGML_PAD)."""
PROCESS_BYTES: Final = 40 * 1024**2
"""Python, the HTTP server and llama.cpp's own structures, anonymous; measured with an engine that served."""
CODE_BYTES: Final = 25 * 1024**2
"""Shared libraries and the interpreter, file-backed; measured likewise."""
VOCABULARY_BYTES: Final = 155
"""Per token and merge rule, for llama.cpp's tables; measured over 19 vocabularies: 119 to 176 (a T5 one: 524)."""
KV_BYTES: Final[dict[KvDtype, float]] = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "fp8": 1}
DRIVER_BYTES: Final = 450 * 1024**2
"""What the CUDA context and its libraries keep on a GPU: a reserve, by what nvidia-smi shows of idle contexts."""
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
    gpu_layers: int = 0
    """Layers on the GPU, from the last one on; one more than there are takes the output matrix along."""

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
        *_weights(architecture, variant, shape),
        *_kv(architecture, shape),
        _compute(architecture, shape),
        _masks(architecture, shape),
        _work(architecture, shape),
        _output(architecture, shape),
        _vocabulary(architecture, variant),
    ]
    if architecture.recurrent_state:
        numbers = shape.concurrency * architecture.recurrent_state
        formula = f"{counted(shape.concurrency, 'sequence')} × {architecture.recurrent_state} numbers × 4 bytes"
        lines.append(MemoryLine("recurrent state", numbers * 4, "anonymous", formula))
    if shape.gpu_layers:
        buffers = _compute(architecture, shape).bytes + _masks(architecture, shape).bytes
        lines.append(MemoryLine("GPU compute buffers", buffers, "gpu", "as in main memory"))
        lines.append(MemoryLine("GPU driver", DRIVER_BYTES, "gpu", "CUDA context and libraries, a reserve"))
    if shape.snapshot_bytes:
        formula = "engines.llamacpp.snapshot_bytes, four whole contexts at most"
        lines.append(MemoryLine("prefix snapshots", shape.snapshot_bytes, "anonymous", formula, as_used=True))
    lines.append(MemoryLine("process", PROCESS_BYTES, "anonymous", "Python and its packages, measured"))
    lines.append(MemoryLine("code", CODE_BYTES, "file", "interpreter and shared libraries, measured"))
    return tuple(lines)


def offloaded_bytes(architecture: Architecture, variant: Variant, gpu_layers: int) -> int:
    """Bytes of weights that so many layers on the GPU take there: equal shares, and the output matrix with the last."""
    size = variant.size_bytes or 0
    vocabulary = (architecture.vocabulary or 0) * architecture.embedding
    embedding = sum(group.size_bytes for group in variant.tensors if group.role == "embedding")
    # A tied output matrix is a second copy of the embedding on the GPU; another one is as large, or a little larger.
    output = embedding or vocabulary
    inner = max(0, size - embedding - (0 if variant.tied_output else output))
    layers = min(gpu_layers, architecture.layers)
    return inner * layers // architecture.layers + (output if gpu_layers > architecture.layers else 0)


def kv_bytes_per_token(architecture: Architecture, kv_dtype: KvDtype) -> int:
    """Bytes that one token takes in all layers together, windowed ones included."""
    return round(_widths_up_to(architecture)[0][-1] * KV_BYTES[kv_dtype])


def repacked_bytes(tensors: tuple[TensorSum, ...], isa: tuple[str, ...], *, tied_output: bool) -> int:
    """Bytes of the second, interleaved copy that llama.cpp makes of some quantised matrices on this CPU."""
    return sum(group.size_bytes for group in tensors if _is_repacked(group, isa, tied_output=tied_output))


def _is_repacked(group: TensorSum, isa: tuple[str, ...], *, tied_output: bool) -> bool:
    by_x86 = _REPACKED_BY.get(group.type) in isa
    by_arm = "asimddp" in isa and group.type in _REPACKED_ON_ARM
    if not (by_x86 or by_arm) or not group.rows_by_8:
        return False
    return group.role in ("matrix", "expert") or (group.role == "embedding" and tied_output)


def _weights(architecture: Architecture, variant: Variant, shape: Shape) -> list[MemoryLine]:
    """The file as it is mapped, and beside it the copies; or, read in, each tensor once.

    Read in, a tied embedding that is repacked is there twice, since the rows of the original are still looked up.
    """
    size = variant.size_bytes or 0
    repacked = repacked_bytes(variant.tensors, shape.isa, tied_output=variant.tied_output)
    if shape.gpu_layers:
        on_gpu = offloaded_bytes(architecture, variant, shape.gpu_layers)
        size = max(0, size - on_gpu)
        repacked = repacked * (architecture.layers - min(shape.gpu_layers, architecture.layers)) // architecture.layers
        formula = f"{shape.gpu_layers} of {architecture.layers} layers and the output"
        return [MemoryLine("GPU weights", on_gpu, "gpu", formula), *_host_weights(variant, shape, size, repacked)]
    return _host_weights(variant, shape, size, repacked)


def _host_weights(variant: Variant, shape: Shape, size: int, repacked: int) -> list[MemoryLine]:
    if shape.load_mode == "none":
        twice = max(0, repacked - repacked_bytes(variant.tensors, shape.isa, tied_output=False))
        formula = f"file of {size} bytes, read into memory"
        return [MemoryLine("weights", size + twice, "anonymous", formula + (f", {twice} of it twice" if twice else ""))]
    lines = [MemoryLine("weights", size, "file", f"file of {size} bytes, mapped")]
    if repacked:
        lines.append(MemoryLine("repacked weights", repacked, "anonymous", "interleaved copy of quantised matrices"))
    return lines


def _kv_width(architecture: Architecture, layer: int) -> int:
    heads = architecture.kv_heads[layer] if layer < len(architecture.kv_heads) else 0
    return heads * (architecture.key_length + (0 if architecture.latent else architecture.value_length))


@functools.lru_cache(maxsize=64)
def _widths_up_to(architecture: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers that one token takes in the first n layers, for every n: in all of them, and in the windowed ones."""
    every, some = [0], [0]
    for layer in range(architecture.layers):
        width = _kv_width(architecture, layer)
        every.append(every[-1] + width)
        seen = layer < len(architecture.windowed) and architecture.windowed[layer]
        some.append(some[-1] + (width if seen else 0))
    return tuple(every), tuple(some)


def _window_cells(architecture: Architecture, shape: Shape) -> int:
    """Cells of one region that windowed layers keep; 0 where none is windowed (llama-kv-cache-iswa.cpp)."""
    if architecture.sliding_window is None or not any(architecture.windowed):
        return 0
    if shape.swa_full:
        return shape.cells
    sequences = shape.concurrency if shape.kv_layout == "unified" else 1
    return pad(min(shape.cells, architecture.sliding_window * sequences + shape.n_ubatch))


def _kv(architecture: Architecture, shape: Shape) -> list[MemoryLine]:
    """The cache of each layer lies where the layer is computed."""
    on_host = max(0, architecture.layers - shape.gpu_layers)
    lines = [_kv_of(architecture, shape, range(on_host), "KV cache", "anonymous")]
    if shape.gpu_layers:
        lines.append(_kv_of(architecture, shape, range(on_host, architecture.layers), "GPU KV cache", "gpu"))
    return lines


def _kv_of(architecture: Architecture, shape: Shape, layers: range, name: str, kind: MemoryKind) -> MemoryLine:
    short = _window_cells(architecture, shape)
    every, some = _widths_up_to(architecture)
    windowed = some[layers.stop] - some[layers.start] if short else 0
    full = every[layers.stop] - every[layers.start] - windowed
    size = KV_BYTES[shape.kv_dtype]
    total = shape.streams * (shape.cells * full + short * windowed) * size
    formula = f"{shape.streams} × {shape.cells} cells × {full} numbers × {size:g} bytes"
    if windowed:
        formula += f" + {shape.streams} × {short} cells × {windowed} windowed numbers × {size:g} bytes"
    return MemoryLine(name, round(total), kind, formula)


def _compute(architecture: Architecture, shape: Shape) -> MemoryLine:
    """The graph's buffer, attention masks apart: the largest of its phases.

    Fitted to dry runs: exact for most families, within 2% for gemma and 4% for latent attention. A cache of f32 is
    converted to f16 as a whole, layer by layer, before flash attention reads it.
    """
    tokens = min(shape.n_ubatch, shape.cells * shape.streams)
    embedding = architecture.embedding
    used = architecture.experts_used
    inner = architecture.feed_forward or 4 * embedding
    numbers = 0
    if used is None or architecture.dense_layers:
        numbers = 4 * embedding + 3 * inner
    if used is not None:
        expert = architecture.expert_feed_forward or inner
        numbers = max(numbers, 4 * embedding + 3 * used * expert, 3 * embedding + used * (2 * embedding + expert))
    if architecture.latent:
        numbers = max(numbers, 4 * embedding + architecture.heads * _latent_width(architecture))
    feeding = tokens * numbers * 4
    # The last layer needs no masks any more, and takes their place in the buffer.
    logits = shape.concurrency * (architecture.vocabulary or 0) + (tokens + 2 * shape.concurrency) * embedding
    output = logits * 4 - _masks(architecture, shape).bytes
    attending = tokens * 5 * embedding * 4
    if shape.kv_dtype == "f32":
        every, _ = _widths_up_to(architecture)
        widest = max((after - before for before, after in itertools.pairwise(every)), default=0)
        attending += shape.streams * shape.cells * widest * 2
    formula = f"{tokens} tokens × {numbers} numbers × 4 bytes"
    if max(output, attending) > feeding:
        formula = "logits and the last layer" if output > attending else "attention over a converted cache"
    return MemoryLine("compute buffers", max(feeding, output, attending), "anonymous", formula)


def _latent_width(architecture: Architecture) -> int:
    """Numbers that one head of latent attention has in flight: its query as it is, projected, and put together.

    Within 4% of dry runs of DeepSeek-V3 and of smaller shapes.
    """
    rank = architecture.kv_rank or 0
    rotary = architecture.key_length - rank
    return (architecture.key_length_mla or 0) + rank + architecture.key_length + rotary


def _masks(architecture: Architecture, shape: Shape) -> MemoryLine:
    """Part of the graph's buffer too, written only as far as the cache is filled."""
    tokens = min(shape.n_ubatch, shape.cells * shape.streams)
    cells = shape.cells + _window_cells(architecture, shape)
    formula = f"{cells} cells × {tokens} tokens × 2 bytes"
    return MemoryLine("attention masks", cells * tokens * 2, "anonymous", formula, as_used=True)


def _work(architecture: Architecture, shape: Shape) -> MemoryLine:
    """Where activations are converted to what the weights are multiplied with, two bytes a number at most."""
    tokens = min(shape.n_ubatch, shape.cells * shape.streams or shape.n_ubatch)
    used = architecture.experts_used or 1
    inner = architecture.feed_forward or 4 * architecture.embedding
    if architecture.experts_used:
        inner = used * (architecture.expert_feed_forward or inner)
    widest = max(inner, architecture.embedding, architecture.heads * architecture.key_length)
    return MemoryLine("work buffer", tokens * widest * 2, "anonymous", f"{tokens} tokens × {widest} numbers × 2 bytes")


def _output(architecture: Architecture, shape: Shape) -> MemoryLine:
    vocabulary = architecture.vocabulary or 0
    total = shape.concurrency * vocabulary * 4
    formula = f"{counted(shape.concurrency, 'row')} × {vocabulary} logits × 4 bytes"
    return MemoryLine("output", total, "anonymous", formula)


def _vocabulary(architecture: Architecture, variant: Variant) -> MemoryLine:
    entries = variant.vocabulary_entries
    if entries is None:
        entries = (4 if architecture.encoder else 3) * (architecture.vocabulary or 0)
    formula = f"{entries} tokens and merges × {VOCABULARY_BYTES} bytes"
    return MemoryLine("vocabulary", entries * VOCABULARY_BYTES, "anonymous", formula)


def plan_pooling_memory(architecture: Architecture, variant: Variant, shape: Shape) -> tuple[MemoryLine, ...]:
    """The memory table of an engine that embeds or ranks. The total grows with the longest text.

    `shape.n_ubatch` is the tokens of one pass: a whole text of an encoder, which has no cache (`kv_tokens` 0).
    """
    lines = _weights(architecture, variant, shape)
    tokens = shape.n_ubatch
    embedding, inner = architecture.embedding, architecture.feed_forward or 4 * architecture.embedding
    if shape.kv_tokens:
        lines += _kv(architecture, shape)
        vocabulary = architecture.vocabulary or 0
        # Each token of a pass is an output: logits are computed for all of them, though nobody asked for any.
        lines.append(_logits("compute buffers", tokens, vocabulary + embedding))
        lines.append(_logits("output", tokens, vocabulary))
    else:
        # Feeding forward, or attending: read from dry runs of eight shapes, exact for all of them.
        numbers = max(3 * embedding + inner, 11 * embedding // 2) + shape.concurrency + 2
        formula = f"{tokens} tokens × {numbers} numbers × 4 bytes"
        lines.append(MemoryLine("compute buffers", tokens * numbers * 4, "anonymous", formula))
    keys = shape.kv_tokens or tokens
    mask = f"{keys} × {tokens} tokens × 2 bytes"
    lines += [
        MemoryLine("attention masks", keys * tokens * 2, "anonymous", mask),
        _work(architecture, shape),
        _vocabulary(architecture, variant),
        MemoryLine("process", PROCESS_BYTES, "anonymous", "Python and its packages, measured"),
        MemoryLine("code", CODE_BYTES, "file", "interpreter and shared libraries, measured"),
    ]
    return tuple(lines)


def _logits(name: str, tokens: int, numbers: int) -> MemoryLine:
    return MemoryLine(name, tokens * numbers * 4, "anonymous", f"{tokens} rows × {numbers} numbers × 4 bytes")
