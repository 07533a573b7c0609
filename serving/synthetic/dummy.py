"""Synthetic weights of a model's exact shape: `write_dummy` → a GGUF file whose answers are noise.

With them a machine is sized and measured before any weights are approved or carried in: the file has every tensor of
the real one in the same type, so it takes the same memory and the same time. It is written once, tensor by tensor, and
never held in memory. The header says what it is, so that nobody takes it for a model.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from serving.errors import BadFile, BadSettings, NoFitError, UsageError
from serving.gguf import TYPES, TensorType, read_header
from serving.registry import Architecture, Model, Variant
from serving.registry.local import DUMMY_KEY
from serving.registry.tensors import TYPE, TensorShape, gguf_types, tensor_bytes
from serving.synthetic.noise import noise
from serving.synthetic.vocabulary import vocabulary

ALIGNMENT: Final = 32
CHUNK_BYTES: Final = 16 * 1024**2
CONTROLS: Final = ("<|im_start|>", "<|im_end|>")
TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NAMED_EXPERTS: Final = frozenset({"gpt-oss", "deepseek", "deepseek2"})
"""Families whose loader wants the width of an expert said, also where it is that of the feed-forward."""
Progress = Callable[[float], None]
"""Called with the share that is written, from 0 to 1."""

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _CONTROL = 1, 3
_FORM: Final = {
    _U32: struct.Struct("<I"),
    _I32: struct.Struct("<i"),
    _F32: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
}
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NUMBER: Final = {kind.name: number for number, kind in TYPES.items()}
Value = tuple[int, Any]
Typed = tuple[tuple[TensorShape, TensorType], ...]


def dummy_path(directory: Path, model: Model, variant: Variant) -> Path:
    """Where the file of this shape lies: the name tells model and variant, the digest the shape."""
    return directory / f"{model.name}-{variant.name}-dummy-{_digest(model, variant)}.gguf"


def write_dummy(model: Model, variant: Variant, directory: Path, progress: Progress = lambda _: None) -> Path:
    """The synthetic file of this variant, written to `directory` unless it is there; returns its path.

    Raises UsageError for a shape that is not known, NoFitError where the disk has no room for it, BadSettings where
    nothing can be written there at all.
    """
    path = dummy_path(directory, model, variant)
    try:
        if _is_whole(path):
            return path
        architecture, typed = _known_shape(model, variant)
        head, size = _head_and_size(model, variant, architecture, typed)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
    except OSError as failure:
        raise _unusable(directory, failure) from None
    if size > free:
        raise NoFitError(
            f"synthetic weights of `{model.name}` ({variant.name}) take {size} bytes, and {free} are free "
            f"in `{directory}`",
            hint="set paths.cache_dir to a larger disk, or choose a smaller `--variant`",
        )
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(head)
            written = 0
            for shape, kind in typed:
                for chunk in _chunks(shape, kind):
                    file.write(chunk)
                    written += len(chunk)
                    progress(written / size)
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
            _to_disk(file)
        partial.replace(path)
    except OSError as failure:
        if failure.errno not in _FULL:
            raise _unusable(directory, failure) from None
        message = f"cannot write synthetic weights to `{partial}`: {failure.strerror}"
        raise NoFitError(message, hint="set paths.cache_dir to a larger disk") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    progress(1.0)
    return path


def _unusable(directory: Path, failure: OSError) -> BadSettings:
    return BadSettings(
        f"cannot write synthetic weights into `{directory}`: {failure.strerror}",
        hint="set paths.cache_dir to a directory that this user may write to",
    )


def write_hollow(model: Model, variant: Variant, path: Path) -> Path:
    """The same file with a hole in place of the numbers, for what reads the header alone; it takes no room.

    Raises UsageError for a shape that is not known.
    """
    head, size = _head_and_size(model, variant, *_known_shape(model, variant))
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def _known_shape(model: Model, variant: Variant) -> tuple[Architecture, Typed]:
    architecture = model.architecture
    typed = gguf_types(architecture, variant.name) if architecture else None
    if architecture is None or typed is None or (architecture.encoder and not architecture.positions):
        raise UsageError(
            f"no synthetic weights can be made for `{model.name}` as {variant.name}",
            hint="dummy weights go with models of the catalogue and GGUF variants; see `serve models show`",
        )
    if model.kind == "reranker":
        width = architecture.embedding
        head = {
            "cls.weight": (width, width),
            "cls.bias": (width,),
            "cls.output.weight": (width, 1),
            "cls.output.bias": (1,),
        }
        typed += tuple((TensorShape(name, shape), TYPE["F32"]) for name, shape in head.items())
    return architecture, typed


def _head_and_size(model: Model, variant: Variant, architecture: Architecture, typed: Typed) -> tuple[bytes, int]:
    """The header, padded to where the tensors begin, and the length of the whole file."""
    head = _header(model, variant, architecture, typed)
    head = head.ljust(_aligned(len(head)), b"\0")
    return head, len(head) + sum(_aligned(tensor_bytes(shape, kind)) for shape, kind in typed)


def _is_whole(path: Path) -> bool:
    """Whether an earlier run finished this file; a damaged one is written again."""
    if not path.exists():
        return False
    try:
        return DUMMY_KEY in read_header(path).metadata
    except BadFile:
        return False


def _digest(model: Model, variant: Variant) -> str:
    return hashlib.sha256(f"1 {model.context} {model.architecture} {variant.name}".encode()).hexdigest()[:8]


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _chunks(shape: TensorShape, kind: TensorType) -> Iterator[bytes]:
    """The tensor's bytes, some megabytes at a time; the numbers depend on its name alone."""
    seed = int.from_bytes(hashlib.sha256(shape.name.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.SFC64(seed))
    if "norm" in shape.name and shape.name.endswith("weight"):
        yield (1 + 0.1 * rng.standard_normal(shape.elements)).astype(np.float32).tobytes()
        return
    if len(shape.shape) == 1 or shape.name.endswith(".bias"):
        yield (0.01 * rng.standard_normal(shape.elements)).astype(np.float32).tobytes()
        return
    blocks = shape.elements // kind.block
    most = max(1, CHUNK_BYTES // kind.block_bytes)
    for start in range(0, blocks, most):
        yield noise(rng, kind.name, min(most, blocks - start), shape.shape[0], kind.block_bytes).tobytes()


def _header(model: Model, variant: Variant, it: Architecture, typed: Typed) -> bytes:
    metadata = {**_general(model, variant, it), **_hyperparameters(model, it), **_pooling(model, it), **_tokenizer(it)}
    out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(typed), len(metadata)))
    for key, (form, value) in metadata.items():
        out += _string(key) + struct.pack("<I", form) + _value(form, value)
    offset = 0
    for shape, kind in typed:
        out += _string(shape.name) + struct.pack("<I", len(shape.shape))
        out += struct.pack(f"<{len(shape.shape)}Q", *shape.shape)
        out += struct.pack("<IQ", _NUMBER[kind.name], offset)
        offset += _aligned(tensor_bytes(shape, kind))
    return bytes(out)


