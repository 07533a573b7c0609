"""How vLLM may spread a model over several equal GPUs: tensor, pipeline and data parallelism. Pure.

Tensor parallelism shares every matrix, and with it the time of a token. Pipeline parallelism shares the layers: it
works for any number of GPUs and asks little of what joins them, but a token still passes every layer in turn. Data
parallelism is whole copies beside each other. Why which is taken: docs/decisions/0027-parallelism.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from serving.hardware import Gpu
from serving.planner.types import Wishes
from serving.registry import Architecture
from serving.registry.tensors import FAMILIES

MOST_PARALLEL: Final = 64
VOCABULARY_PADDING: Final = 64
"""vLLM fills the vocabulary up to a multiple of this before it shares it out."""
FP8_BLOCK: Final = 128
"""DeepSeek's weights come in 8-bit blocks of 128 by 128, which a share must not cut."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many GPUs share each layer, how many stages follow each other, how many copies there are."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def copy(self) -> int:
        """GPUs that hold one copy of the model."""
        return self.tensor * self.pipeline

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.copy * self.data

    def __str__(self) -> str:
        parts = (("tensor", self.tensor), ("pipeline", self.pipeline), ("data", self.data))
        return " × ".join(f"{name} {count}" for name, count in parts if count > 1) or "one GPU"


@dataclass(frozen=True, slots=True)
class Stage:
    """The layers that one GPU of a pipeline computes; the first one embeds tokens, the last one chooses them."""

    layers: range
    is_first: bool = True
    is_last: bool = True

    def __str__(self) -> str:
        ends = [name for name, holds in (("embedding", self.is_first), ("output", self.is_last)) if holds]
        return " and ".join([f"layers {self.layers.start} to {self.layers.stop - 1}", *ends])


def stages_of(layers: int, pipeline: int) -> tuple[Stage, ...]:
    """The stages, as vLLM cuts them (`get_pp_indices`): layers left over go to the last stages before the very last."""
    short, left = divmod(layers, pipeline)
    stages, start = [], 0
    for at in range(pipeline):
        is_longer = pipeline - 1 - left <= at < pipeline - 1
        stop = start + short + is_longer
        stages.append(Stage(range(start, stop), at == 0, at == pipeline - 1))
        start = stop
    return tuple(stages)


def plan_layouts(it: Architecture, gpus: Sequence[Gpu], wishes: Wishes) -> list[Layout]:
    """The layouts that the wishes leave open, best first.

    Tensor parallelism in powers of two, fewest GPUs first; then the numbers of GPUs that it cannot use, split into
    stages, of which those whose layers the most linked GPUs share. More than one copy is never taken unasked.
    """
    data = wishes.data_parallel or 1
    asked = wishes.tensor_parallel, wishes.pipeline_parallel, wishes.parallel
    found: list[Layout] = []
    for count in range(1, len(gpus) // data + 1):
        splits = [
            layout
            for layout in _splits(it, gpus, count, data)
            if all(
                want in (None, has) for want, has in zip(asked, (layout.tensor, layout.pipeline, count), strict=True)
            )
        ]
        whole = [layout for layout in splits if layout.pipeline == 1]
        # What was not asked for in numbers is as simple as it can be.
        found += splits if wishes.pipeline_parallel or not whole else whole

    def rank(layout: Layout) -> tuple[bool, int, int]:
        if wishes.pipeline_parallel or _is_plain(layout):
            return False, 0, layout.copy
        return True, -layout.tensor if are_linked(gpus[: layout.copy], layout.tensor) else 0, layout.copy

    return sorted(found, key=rank)


def _is_plain(layout: Layout) -> bool:
    return layout.pipeline == 1 and layout.tensor.bit_count() == 1


def _splits(it: Architecture, gpus: Sequence[Gpu], count: int, data: int) -> Iterator[Layout]:
    """Ways to put one copy on so many GPUs: shared layers as far as NVLink joins the sharers, else stages."""
    tensors = [tensor for tensor in range(count, 0, -1) if count % tensor == 0 and not cannot_share(it, tensor, data)]
    linked = [tensor for tensor in tensors if tensor in (1, count) or are_linked(gpus[:count], tensor)]
    for tensor in (*linked, *(tensor for tensor in reversed(tensors) if tensor not in linked)):
        pipeline = count // tensor
        if pipeline == 1 or (pipeline <= it.layers and it.family in FAMILIES and not it.encoder):
            yield Layout(tensor, pipeline, data)


def are_linked(gpus: Sequence[Gpu], together: int) -> bool:
    """Whether NVLink joins each GPU to all others of its group of so many.

    Links that are up and lead nowhere known (in virtual machines the driver does not say) count as joining.
    """
    for start in range(0, len(gpus), together):
        group = gpus[start : start + together]
        for gpu in group:
            others = {other.index for other in group} - {gpu.index}
            if not others <= set(gpu.nvlink_peers) and (gpu.nvlink_peers or not gpu.nvlink_links):
                return False
    return True


def cannot_share(it: Architecture, tensor: int, data: int = 1) -> str | None:
    """Why so many GPUs cannot share each layer, in numbers; None where they can.

    Copies of a mixture of experts share its experts among all of them.
    """
    if tensor == data == 1:
        return None
    experts = it.expert_feed_forward or it.feed_forward or 0 if it.experts else 0
    inner = 0 if it.experts and not it.dense_layers else it.feed_forward or 0
    block = FP8_BLOCK if it.latent else 1
    padded = -(-(it.vocabulary or 0) // VOCABULARY_PADDING) * VOCABULARY_PADDING
    objections = [
        (it.heads % tensor, f"its {it.heads} heads"),
        (inner % (tensor * block), f"a feed-forward of {inner}"),
        (experts % (tensor * data * block), f"experts of {experts}"),
        (padded % tensor, f"a vocabulary of {padded}"),
    ]
    grouped = () if it.latent else sorted(set(it.kv_heads) - {0})
    objections += [(heads % tensor and tensor % heads, f"its {heads} key/value heads") for heads in grouped]
    what = next((what for rest, what in objections if rest), None)
    return (
        f"{tensor * data if what and 'experts' in what else tensor} GPUs cannot share {what} equally" if what else None
    )


def why_no_layout(it: Architecture, gpus: int, wishes: Wishes) -> str | None:
    """What of the wished parallelism cannot be on so many equal GPUs, as a sentence in numbers; None where it can."""
    tensor, pipeline, data = wishes.tensor_parallel or 1, wishes.pipeline_parallel or 1, wishes.data_parallel or 1
    copy = wishes.parallel or tensor * pipeline
    wished = Layout(tensor, copy // tensor, data) if copy % tensor == 0 else Layout(tensor, pipeline, data)
    product = f" ({wished})" if wished.gpus != max(copy, data) else ""
    objections = (
        (copy * data > gpus, f"{copy * data} GPUs are asked for{product}, {gpus} equal ones are here"),
        (pipeline > it.layers, f"{pipeline} stages are asked for, and it has {it.layers} layers"),
        (
            pipeline > 1 and (it.family not in FAMILIES or it.encoder),
            f"a pipeline of {pipeline} is asked for, and it is not known how this family is cut into stages",
        ),
        (copy % tensor or copy % pipeline, f"{copy} GPUs cannot be {tensor} × {pipeline} of them"),
        (
            wishes.parallel and wishes.tensor_parallel and wishes.pipeline_parallel and copy != tensor * pipeline,
            f"tensor {tensor} × pipeline {pipeline} is not {copy} GPUs",
        ),
    )
    return next((sentence for holds, sentence in objections if holds), None) or cannot_share(it, tensor, data)
