"""Which tensors a model of an architecture has, and what number types a quantisation gives them. Pure.

From a handful of published numbers follow the exact parameter count, the bytes of a weight file that is not here, what
one GPU of several holds, and a synthetic file of the same shape. Tensor names and shapes are llama.cpp's
(src/models/*.cpp), the choice of types within a mixture such as Q4_K_M that of its quantiser (src/llama-quant.cpp);
tests/unit/registry holds both against published parameter counts and file sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from serving.gguf import TYPES, TensorType
from serving.registry.model import Architecture, TensorSum

Role = Literal["embedding", "matrix", "expert", "other"]

TYPE: Final[dict[str, TensorType]] = {kind.name: kind for kind in TYPES.values()}
"""ggml's number types by name."""

_MIXTURES: Final[dict[str, str]] = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q4_k_m": "Q4_K",
    "q4_k_s": "Q4_K",
    "q3_k_m": "Q3_K",
    "q3_k_l": "Q3_K",
    "q2_k": "Q2_K",
    "q4_0": "Q4_0",
    "q4_1": "Q4_1",
    "mxfp4": "MXFP4",
}
GGUF_QUANTISATIONS: Final = tuple(_MIXTURES)
"""Names of variants whose file can be foretold."""

_FALLBACK: Final = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What the quantiser takes where a row is not a multiple of 256."""

_QKV_BIAS: Final = frozenset({"qwen2", "gpt-oss"})
_HEAD_NORMS: Final = frozenset({"qwen3", "qwen3moe", "gemma3"})
_POST_NORMS: Final = frozenset({"gemma2", "gemma3"})
_LLAMA_LIKE: Final = frozenset({"llama", "granite", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "deepseek"})
FAMILIES: Final = _LLAMA_LIKE | {"phi3", "gpt-oss", "deepseek2", "command-r", "bert"}
"""Families whose tensors are known here."""


@dataclass(frozen=True, slots=True)
class TensorShape:
    """One tensor of a model. `shape` is in ggml's order: the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Count of numbers."""
        return math.prod(self.shape)

    @property
    def layer(self) -> int | None:
        """The layer it belongs to; None for what stands outside of them."""
        return int(self.name.split(".")[1]) if self.name.startswith("blk.") else None

    @property
    def role(self) -> Role:
        """What it is for, as far as loading treats it differently."""
        dimensions = sum(1 for length in self.shape if length > 1)
        if self.name == "token_embd.weight":
            return "embedding"
        if dimensions < 2 or not self.name.endswith(".weight") or "norm" in self.name or "embd" in self.name:
            return "other"
        return "expert" if dimensions == 3 else "matrix"


def tensors_of(architecture: Architecture) -> tuple[TensorShape, ...] | None:
    """All tensors of a model of this shape, in a weight file's order; None for a family that is not known here.

    Factors of rotary scaling are left out: they are computed, not learnt.
    """
    if architecture.family not in FAMILIES or not architecture.vocabulary:
        return None
    if architecture.family == "bert":
        return tuple(_encoder(architecture))
    return tuple(_decoder(architecture))


def parameters_of(architecture: Architecture) -> int | None:
    """How many numbers are learnt in the text model; None for a family that is not known here."""
    shapes = tensors_of(architecture)
    return None if shapes is None else sum(shape.elements for shape in shapes)


def active_parameters_of(architecture: Architecture) -> int | None:
    """How many of them one token is multiplied with: of the experts, those used; the embedding is looked up only."""
    shapes = tensors_of(architecture)
    if shapes is None:
        return None
    total = 0.0
    for shape in shapes:
        if shape.role == "embedding" and not architecture.tied:
            continue
        share = 1.0
        if "_exps." in shape.name and architecture.experts and architecture.experts_used:
            share = architecture.experts_used / architecture.experts
        total += shape.elements * share
    return round(total)


def gguf_types(architecture: Architecture, quantisation: str) -> tuple[tuple[TensorShape, TensorType], ...] | None:
    """Each tensor with the number type that llama.cpp's quantiser gives it; None where this is not known here."""
    shapes = tensors_of(architecture)
    if shapes is None or quantisation not in _MIXTURES:
        return None
    choose = _Quantiser(architecture, quantisation, shapes).choose
    return tuple((shape, TYPE[choose(shape)]) for shape in shapes)


def tensor_bytes(shape: TensorShape, kind: TensorType) -> int:
    """Bytes that a tensor takes in a file, padding not counted."""
    return shape.elements // kind.block * kind.block_bytes


def sum_tensors(typed: tuple[tuple[TensorShape, TensorType], ...]) -> tuple[TensorSum, ...]:
    """The tensors added up by type and role, as `describe` does for a file."""
    sums: dict[tuple[str, Role, bool], int] = {}
    for shape, kind in typed:
        rows = shape.shape[1] if len(shape.shape) > 1 else 1
        key = (kind.name, shape.role, rows % 8 == 0)
        sums[key] = sums.get(key, 0) + tensor_bytes(shape, kind)
    return tuple(TensorSum(kind, role, size, by_8) for (kind, role, by_8), size in sorted(sums.items()))


