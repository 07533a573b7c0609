"""Models and facts read from weight files on this host."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from serving.errors import BadFile
from serving.generation.parsers.recognised import reasoning_parser_of, tool_parser_of
from serving.gguf import Header, read_header
from serving.pooling import ENCODERS, SERVED_ENCODERS, pooling_of, task_of
from serving.registry.model import KIND_OF, Architecture, Kind, Model, TensorSum, Variant
from serving.registry.servable import check_sound

DUMMY_KEY = "perimeter.dummy_weights"
"""Metadata key of a file with synthetic weights; its value names the model whose shape it has."""
FILE_TYPES: dict[object, str] = {
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    21: "q2_k_s",
}
"""Mixes by `general.file_type` (llama.h: llama_ftype); of the others, the main type is the name."""
_TITLE_CHARS = 200
_TABLES = {"t5": 3.7, "bert": 2.3}
"""What a token takes in memory where more is kept of it than a table entry, in entries: llama.cpp keeps XLM-RoBERTa's
as a tree as well, and we keep BERT's twice. Measured with the published vocabularies of both: 577 and 359 bytes."""
_WINDOW_EVERY = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "llama4": 4}
"""Families where all layers but each N-th are windowed, as llama.cpp hard-codes it per architecture."""


def model_from_file(path: Path) -> Model:
    """A GGUF file as a model of one variant. Raises FileMissing or BadFile."""
    return model_of(read_header(path))


def model_of(header: Header) -> Model:
    """What a header says, as a model of one variant. Raises BadFile where it is not a language model's."""
    path = header.path
    architecture = architecture_of(header)
    name = header.text("general.name")
    quantisation = quantisation_of(header)
    template = header.text("tokenizer.chat_template") or ""
    return Model(
        name=re.sub(r"[^A-Za-z0-9._:-]+", "-", path.stem).strip("-.") or "model",
        title=printable(name or "") or path.stem,
        context=header.integer("context_length") or 0,
        architecture=architecture,
        variants=(describe(Variant(quantisation, "gguf", ("llamacpp",), None, path.resolve()), header),),
        kind=KIND_OF[task_of(header)],
        licence=header.text("general.license"),
        tool_parser=tool_parser_of(template),
        reasoning_parser=reasoning_parser_of(template),
        dummy=DUMMY_KEY in header.metadata,
        origin=str(path),
    )


def printable(text: str) -> str:
    """A name out of a file, fit for a terminal, a log and an answer: one line, of at most 200 printable characters.

    The file is somebody else's: escape sequences in it would rewrite the operator's screen.
    """
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:_TITLE_CHARS]


def check_servable(header: Header) -> None:
    """Refuse what llama.cpp would end the process on: a file without a tokenizer, or with another model's.

    And what else it does not survive (`serving.registry.servable`). Raises BadFile.
    """
    tokens = header.length("tokenizer.ggml.tokens")
    if header.text("tokenizer.ggml.model") in (None, "no_vocab") or not tokens:
        message = f"`{header.path}` carries no tokenizer, so it cannot be served"
        raise BadFile(message, hint="convert the model again, with its tokenizer files beside its weights")
    rows = [
        tensor.shape[1] for tensor in header.tensors if tensor.name == "token_embd.weight" and len(tensor.shape) == 2
    ]
    if not rows:
        message = f"`{header.path}` has no token embeddings (`token_embd.weight`), so it cannot be served"
        raise BadFile(message, hint="it may be a vocabulary, an adapter or a projector; name the model's own file")
    if rows[0] != tokens:
        message = f"`{header.path}` has a tokenizer of {tokens} tokens and embeddings for {rows[0]}"
        raise BadFile(message, hint="the conversion mixed two models; convert it again")
    _check_task(header)
    check_sound(header)


def check_kind(header: Header, name: str, kind: Kind) -> None:
    """Refuse a file that is for something else than its entry in the catalogue says. Raises BadFile."""
    found = KIND_OF[task_of(header)]
    if found != kind:
        message = f"`{header.path}` is a model of the kind `{found}`, and the catalogue has `{name}` as `{kind}`"
        raise BadFile(
            message, hint=f"convert it with its pooling (`{header.architecture}.pooling_type`), or name another"
        )


