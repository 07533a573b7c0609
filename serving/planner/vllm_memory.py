"""What vLLM takes of each GPU, and of main memory, for one variant in one layout. Pure.

vLLM takes a share of each GPU's memory (`gpu-memory-utilization`), loads its part of the weights, runs one step of the
largest size to see what activations take, and gives all that is left to the KV cache; it refuses to start where that
does not hold one sequence of the longest context. The table foretells those numbers. What cannot be derived from the
model is a reserve, and called so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from serving.hardware import Gpu
from serving.planner.llamacpp import POOL_SHARE
from serving.planner.types import MemoryKind, MemoryLine, Wishes, host_bytes, sum_bytes
from serving.planner.vllm_layout import Layout, Stage, stages_of
from serving.registry import Adapter, Architecture, Model, Variant
from serving.registry.sizes import share_of
from serving.registry.tensors import tensors_of

GIB: Final = 1024**3
MIB: Final = 1024**2

MOST_SEQUENCES: Final = 256
"""Sequences computed at the same time by one copy, where the cache holds as many; vLLM's own default."""
DRIVER_BYTES: Final = 600 * MIB
"""CUDA context, kernels and cuBLAS workspaces of one process on one GPU: a reserve."""
COLLECTIVES_BYTES: Final = 500 * MIB
"""NCCL's and the custom all-reduce's buffers where several GPUs take part: a reserve."""
GRAPH_BASE_BYTES: Final = 256 * MIB
GRAPH_LAYER_BYTES: Final = 10 * MIB
"""CUDA graphs of the usual batch sizes: a reserve that grows with the layers."""
FRONT_BYTES: Final = 3 * GIB
WORKER_BYTES: Final = 4 * GIB
COORDINATOR_BYTES: Final = GIB
"""Main memory of vLLM's API process, of each worker (Python, torch, pinned buffers), and of what deals requests to
several copies: a reserve."""
BLOCK_TOKENS: Final = 16
LOGIT_BYTES: Final = 12
"""Per sequence and vocabulary entry while choosing tokens: logits in 32 bits, their sorted copy and their indices."""
RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for."""
ADAPTER_NUMBER_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One variant on some of the machine's GPUs."""

    model: Model
    architecture: Architecture
    variant: Variant
    gpus: tuple[Gpu, ...]
    layout: Layout
    wishes: Wishes
    host_limit: int | None
    utilisation: float
    limit: int
    """Bytes that vLLM may take of each GPU."""
    stages: tuple[tuple[Stage, int], ...]
    """Each stage of the pipeline, and the bytes of weights on each of its GPUs."""
    step_tokens: int

    def fixed(self, at: int) -> tuple[MemoryLine, ...]:
        """The table of a GPU of that stage, without the cache."""
        (stage, weights), layout = self.stages[at], self.layout
        shares = f", one of {layout.tensor} shares" if layout.tensor > 1 else ""
        part = f", stage {at + 1} of {layout.pipeline}: {stage}" if layout.pipeline > 1 else ""
        layers = len(stage.layers)
        twice = 2 if self.wishes.adapters else 1
        lines = [
            MemoryLine("weights", weights, "gpu", f"{self.variant.name}{shares}{part}"),
            _activations(self.architecture, self.step_tokens, layout, stage),
            MemoryLine(
                "CUDA graphs",
                twice * (GRAPH_BASE_BYTES + layers * GRAPH_LAYER_BYTES),
                "gpu",
                f"{layers} layers × 10 MiB and 256 MiB, {'with and without adapters, ' if twice > 1 else ''}a reserve",
            ),
            MemoryLine("driver", DRIVER_BYTES, "gpu", "CUDA context and libraries, a reserve"),
        ]
        if layout.copy > 1 or (layout.data > 1 and self.architecture.experts):
            lines.append(MemoryLine("collectives", COLLECTIVES_BYTES, "gpu", "NCCL and all-reduce buffers, a reserve"))
        if layout.pipeline > 1:
            width = self.architecture.embedding
            size, formula = self.step_tokens * width * 4, f"{self.step_tokens} tokens × {width} numbers × 2, 16 bits"
            lines.append(MemoryLine("between stages", size, "gpu", formula))
        if self.wishes.adapters:
            lines.append(adapters_line(self.architecture, self.wishes.adapters, "gpu", layout, stage))
        return (*lines, self._processes())

    def _processes(self) -> MemoryLine:
        workers, copies = self.layout.gpus, self.layout.data
        formula = f"one front and {workers} worker{'s' if workers > 1 else ''}, a reserve"
        size = FRONT_BYTES + workers * WORKER_BYTES
        if copies > 1:
            size, formula = size + COORDINATOR_BYTES, f"one front, a coordinator and {workers} workers, a reserve"
        return MemoryLine("processes", size, "anonymous", formula)

    def sequence_bytes(self, context: int, at: int) -> int:
        """KV cache that one sequence of this length takes on each GPU of that stage."""
        numbers = self.number_bytes
        layers = self.stages[at][0].layers
        return cache_bytes(self.architecture, context, numbers, self.layout.tensor, self.step_tokens, layers)

    @property
    def number_bytes(self) -> int:
        """Bytes of a number in the cache."""
        return 1 if self.wishes.kv_dtype == "fp8" else 2

    def room(self, at: int) -> int:
        """Bytes of each GPU of that stage that are left for the cache; negative where the rest alone is too much."""
        return self.limit - sum_bytes(self.fixed(at), "gpu")

    def least(self, context: int, concurrency: int, at: int) -> int:
        """Bytes of cache below which this is not worth starting: one whole sequence, and a beginning of the others.

        Copies share the sequences out among them.
        """
        others = -(-concurrency // self.layout.data) - 1
        return self.sequence_bytes(context, at) + others * self.sequence_bytes(min(context, POOL_SHARE), at)

    def fullest(self, context: int, concurrency: int) -> int:
        """The stage that has the least to spare."""
        stages = range(len(self.stages))
        return min(stages, key=lambda at: self.room(at) - self.least(context, concurrency, at))

    def tightest(self, context: int) -> int:
        """The stage whose cache holds the fewest tokens: vLLM gives the others no more than that."""
        return min(range(len(self.stages)), key=lambda at: (self._tokens(context, at), self.room(at)))

    def tokens(self, context: int) -> int:
        """Tokens that the cache of one copy holds."""
        held = self._tokens(context, self.tightest(context))
        return context if math.isinf(held) else int(held)

    def _tokens(self, context: int, at: int) -> float:
        each = self.sequence_bytes(context, at)
        return self.room(at) * context // each if each else math.inf

    def fits(self, context: int, concurrency: int) -> bool:
        """Whether GPUs and main memory can hold it."""
        on_host = host_bytes(self.fixed(0))
        at = self.fullest(context, concurrency)
        return (self.host_limit is None or on_host <= self.host_limit) and (
            self.least(context, concurrency, at) <= self.room(at)
        )


def plan_case(
    model: Model, variant: Variant, gpus: tuple[Gpu, ...], layout: Layout, wishes: Wishes, host_limit: int | None,
    step_tokens: int,
) -> Case | None:  # fmt: skip
    """The variant on these GPUs; None where nothing says how large it is."""
    architecture = model.architecture
    if architecture is None or not gpus:
        return None
    stages = []
    share = share_of(model, variant.name, layout.tensor, layout.data)
    for stage in stages_of(architecture.layers, layout.pipeline):
        if share is not None:
            stages.append((stage, share.of(stage.layers, is_first=stage.is_first, is_last=stage.is_last)))
        elif variant.size_bytes is not None:
            stages.append((stage, _guessed(architecture, variant.size_bytes, layout, stage)))
        else:
            return None
    total = min(gpu.memory_total_bytes or 0 for gpu in gpus)
    # vLLM refuses to start where its share of the whole is not free.
    free = min(1 - wishes.headroom, *(free_bytes(gpu) / (gpu.memory_total_bytes or 1) for gpu in gpus))
    utilisation = math.floor(free * 1000) / 1000
    limit = int(total * utilisation)
    return Case(
        model, architecture, variant, gpus, layout, wishes, host_limit, utilisation, limit, tuple(stages), step_tokens
    )


def _guessed(it: Architecture, size: int, layout: Layout, stage: Stage) -> int:
    """A stage's share of files of which the size alone is known: by its layers, and the ends' matrices on top."""
    ends = (stage.is_first + stage.is_last) * (it.vocabulary or 0) * it.embedding * 2 if layout.pipeline > 1 else 0
    return -(-(size * len(stage.layers) // it.layers + ends) // layout.tensor)


def free_bytes(gpu: Gpu) -> int:
    """Free memory; where it could not be read, all of it."""
    return gpu.memory_free_bytes if gpu.memory_free_bytes is not None else gpu.memory_total_bytes or 0


def cache_bytes(
    architecture: Architecture,
    tokens: int,
    number_bytes: int,
    parallel: int,
    step_tokens: int,
    layers: range | None = None,
) -> int:
    """Bytes of KV cache that one sequence of `tokens` takes on each of `parallel` GPUs, for all layers or some.

    Key and value heads are split as far as there are enough of them; a latent (MLA) is whole on every GPU. Windowed
    layers keep their window and what one step adds.
    """
    blocks = -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS
    window = architecture.sliding_window or tokens
    short = min(blocks, -(-(window + step_tokens) // BLOCK_TOKENS) * BLOCK_TOKENS)
    total = 0
    for layer in range(architecture.layers) if layers is None else layers:
        windowed = layer < len(architecture.windowed) and architecture.windowed[layer]
        total += (short if windowed else blocks) * _width(architecture, layer, parallel)
    return total * number_bytes


def _width(it: Architecture, layer: int, parallel: int) -> int:
    if it.latent:
        return it.key_length
    heads = it.kv_heads[layer]
    return -(-heads // parallel) * (it.key_length + it.value_length)


def _activations(it: Architecture, tokens: int, layout: Layout, stage: Stage) -> MemoryLine:
    """The widest moment of a step: the feed-forward's two inputs and their product, beside input and residual.

    Of experts each token has its own copy of the input, and those of all copies meet. The logits come on top, for all
    sequences at once, where tokens are chosen.
    """
    inner = it.feed_forward or 4 * it.embedding
    width = 3 * it.embedding + 3 * inner / layout.tensor
    if it.experts_used:
        expert = (it.expert_feed_forward or inner) / (layout.tensor * layout.data)
        width = max(width, 3 * it.embedding + layout.data * it.experts_used * (it.embedding + 3 * expert))
    vocabulary = (it.vocabulary or 0) if stage.is_last else 0
    size = math.ceil(tokens * width * 2) + MOST_SEQUENCES * vocabulary * LOGIT_BYTES
    formula = f"{tokens} tokens × {math.ceil(width)} numbers × 2 bytes"
    if stage.is_last:
        formula += f", {MOST_SEQUENCES} × {vocabulary} logits"
    return MemoryLine("activations", size, "gpu", formula)


def rank_for(adapters: tuple[Adapter, ...]) -> int:
    """The rank that vLLM has to make room for."""
    most = max(adapter.rank for adapter in adapters)
    return next((rank for rank in RANKS if rank >= most), RANKS[-1])


def adapters_line(
    it: Architecture,
    adapters: tuple[Adapter, ...],
    kind: MemoryKind,
    layout: Layout = Layout(),  # noqa: B008 - frozen
    stage: Stage | None = None,
) -> MemoryLine:
    """The room that vLLM sets aside at its start: two thin matrices beside every matrix, for each adapter.

    All matrices count, whichever an adapter changes, and embedding and output both. Of two thin matrices one is split
    where the wide one is, the other is whole on every GPU. A family whose matrices are not known here counts as one
    with attention and a feed-forward.
    """
    rank, stage = rank_for(adapters), stage or Stage(range(it.layers))
    inner = it.expert_feed_forward or it.feed_forward or 4 * it.embedding
    numbers = 0.0
    shapes = tensors_of(it)
    for shape in shapes or ():
        if shape.layer in stage.layers and shape.role in ("matrix", "expert"):
            columns, rows = shape.shape[:2]
            count = shape.shape[2] if len(shape.shape) > 2 else 1
            whole, split = (rows, columns) if "output" in shape.name or "down" in shape.name else (columns, rows)
            numbers += count / (layout.data if "_exps." in shape.name else 1) * (whole + split / layout.tensor)
    if shapes is None:
        numbers = len(stage.layers) * (it.experts or 1) * 9 * (it.embedding + inner)
    numbers += (stage.is_first + stage.is_last) * ((it.vocabulary or 0) + it.embedding)
    size = math.ceil(len(adapters) * rank * numbers * ADAPTER_NUMBER_BYTES)
    formula = f"{len(adapters)} × rank {rank} × {math.ceil(numbers)} rows and columns × {ADAPTER_NUMBER_BYTES} bytes"
    return MemoryLine("adapters", size, kind, formula)
