"""Tiny models with random weights, one per kind of memory that llama.cpp has, and vocabularies without a model.

The weights are F32 and scaled so that logits spread over several units: a wrong or missing cell changes them by far
more than rounding does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH = 64
HEADS = 4
KV_HEADS = 2
HEAD_SIZE = WIDTH // HEADS
HIDDEN = 128
WINDOW = 32
"""Tokens that the sliding-window model's window layers look back."""
CONTEXT_TRAINED = 4096

END = "<|end|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MERGES = [f"{left} {right}" for left, right in itertools.pairwise(LETTERS)] + ["a a", "aa aa", "Ġ Ġ"]


def byte_letters() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte: itself where printable, else from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + index) for index, byte in enumerate(others)}


TOKENS = [*byte_letters().values(), *(merge.replace(" ", "") for merge in MERGES), END]
N_VOCAB = len(TOKENS)


def _add_vocabulary(writer: gguf.GGUFWriter, pre: str, model: str = "gpt2") -> None:
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * (N_VOCAB - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(N_VOCAB - 1)
    writer.add_add_bos_token(False)


class _Weights:
    """Random matrices; `outputs × inputs`, as gguf stores them."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.writer = writer

    def put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self.writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))

    def matrix(self, name: str, outputs: int, inputs: int, gain: float = 1.0) -> None:
        self.put(f"{name}.weight", self.random.normal(0, gain / np.sqrt(inputs), (outputs, inputs)))

    def norm(self, name: str, size: int = WIDTH) -> None:
        self.put(f"{name}.weight", self.random.uniform(0.7, 1.3, size))

    def ends(self, norm: str) -> None:
        self.put("token_embd.weight", self.random.normal(0, 1, (N_VOCAB, WIDTH)))
        self.norm(norm)
        self.matrix("output", N_VOCAB, WIDTH, gain=4.0)

    def attention(self, block: str, *, normed: bool) -> None:
        # queries and keys are large on purpose: attention must be sharp for a missing cell to matter
        self.matrix(f"{block}.attn_q", WIDTH, WIDTH, gain=1.5)
        self.matrix(f"{block}.attn_k", KV_HEADS * HEAD_SIZE, WIDTH, gain=1.5)
        self.matrix(f"{block}.attn_v", KV_HEADS * HEAD_SIZE, WIDTH)
        self.matrix(f"{block}.attn_output", WIDTH, WIDTH)
        if normed:
            self.norm(f"{block}.attn_q_norm", HEAD_SIZE)
            self.norm(f"{block}.attn_k_norm", HEAD_SIZE)

    def feed_forward(self, block: str) -> None:
        self.norm(f"{block}.ffn_norm")
        self.matrix(f"{block}.ffn_gate", HIDDEN, WIDTH)
        self.matrix(f"{block}.ffn_up", HIDDEN, WIDTH)
        self.matrix(f"{block}.ffn_down", WIDTH, HIDDEN)


def _common(writer: gguf.GGUFWriter, layers: int, kv_heads: int | list[int] = KV_HEADS) -> None:
    writer.add_context_length(CONTEXT_TRAINED)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)


def _plain(writer: gguf.GGUFWriter, weights: _Weights) -> None:
    layers = 3
    _common(writer, layers)
    writer.add_rope_dimension_count(HEAD_SIZE)
    weights.ends("output_norm")
    for block in (f"blk.{index}" for index in range(layers)):
        weights.norm(f"{block}.attn_norm")
        weights.attention(block, normed=False)
        weights.feed_forward(block)


def _window(writer: gguf.GGUFWriter, weights: _Weights) -> None:
    layers = 4
    _common(writer, layers)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_sliding_window(WINDOW)
    writer.add_uint32("gemma3.attention.sliding_window_pattern", 2)
    weights.ends("output_norm")
    for block in (f"blk.{index}" for index in range(layers)):
        weights.norm(f"{block}.attn_norm")
        weights.attention(block, normed=True)
        weights.norm(f"{block}.post_attention_norm")
        weights.feed_forward(block)
        weights.norm(f"{block}.post_ffw_norm")


def _hybrid(writer: gguf.GGUFWriter, weights: _Weights) -> None:
    kernel, kv_heads = 3, [0, KV_HEADS, 0, KV_HEADS]
    _common(writer, len(kv_heads), kv_heads)
    writer.add_shortconv_l_cache(kernel)
    weights.ends("token_embd_norm")
    for index, heads in enumerate(kv_heads):
        block = f"blk.{index}"
        weights.norm(f"{block}.attn_norm")
        if heads:
            weights.attention(block, normed=True)
        else:
            weights.matrix(f"{block}.shortconv.conv", WIDTH, kernel)
            weights.matrix(f"{block}.shortconv.in_proj", 3 * WIDTH, WIDTH)
            weights.matrix(f"{block}.shortconv.out_proj", WIDTH, WIDTH)
        weights.feed_forward(block)


def _recurrent(writer: gguf.GGUFWriter, weights: _Weights) -> None:
    layers, kernel, inner, state, rank = 2, 4, 2 * WIDTH, 16, 8
    writer.add_context_length(CONTEXT_TRAINED)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    weights.ends("output_norm")
    for block in (f"blk.{index}" for index in range(layers)):
        weights.norm(f"{block}.attn_norm")
        weights.matrix(f"{block}.ssm_in", 2 * inner, WIDTH)
        weights.matrix(f"{block}.ssm_conv1d", inner, kernel)
        weights.put(f"{block}.ssm_conv1d.bias", np.zeros(inner))
        weights.matrix(f"{block}.ssm_x", rank + 2 * state, inner)
        weights.matrix(f"{block}.ssm_dt", inner, rank, gain=0.3)
        # a state that forgets slowly, so that what came hundreds of tokens before still shows
        weights.put(f"{block}.ssm_dt.bias", np.log(np.expm1(weights.random.uniform(0.01, 0.1, inner))))
        weights.put(f"{block}.ssm_a", -np.tile(np.linspace(0.01, 1.0, state), (inner, 1)))
        weights.put(f"{block}.ssm_d", np.ones(inner))
        weights.matrix(f"{block}.ssm_out", WIDTH, inner)


_MODELS: dict[str, tuple[str, Callable[[gguf.GGUFWriter, _Weights], None]]] = {
    "plain": ("llama", _plain),
    "window": ("gemma3", _window),
    "hybrid": ("lfm2", _hybrid),
    "recurrent": ("mamba", _recurrent),
}
MODELS = tuple(_MODELS)


def write_model(folder: Path, kind: str) -> Path:
    """The GGUF of one of `MODELS`, written into `folder` unless it is there."""
    path = folder / f"{kind}.gguf"
    if not path.exists():
        architecture, fill = _MODELS[kind]
        writer = gguf.GGUFWriter(path, architecture)
        _add_vocabulary(writer, "gpt-2")
        fill(writer, _Weights(writer, seed=len(kind)))
        _write(writer, with_tensors=True)
    return path


def write_vocabulary(folder: Path, pre: str, model: str = "gpt2") -> Path:
    """A GGUF of nothing but a byte-level BPE vocabulary of this pre-tokenizer type."""
    path = folder / f"vocabulary-{pre}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    _common(writer, 1)
    _add_vocabulary(writer, pre, model)
    _write(writer, with_tensors=False)
    return path


def _write(writer: gguf.GGUFWriter, *, with_tensors: bool) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if with_tensors:
        writer.write_tensors_to_file()
    writer.close()