def _decoder(it: Architecture) -> Iterator[TensorShape]:
    yield TensorShape("token_embd.weight", (it.embedding, it.vocabulary or 0))
    for layer in range(it.layers):
        for name, *shape in (*_attention(it, layer), *_feeding(it, layer)):
            yield TensorShape(f"blk.{layer}.{name}", tuple(shape))
    yield TensorShape("output_norm.weight", (it.embedding,))
    if not it.tied:
        yield TensorShape("output.weight", (it.embedding, it.vocabulary or 0))


def _attention(it: Architecture, layer: int) -> Iterator[tuple[str, *tuple[int, ...]]]:
    width, queries = it.embedding, it.heads * it.key_length
    keys = it.kv_heads[layer] * it.key_length
    values = it.kv_heads[layer] * it.value_length
    yield "attn_norm.weight", width
    if it.family == "deepseek2":
        yield from _latent_attention(it)
        return
    if it.family == "phi3":
        yield "attn_qkv.weight", width, queries + keys + values
    else:
        for name, length in (("q", queries), ("k", keys), ("v", values)):
            yield f"attn_{name}.weight", width, length
            if it.family in _QKV_BIAS:
                yield f"attn_{name}.bias", length
    yield "attn_output.weight", it.heads * it.value_length, width
    if it.family in _HEAD_NORMS:
        yield "attn_q_norm.weight", it.key_length
        yield "attn_k_norm.weight", it.key_length
    if it.family == "gpt-oss":
        yield "attn_output.bias", width
        yield "attn_sinks.weight", it.heads
    if it.family in _POST_NORMS:
        yield "post_attention_norm.weight", width


def _latent_attention(it: Architecture) -> Iterator[tuple[str, *tuple[int, ...]]]:
    width, rank = it.embedding, it.kv_rank or 0
    key, value = it.key_length_mla or 0, it.value_length_mla or 0
    rotary = it.key_length - rank
    if it.q_rank:
        yield "attn_q_a.weight", width, it.q_rank
        yield "attn_q_a_norm.weight", it.q_rank
        yield "attn_q_b.weight", it.q_rank, it.heads * key
    else:
        yield "attn_q.weight", width, it.heads * key
    yield "attn_kv_a_mqa.weight", width, rank + rotary
    yield "attn_kv_a_norm.weight", rank
    yield "attn_k_b.weight", key - rotary, rank, it.heads
    yield "attn_v_b.weight", rank, value, it.heads
    yield "attn_output.weight", it.heads * value, width


def _feeding(it: Architecture, layer: int) -> Iterator[tuple[str, *tuple[int, ...]]]:
    width, inner = it.embedding, it.feed_forward or 0
    if it.family == "gpt-oss":
        yield "post_attention_norm.weight", width
    elif it.family != "command-r":
        yield "ffn_norm.weight", width
    if it.experts and layer >= it.dense_layers:
        yield from _experts(it)
    elif it.family == "phi3":
        yield "ffn_up.weight", width, 2 * inner
        yield "ffn_down.weight", inner, width
    else:
        yield "ffn_gate.weight", width, inner
        yield "ffn_up.weight", width, inner
        yield "ffn_down.weight", inner, width
    if it.family in _POST_NORMS:
        yield "post_ffw_norm.weight", width


def _experts(it: Architecture) -> Iterator[tuple[str, *tuple[int, ...]]]:
    width, count = it.embedding, it.experts or 0
    inner = it.expert_feed_forward or it.feed_forward or 0
    yield "ffn_gate_inp.weight", width, count
    biased = it.family == "gpt-oss"
    if biased:
        yield "ffn_gate_inp.bias", count
    if it.family == "deepseek2" and it.q_rank:  # V3's balancing without an auxiliary loss; V2-Lite has neither
        yield "exp_probs_b.bias", count
    for name, rows, columns in (("gate", width, inner), ("up", width, inner), ("down", inner, width)):
        yield f"ffn_{name}_exps.weight", rows, columns, count
        if biased:
            yield f"ffn_{name}_exps.bias", columns, count
    if it.shared_experts:
        shared = it.shared_experts * inner
        yield "ffn_gate_shexp.weight", width, shared
        yield "ffn_up_shexp.weight", width, shared
        yield "ffn_down_shexp.weight", shared, width


