"""What weights take that are not here: bytes of files by format and quantisation, and each GPU's share. Pure."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final

from serving.registry.model import Architecture, Model, Variant
from serving.registry.tensors import (
    TensorShape,
    gguf_types,
    parameters_of,
    sum_tensors,
    tensor_bytes,
    tensors_of,
)

ALIGNMENT: Final = 32
VOCABULARY_ENTRY_BYTES: Final = 50
"""Of a GGUF's vocabulary and merges, per token: 20 to 65 in published files."""
FP8_BLOCK: Final = 128 * 128
"""Numbers that share one scale of four bytes (DeepSeek's `weight_block_size`)."""
MXFP4_BYTES: Final = 17 / 32
"""Per number: four bits, and eight for each 32 (OCP Microscaling)."""
_PLAIN: Final = {"bf16": 2.0, "f16": 2.0, "f32": 4.0}
SAFETENSORS_TYPES: Final = (*_PLAIN, "f16-hf", "fp8", "mxfp4-hf")
"""Names of safetensors variants whose size can be foretold; `-hf` where a GGUF of the model has the plain name."""


def foretell(model: Model, variant: Variant) -> Variant:
    """The variant with its size and tensors as its architecture has them, where neither file nor catalogue says."""
    architecture = model.architecture
    if architecture is None:
        return variant
    if variant.format == "gguf":
        typed = gguf_types(architecture, variant.name)
        if typed is None:
            return variant
        padded = sum(-(-tensor_bytes(shape, kind) // ALIGNMENT) * ALIGNMENT for shape, kind in typed)
        size = variant.size_bytes or padded + (architecture.vocabulary or 0) * VOCABULARY_ENTRY_BYTES
        return dataclasses.replace(variant, size_bytes=size, tensors=sum_tensors(typed), tied_output=architecture.tied)
    if variant.size_bytes is None:
        return dataclasses.replace(variant, size_bytes=shard_bytes(model, variant.name, 1))
    return variant


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of weights on one of the GPUs that share each layer, by the part of the model they belong to."""

    layers: tuple[float, ...]
    embedding: float
    output: float
    """Norm and matrix after the last layer; the matrix is not in it where it is the embedding."""
    everywhere: float
    """On every GPU, whatever it computes: a vision tower counts so."""
    is_tied: bool

    def of(self, layers: range, *, is_first: bool = True, is_last: bool = True) -> int:
        """Bytes of one stage of a pipeline. The last one has the embedding, too, where that is the output matrix."""
        total = sum(self.layers[layers.start : layers.stop]) + self.everywhere
        total += self.output if is_last else 0
        return math.ceil(total + (self.embedding if is_first or (is_last and self.is_tied) else 0))


def shard_bytes(model: Model, variant: str, parallel: int) -> int | None:
    """Bytes of weights on each of `parallel` GPUs under tensor parallelism; None for what is not known here."""
    share = share_of(model, variant, parallel)
    return None if share is None else share.of(range(len(share.layers)))


def share_of(model: Model, variant: str, parallel: int, copies: int = 1) -> Share | None:
    """What each of `parallel` GPUs holds under tensor parallelism; None for what is not known here.

    Matrices are split; norms, routers and the latent projections are on every GPU, and so are key and value heads
    where there are fewer of them than GPUs. Copies of a mixture share its experts among all their GPUs.
    """
    architecture = model.architecture
    shapes = tensors_of(architecture) if architecture else None
    if architecture is None or shapes is None or variant not in SAFETENSORS_TYPES:
        return None
    layers = [0.0] * architecture.layers
    embedding = output = 0.0
    for shape in shapes:
        size = _bytes_of(shape, variant) * _share(shape, architecture, parallel, copies)
        if shape.layer is not None:
            layers[shape.layer] += size
        elif shape.name.startswith("output"):
            output += size
        else:
            embedding += size
    beside = max(0, (model.parameters or 0) - (parameters_of(architecture) or 0)) * _PLAIN.get(variant, 2.0)
    return Share(tuple(layers), embedding, output, beside, architecture.tied)


def _bytes_of(shape: TensorShape, variant: str) -> float:
    each = _PLAIN.get(variant.removesuffix("-hf"), 2.0)
    inner = shape.layer is not None and shape.role in ("matrix", "expert") and "ffn_gate_inp" not in shape.name
    if variant == "fp8" and inner:
        each = 1 + 4 / FP8_BLOCK
    elif variant == "mxfp4-hf" and "_exps.weight" in shape.name:
        each = MXFP4_BYTES
    return shape.elements * each


def _share(shape: TensorShape, architecture: Architecture, parallel: int, copies: int) -> float:
    name = shape.name
    if "_exps." in name:
        return 1 / (parallel * copies)
    if any(part in name for part in ("norm", "ffn_gate_inp", "exp_probs", "_a.weight", "_a_mqa.", "position", "types")):
        return 1.0
    if name.endswith((".bias", "sinks.weight")) and "exps" not in name:
        return 1.0
    if shape.layer is not None and any(part in name for part in ("attn_k.", "attn_v.")):
        heads = architecture.kv_heads[shape.layer]
        return 1 / min(parallel, heads) if heads else 1.0
    return 1 / parallel