def _check_task(header: Header) -> None:
    """Refuse what embeds or ranks and would do it wrongly. Raises BadFile."""
    task, pooling = task_of(header), pooling_of(header)
    if task == "generate":
        return
    path, family = header.path, header.architecture
    if family in ENCODERS - SERVED_ENCODERS:
        message = f"`{path}` is an encoder of the family `{family}`, which is not served yet"
        raise BadFile(message, hint=f"served: {', '.join(sorted(SERVED_ENCODERS))} (BERT, RoBERTa), and decoders")
    if pooling is None:
        message = f"`{path}` does not say how the numbers of a text are pooled (`{family}.pooling_type`)"
        raise BadFile(message, hint="convert the model again, with its modules.json beside its weights")
    if task == "rerank" and family not in ENCODERS:
        message = f"`{path}` ranks by what it would write (`{family}`), which is not served yet"
        raise BadFile(message, hint="rerankers with a classifier's head are: bge-reranker-v2-m3 and its like")
    if task == "rerank" and not any(tensor.name == "cls.output.weight" for tensor in header.tensors):
        message = f"`{path}` is pooled for ranking and has no classifier's head (`cls.output.weight`)"
        raise BadFile(message, hint="convert the model again, from its sequence classification checkpoint")
    if task == "rerank" and header.metadata.get("tokenizer.ggml.token_type_count", 1) != 1:
        # llama.cpp gives every token the first type (src/models/bert.cpp), and such models learnt with both.
        message = f"`{path}` tells query and document apart by token type, which llama.cpp does not do"
        raise BadFile(message, hint="its scores would be wrong; rerankers of the RoBERTa family have one type")


def describe(variant: Variant, header: Header) -> Variant:
    """The variant with what its file says of it."""
    return dataclasses.replace(
        variant,
        size_bytes=header.file_bytes,
        tensors=_sums(header),
        tied_output=not any(tensor.name == "output.weight" for tensor in header.tensors),
        vocabulary_entries=round(
            (header.length("tokenizer.ggml.tokens") or 0) * _TABLES.get(header.text("tokenizer.ggml.model") or "", 1)
        )
        + (header.length("tokenizer.ggml.merges") or 0),
    )


def quantisation_of(header: Header) -> str:
    """What people call the file's mix of number types: `q4_k_m`, where its header says so and can be believed."""
    most = main_type(header)
    told = FILE_TYPES.get(header.metadata.get("general.file_type"))
    return told if told is not None and told.startswith(most) else most


def main_type(header: Header) -> str:
    """The number type that holds most of the weights, in lower case: `q4_k`, `f16`."""
    sizes: dict[str, int] = {}
    for tensor in header.tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda kind: sizes[kind]).lower() if sizes else "empty"


def architecture_of(header: Header) -> Architecture:
    """The decoder's shape from the metadata. Raises BadFile where what it must have is absent or contradicts itself."""
    family = header.architecture
    if not family:
        message = f"`{header.path}` does not say its architecture (`general.architecture`)"
        raise BadFile(message, hint="it may be an adapter or a projector; name the model's own file")
    layers = _needed(header, "block_count", most=4096)
    embedding = _needed(header, "embedding_length")
    _needed(header, "context_length", most=1 << 24)
    heads = _per_layer(header, "attention.head_count", layers)
    kv_heads = _per_layer(header, "attention.head_count_kv", layers) or heads
    most_heads = max(heads, default=0)
    state = _recurrent_state(header, layers, kv_heads)
    if not most_heads and not state:
        message = f"`{header.path}` does not say how many attention heads it has (`{family}.attention.head_count`)"
        raise BadFile(message)
    head = embedding // most_heads if most_heads else 0
    window = header.integer("attention.sliding_window") or None
    return Architecture(
        family=family,
        layers=layers,
        embedding=embedding,
        feed_forward=max(_per_layer(header, "feed_forward_length", layers), default=0) or None,
        expert_feed_forward=header.integer("expert_feed_forward_length") or None,
        heads=most_heads,
        kv_heads=kv_heads,
        key_length=header.integer("attention.key_length") or head,
        value_length=header.integer("attention.value_length") or head,
        vocabulary=_vocabulary(header),
        sliding_window=window,
        windowed=_windowed(header, family, layers) if window else (),
        experts=header.integer("expert_count") or None,
        experts_used=header.integer("expert_used_count") or None,
        shared_experts=header.integer("expert_shared_count") or 0,
        dense_layers=header.integer("leading_dense_block_count") or 0,
        latent=header.integer("attention.key_length_mla") is not None,
        kv_rank=header.integer("attention.kv_lora_rank"),
        q_rank=header.integer("attention.q_lora_rank"),
        key_length_mla=header.integer("attention.key_length_mla"),
        value_length_mla=header.integer("attention.value_length_mla"),
        recurrent_state=state,
        tied=family not in ENCODERS and not any(tensor.name == "output.weight" for tensor in header.tensors),
        positions=header.integer("context_length") if family in ENCODERS else None,
    )