def _encoder(it: Architecture) -> Iterator[TensorShape]:
    """XLM-RoBERTa and BERT, whose every matrix and norm has a bias. Its pooler is not kept in GGUF files."""
    width, inner = it.embedding, it.feed_forward or 0
    yield TensorShape("token_embd.weight", (width, it.vocabulary or 0))
    yield TensorShape("position_embd.weight", (width, it.positions or 0))
    yield TensorShape("token_types.weight", (width, 1))
    matrices = (
        *((f"attn_{name}", width, width) for name in ("q", "k", "v", "output")),
        ("ffn_up", width, inner),
        ("ffn_down", inner, width),
    )
    norms = ("attn_output_norm", "layer_output_norm")
    for name in ("token_embd_norm", *(f"blk.{layer}.{norm}" for layer in range(it.layers) for norm in norms)):
        yield TensorShape(f"{name}.weight", (width,))
        yield TensorShape(f"{name}.bias", (width,))
    for layer in range(it.layers):
        for name, columns, rows in matrices:
            yield TensorShape(f"blk.{layer}.{name}.weight", (columns, rows))
            yield TensorShape(f"blk.{layer}.{name}.bias", (rows,))


class _Quantiser:
    """llama.cpp's choice of a type for each tensor of a mixture, for the mixtures in `_MIXTURES`."""

    def __init__(self, architecture: Architecture, quantisation: str, shapes: tuple[TensorShape, ...]) -> None:
        self._it = architecture
        self._mixture = quantisation
        self._default = _MIXTURES[quantisation]
        self._has_output = any(shape.name == "output.weight" for shape in shapes)
        # llama.cpp counts the layers that have a value matrix (its own or fused), in order.
        with_value = [s.layer for s in shapes if s.name.endswith(("attn_v.weight", "attn_qkv.weight"))]
        self._value_index = {layer: index for index, layer in enumerate(sorted(x for x in with_value if x is not None))}
        self._gqa = architecture.heads // max(1, max(architecture.kv_heads, default=1))

    def choose(self, tensor: TensorShape) -> str:
        kept = sum(1 for length in tensor.shape if length > 1) < 2 or not tensor.name.endswith(".weight")
        if kept or any(part in tensor.name for part in ("_norm.", "ffn_gate_inp", "position_embd", "token_types")):
            return "F32"
        if self._default in ("F32", "F16", "BF16"):
            return self._default
        kind = self._mixed(tensor)
        if tensor.shape[0] % TYPE[kind].block:
            kind = _FALLBACK.get(kind, kind)
        return kind if tensor.shape[0] % TYPE[kind].block == 0 else "F16"

    def _mixed(self, tensor: TensorShape) -> str:
        name, default = tensor.name, self._default
        if name == "output.weight" or (name == "token_embd.weight" and not self._has_output):
            rows_fit = tensor.shape[0] % TYPE[default].block == 0
            if self._mixture == "mxfp4" or not rows_fit or default == "Q8_0":
                return "Q8_0"
            return "Q6_K"
        if self._mixture == "mxfp4":
            return "MXFP4" if len(tensor.shape) == 3 else "Q8_0"
        part = name.rsplit(".", 2)[-2]
        rules: dict[str, Callable[[int], str]] = {
            "attn_v": self._value,
            "attn_qkv": self._fused,
            "attn_k": lambda _: "Q8_0" if self._it.experts == 8 else default,
            "attn_output": lambda _: self._attention_output(),
        }
        rule = rules.get(part)
        if rule is None and part.startswith("ffn_down"):
            rule = self._down
        return rule(tensor.layer) if rule and tensor.layer is not None else default

    def _value(self, layer: int) -> str:
        index, count = self._value_index[layer], len(self._value_index)
        kind = self._default
        match self._mixture:
            case "q2_k":
                kind = "Q4_K" if self._gqa >= 4 else "Q3_K"
            case "q3_k_m":
                kind = "Q5_K" if index < 2 else "Q4_K"
            case "q3_k_l":
                kind = "Q5_K"
            case "q4_k_m" | "q5_k_m" if _more_bits(index, count):
                kind = "Q6_K"
            case "q4_k_s" if index < 4:
                kind = "Q5_K"
        if self._it.layers == 80 and self._it.family in ("llama", "qwen2") and kind in ("Q3_K", "Q4_K"):
            kind = "Q5_K"
        return "Q8_0" if self._it.experts == 8 else kind

    def _fused(self, layer: int) -> str:
        # llama.cpp treats the fused matrix as a value matrix first; its own rule for the fused one is never reached.
        return self._value(layer)

    def _attention_output(self) -> str:
        if self._it.experts == 8:
            return "Q5_K" if self._mixture in ("q2_k", "q3_k_m", "q4_k_s", "q4_k_m") else self._default
        return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(self._mixture, self._default)

    def _down(self, layer: int) -> str:
        count = self._it.layers
        match self._mixture:
            case "q2_k":
                return "Q3_K"
            case "q3_k_m":
                return "Q5_K" if layer < count // 16 else "Q4_K"
            case "q3_k_l":
                return "Q5_K"
            case "q4_k_m" | "q5_k_m" if _more_bits(layer, count):
                return "Q6_K"
            case "q4_k_s" if layer < count // 8:
                return "Q5_K"
        return self._default


def _more_bits(index: int, count: int) -> bool:
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