def _general(model: Model, variant: Variant, it: Architecture) -> dict[str, Value]:
    return {
        "general.architecture": (_STRING, it.family),
        "general.type": (_STRING, "model"),
        "general.name": (_STRING, f"{model.title} (synthetic weights, answers are noise)"),
        "general.alignment": (_U32, ALIGNMENT),
        DUMMY_KEY: (_STRING, f"{model.name} {variant.name}"),
    }


def _hyperparameters(model: Model, it: Architecture) -> dict[str, Value]:
    """What llama.cpp's loader of the family asks for; constants that only shape the answers are plausible ones."""
    rotary = it.key_length - (it.kv_rank or 0)
    expert = it.expert_feed_forward or (it.feed_forward if it.family in _NAMED_EXPERTS else None)
    numbers: dict[str, int | None] = {
        "context_length": it.positions or model.context,
        "embedding_length": it.embedding,
        "block_count": it.layers,
        "feed_forward_length": it.feed_forward,
        "attention.head_count": it.heads,
        "attention.head_count_kv": max(it.kv_heads),
        "attention.key_length": it.key_length,
        "attention.value_length": it.value_length,
        "rope.dimension_count": rotary,
        "vocab_size": it.vocabulary,
        "attention.sliding_window": it.sliding_window,
        "expert_count": it.experts,
        "expert_used_count": it.experts_used,
        "expert_feed_forward_length": expert,
        "expert_shared_count": it.shared_experts if it.family in ("deepseek", "deepseek2") else None,
        "leading_dense_block_count": it.dense_layers or None,
        "attention.q_lora_rank": it.q_rank,
        "attention.kv_lora_rank": it.kv_rank,
        "attention.key_length_mla": it.key_length_mla,
        "attention.value_length_mla": it.value_length_mla,
        "expert_gating_func": 2 if it.family == "deepseek2" else None,  # sigmoid, as in V3
    }
    floats = {
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5 if it.family in ("command-r", "bert") else None,
        "rope.freq_base": 500_000.0,
        "logit_scale": 1.0 if it.family in ("granite", "command-r") else None,
        "expert_weights_scale": 1.0 if it.family in ("deepseek", "deepseek2") else None,
    }
    known: dict[str, Value] = {
        f"{it.family}.{key}": (_U32, value) for key, value in numbers.items() if value is not None
    }
    known |= {f"{it.family}.{key}": (_F32, value) for key, value in floats.items() if value is not None}
    return known


def _pooling(model: Model, it: Architecture) -> dict[str, Value]:
    """What makes of a model that writes one that embeds or ranks."""
    if model.kind == "chat":
        return {}
    known: dict[str, Value] = {
        f"{it.family}.pooling_type": (_U32, 4 if model.kind == "reranker" else 1 if it.encoder else 3)
    }
    if it.encoder:
        known |= {f"{it.family}.attention.causal": (_BOOL, False), "tokenizer.ggml.token_type_count": (_U32, 1)}
    return known


def _tokenizer(it: Architecture) -> dict[str, Value]:
    tokens, merges = vocabulary(it.vocabulary or 0, CONTROLS)
    types = [_NORMAL] * (len(tokens) - len(CONTROLS)) + [_CONTROL] * len(CONTROLS)
    return {
        "tokenizer.ggml.model": (_STRING, "gpt2"),
        "tokenizer.ggml.pre": (_STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (_ARRAY, (_STRING, tokens)),
        "tokenizer.ggml.token_type": (_ARRAY, (_I32, types)),
        "tokenizer.ggml.merges": (_ARRAY, (_STRING, merges)),
        "tokenizer.ggml.bos_token_id": (_U32, len(tokens) - 2),
        "tokenizer.ggml.eos_token_id": (_U32, len(tokens) - 1),
        "tokenizer.ggml.add_bos_token": (_BOOL, False),
        "tokenizer.chat_template": (_STRING, TEMPLATE),
    }


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _string(value)
    if kind == _ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, item) for item in items)
    return _FORM[kind].pack(value)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
