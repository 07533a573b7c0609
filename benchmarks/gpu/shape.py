"""A model's exact shape as a directory of safetensors full of zeros: what vLLM loads takes the memory and the time of
the real one, and nothing has to be carried in.

The numbers are a hole in a sparse file, so that the directory takes next to no disk. Every answer is noise. The
vocabulary has the real one's size, and a token for each word of the benchmarks' load.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from serving.registry import Architecture, Model
from serving.store.dummy import CONTROLS, TEMPLATE
from serving.store.vocabulary import vocabulary

CLASSES: Final = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Families whose tensors are known here, and Transformers' name of each."""
_BF16_BYTES: Final = 2
_ALIGNMENT: Final = 8
Tensors = dict[str, tuple[int, ...]]


def shape_of(model: Model, layers: int | None = None) -> Architecture:
    """The model's shape, with fewer `layers` where that is asked for. Raises ValueError for one not known here."""
    shape = model.architecture
    if shape is None or shape.family not in CLASSES or shape.experts or not shape.vocabulary or not shape.feed_forward:
        raise ValueError(f"the tensors of `{model.name}` are not known here, only those of {', '.join(CLASSES)}")
    if layers is None:
        return shape
    return dataclasses.replace(shape, layers=layers, kv_heads=shape.kv_heads[:layers], windowed=())


def tensors_of(shape: Architecture) -> Tensors:
    """Every tensor's name and shape, as Transformers has them."""
    return dict(_tensors(shape))


def _tensors(shape: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, words = shape.embedding, shape.feed_forward or 0, shape.vocabulary or 0
    yield "model.embed_tokens.weight", (words, width)
    for number in range(shape.layers):
        layer = f"model.layers.{number}"
        heads = {"q": shape.heads * shape.key_length}
        heads["k"] = shape.kv_heads[number] * shape.key_length
        heads["v"] = shape.kv_heads[number] * shape.value_length
        for name, rows in heads.items():
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, width)
            if shape.family == "qwen2":
                yield f"{layer}.self_attn.{name}_proj.bias", (rows,)
        yield f"{layer}.self_attn.o_proj.weight", (width, shape.heads * shape.value_length)
        if shape.family == "qwen3":
            yield f"{layer}.self_attn.q_norm.weight", (shape.key_length,)
            yield f"{layer}.self_attn.k_norm.weight", (shape.key_length,)
        yield f"{layer}.mlp.gate_proj.weight", (inner, width)
        yield f"{layer}.mlp.up_proj.weight", (inner, width)
        yield f"{layer}.mlp.down_proj.weight", (width, inner)
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)
    if not shape.tied:
        yield "lm_head.weight", (words, width)


def header_of(tensors: Tensors) -> tuple[bytes, int]:
    """The head of the safetensors file, and the bytes of numbers that follow it."""
    at, entries = 0, {}
    for name, shape in tensors.items():
        end = at + _BF16_BYTES * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, at


def config_of(shape: Architecture, context: int) -> dict[str, Any]:
    """`config.json`."""
    return {
        "architectures": [CLASSES[shape.family]],
        "model_type": shape.family,
        "dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.embedding,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads[0],
        "head_dim": shape.key_length,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied,
        "eos_token_id": (shape.vocabulary or 0) - 1,
    }


def tokenizer_of(size: int) -> dict[str, Any]:
    """`tokenizer.json`: a byte-level BPE of this many tokens, the last ones controls."""
    tokens, merges = vocabulary(size, CONTROLS)
    first = size - len(CONTROLS)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": first + at,
                "content": token,
                "special": True,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
            for at, token in enumerate(CONTROLS)
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens[:first])},
            "merges": merges,
        },
    }


def write_zeros(shape: Architecture, context: int, directory: Path) -> None:
    """The whole directory."""
    directory.mkdir(parents=True)
    head, size = header_of(tensors_of(shape))
    with (directory / "model.safetensors").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": CONTROLS[-1], "chat_template": TEMPLATE}
    for name, content in {
        "config.json": config_of(shape, context),
        "tokenizer.json": tokenizer_of(shape.vocabulary or 0),
        "tokenizer_config.json": {**tokenizer, "model_max_length": context},
    }.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
