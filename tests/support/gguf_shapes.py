"""GGUF files of any shape without their weights: a real header, and a hole where the numbers would be."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": {"layers": 16, "embedding": 2048, "inner": 8192, "heads": 32, "kv_heads": 8, "vocabulary": 128256},
    "llama-8b": {"layers": 32, "embedding": 4096, "inner": 14336, "heads": 32, "kv_heads": 8, "vocabulary": 128256},
    "llama-70b": {"layers": 80, "embedding": 8192, "inner": 28672, "heads": 64, "kv_heads": 8, "vocabulary": 128256},
    "llama2-7b": {"layers": 32, "embedding": 4096, "inner": 11008, "heads": 32, "kv_heads": 32, "vocabulary": 32000},
    "qwen3-8b": {
        "family": "qwen3",
        "layers": 36,
        "embedding": 4096,
        "inner": 12288,
        "heads": 32,
        "kv_heads": 8,
        "head": 128,
        "vocabulary": 151936,
    },
    "mixtral-8x7b": {
        "layers": 32,
        "embedding": 4096,
        "inner": 14336,
        "heads": 32,
        "kv_heads": 8,
        "vocabulary": 32000,
        "experts": 8,
        "used": 2,
    },
    "gemma3-4b": {
        "family": "gemma3",
        "layers": 34,
        "embedding": 2560,
        "inner": 10240,
        "heads": 8,
        "kv_heads": 4,
        "head": 256,
        "vocabulary": 262144,
        "window": 1024,
    },
}
"""Shapes as the models' configurations publish them."""


def write_shape(
    path: Path,
    *,
    layers: int,
    embedding: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    family: str = "llama",
    head: int | None = None,
    kind: Type = Type.Q8_0,
    window: int | None = None,
    experts: int = 0,
    used: int = 0,
) -> Path:
    """Write a header of this shape at `path`; returns it. The file has its full length and takes no room."""
    head = head or embedding // heads
    writer = gguf.GGUFWriter(path, family)
    writer.add_name(path.stem)
    writer.add_context_length(131072)
    writer.add_embedding_length(embedding)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("no_vocab")
    if window:
        writer.add_sliding_window(window)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(used)
    end = 0

    def add(name: str, *shape: int, plain: bool = False) -> None:
        nonlocal end
        block, block_bytes = (1, 4) if plain else gguf.GGML_QUANT_SIZES[kind]
        size = prod(shape) // block * block_bytes
        stored = shape if plain else gguf.quant_shape_to_byte_shape(shape, kind)
        dtype = np.dtype(np.float32 if plain else np.uint8)
        writer.add_tensor_info(name, stored, dtype, size, raw_dtype=None if plain else kind)
        end += -(-size // 32) * 32

    add("token_embd.weight", vocabulary, embedding)
    add("output.weight", vocabulary, embedding)
    add("output_norm.weight", embedding, plain=True)
    for layer in range(layers):
        block = f"blk.{layer}."
        norms = ["attn_norm", "ffn_norm"]
        if family == "gemma3":
            norms += ["post_attention_norm", "post_ffw_norm"]
        for norm in norms:
            add(f"{block}{norm}.weight", embedding, plain=True)
        if family in ("qwen3", "gemma3"):
            add(f"{block}attn_q_norm.weight", head, plain=True)
            add(f"{block}attn_k_norm.weight", head, plain=True)
        add(f"{block}attn_q.weight", heads * head, embedding)
        add(f"{block}attn_k.weight", kv_heads * head, embedding)
        add(f"{block}attn_v.weight", kv_heads * head, embedding)
        add(f"{block}attn_output.weight", embedding, heads * head)
        if experts:
            add(f"{block}ffn_gate_inp.weight", experts, embedding, plain=True)
            for part, sizes in (("gate", (inner, embedding)), ("up", (inner, embedding)), ("down", (embedding, inner))):
                add(f"{block}ffn_{part}_exps.weight", experts, *sizes)
        else:
            add(f"{block}ffn_gate.weight", inner, embedding)
            add(f"{block}ffn_up.weight", inner, embedding)
            add(f"{block}ffn_down.weight", embedding, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.fout[0].flush()
    header = writer.fout[0].tell()
    writer.close()
    os.truncate(path, -(-header // 32) * 32 + end)
    return path