def _recurrent_state(header: Header, layers: int, kv_heads: tuple[int, ...]) -> int:
    """Numbers of convolution and state that one sequence keeps, all recurrent layers together; 0 without any.

    As llama.cpp sizes it (llama-hparams.cpp: n_embd_r, n_embd_s). Where attention layers are not told from recurrent
    ones, all count as both.
    """
    inner, width = header.integer("ssm.inner_size"), header.integer("ssm.state_size")
    if not inner or not width:
        return 0
    kernel, groups = header.integer("ssm.conv_kernel") or 1, header.integer("ssm.group_count") or 0
    each = max(0, kernel - 1) * (inner + 2 * groups * width) + width * inner
    return each * (sum(heads == 0 for heads in kv_heads) or layers)


def _vocabulary(header: Header) -> int | None:
    for tensor in header.tensors:
        if tensor.name in ("output.weight", "token_embd.weight") and len(tensor.shape) == 2:
            return tensor.shape[1]
    return header.length("tokenizer.ggml.tokens") or header.integer("vocab_size")


def _windowed(header: Header, family: str, layers: int) -> tuple[bool, ...]:
    pattern = header.fact("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) == layers:
        return tuple(bool(entry) for entry in pattern)
    every = pattern if isinstance(pattern, int) and pattern > 0 else _WINDOW_EVERY.get(family)
    if every is None:
        return ()
    return tuple((layer + 1) % every != 0 for layer in range(layers))


def _needed(header: Header, key: str, most: int = 1 << 32) -> int:
    value = header.integer(key)
    if value is None or not 1 <= value <= most:
        found = "is absent" if value is None else f"is {value}, not from 1 to {most}"
        message = f"`{header.path}` cannot be served: metadata `{header.architecture}.{key}` {found}"
        raise BadFile(message, hint="it may be an adapter, a projector or a vocabulary; name the model's own file")
    return value


def _per_layer(header: Header, key: str, layers: int) -> tuple[int, ...]:
    """A fact that is one number for all layers or a list with one each; () where it is absent."""
    value = header.fact(key)
    numbers = value if isinstance(value, tuple) else (value,) * layers
    if value is None or value == ():
        return ()
    if len(numbers) != layers or not all(isinstance(number, int) and 0 <= number <= 1 << 32 for number in numbers):
        message = f"`{header.path}` cannot be served: metadata `{header.architecture}.{key}` is not one count per layer"
        raise BadFile(message)
    return tuple(int(number) for number in numbers if isinstance(number, int))


def _sums(header: Header) -> tuple[TensorSum, ...]:
    sums: dict[tuple[str, Literal["embedding", "matrix", "expert", "other"], bool], int] = {}
    for tensor in header.tensors:
        dimensions = sum(1 for length in tensor.shape if length > 1)
        role: Literal["embedding", "matrix", "expert", "other"]
        if tensor.name == "token_embd.weight":
            role = "embedding"
        elif not tensor.name.endswith(".weight") or dimensions < 2 or "norm" in tensor.name or "embd" in tensor.name:
            role = "other"
        else:
            role = "expert" if dimensions == 3 else "matrix"
        rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
        key = (tensor.type, role, rows % 8 == 0)
        sums[key] = sums.get(key, 0) + tensor.size
    return tuple(TensorSum(kind, role, size, by_8) for (kind, role, by_8), size in sorted(sums.items()))
