"""What goes into a plan and what comes out of it. All frozen, all JSON round-trips."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter

from serving.hardware import Gpu
from serving.pooling import Pooling, Task
from serving.registry import Adapter

Engine = Literal["llamacpp", "vllm", "transformers"]
KvDtype = Literal["f16", "bf16", "f32", "q8_0", "fp8"]
"""Numbers in the cache: `q8_0` and `f32` with llama.cpp, `fp8` with vLLM, 16 bits with both."""
KvLayout = Literal["unified", "streams"]
LoadMode = Literal["mmap", "none"]
WaitPolicy = Literal["active", "brief", "passive"]
"""How a compute thread waits for the others: spin for milliseconds, spin for microseconds and then sleep, or sleep."""
MemoryKind = Literal["anonymous", "file", "gpu"]


@dataclass(frozen=True, slots=True)
class Engines:
    """Which engines this host can start."""

    vllm: bool = False
    """vLLM built for CUDA can be started."""
    vllm_cpu: bool = False
    """vLLM built for processors can be started; it is taken only where it is asked for."""
    vllm_lacks: str = "it is not installed here"
    """Why vLLM cannot be started, as a sentence; of no meaning where it can."""
    transformers: bool = False
    """PyTorch with Transformers can be started; taken only where it is asked for."""
    transformers_cuda: bool = False
    """That PyTorch was built for CUDA."""
    transformers_lacks: str = "it is not installed here"
    """Why Transformers cannot be started, as a sentence; of no meaning where it can."""
    offload: bool = False
    """The installed llama.cpp was built with a GPU backend (`llama_supports_gpu_offload`)."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user insisted on; None leaves it to the planner."""

    backend: Engine | None = None
    variant: str | None = None
    local: bool = False
    """Only variants whose weights are on this host."""
    context: int | None = None
    """Tokens per sequence."""
    concurrency: int | None = None
    """Sequences computed at the same time."""
    kv_layout: KvLayout | None = None
    kv_tokens: int | None = None
    """Cells of a unified cache in all; set, it rules out streams."""
    kv_dtype: KvDtype | None = None
    parallel: int | None = None
    """GPUs that hold one copy of the model, however they share it (vLLM)."""
    tensor_parallel: int | None = None
    """GPUs that share each layer (vLLM)."""
    pipeline_parallel: int | None = None
    """Stages that share the layers (vLLM)."""
    data_parallel: int | None = None
    """Copies of the model beside each other (vLLM)."""
    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters to serve beside the model (vLLM)."""
    gpu_layers: int | None = None
    """Layers on the GPU (llama.cpp); None puts there what fits, where the build can."""
    threads: int | None = None
    wait_policy: WaitPolicy | None = None
    load_mode: LoadMode | None = None
    swa_full: bool = False
    ubatch: int = 512
    """Tokens computed in one pass, at most (llama.cpp)."""
    step_tokens: int | None = None
    """Tokens computed in one step (vLLM); None leaves it to the planner."""
    most_concurrency: int = 16
    """What the planner aims at with llama.cpp where `concurrency` is None."""
    snapshot_bytes: int = 256 * 1024**2
    """Host memory set aside for shared prefixes in the streams layout."""
    headroom: float = 0.1
    """Share of the usable memory that stays free."""
    configured: tuple[tuple[str, Engine], ...] = ()
    """Names of wishes that stand in one engine's own settings, and were asked for nowhere else: no other engine looks
    at them."""


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One line of the memory table."""

    name: str
    bytes: int
    kind: MemoryKind
    """`file`: mapped pages that other processes share and the kernel may drop and read again. `gpu`: memory of each
    GPU that takes part."""
    formula: str
    """How the number came about, with its inputs."""
    as_used: bool = False
    """Taken bit by bit as it is used, up to this; all other lines are resident once the engine has worked."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An alternative that was looked at and not taken."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a model is served on a machine: what all engines have in common."""

    engine: Engine
    model: str
    variant: str
    weights: Path | None
    """The file (GGUF) or directory (safetensors); None where it has to be brought to this host first."""
    weights_bytes: int
    context: int
    """Tokens one sequence may hold."""
    concurrency: int
    """Sequences computed at the same time."""
    kv_tokens: int
    """Tokens that the KV cache holds in all."""
    kv_dtype: KvDtype
    memory: tuple[MemoryLine, ...]
    budget_bytes: int | None
    """What the machine's main memory can give, headroom taken off; None where it could not be read."""
    gpu_budget_bytes: int | None = None
    """The same for each GPU that takes part; None without one."""
    dummy: bool = False
    """The weights are synthetic: answers are noise."""
    rejected: tuple[Rejected, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Anonymous and file-backed bytes of main memory together."""
        return self.bytes_of("anonymous") + self.bytes_of("file")

    def bytes_of(self, kind: MemoryKind, *, as_used: bool = True) -> int:
        """Bytes of one kind: what RssAnon or RssFile of the engine come to, or one GPU's memory.

        Without `as_used`, what they come to before anything that is taken bit by bit has been.
        """
        return sum_bytes(self.memory, kind, as_used=as_used)

    def to_json(self) -> str:
        """One JSON object; `Plan.from_json` reads it back to an equal plan."""
        return _to_json(self)

    @staticmethod
    def from_json(text: str) -> AnyPlan:
        """The plan that `to_json` wrote. Raises pydantic.ValidationError for anything else."""
        return _PLANS.validate_json(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamacppPlan(Plan):
    """A model served by llama.cpp, from main memory and, where the build can, a GPU."""

    engine: Literal["llamacpp"] = "llamacpp"
    task: Task = "generate"
    """What the model is for. Embedders and rerankers compute whole texts: `n_ubatch` is the longest, `concurrency` the
    most of them in one pass, and encoders keep no cache."""
    kv_layout: KvLayout
    swa_full: bool
    n_ubatch: int
    threads: int
    cores: tuple[int, ...]
    """Hardware threads that the engine is bound to."""
    wait_policy: WaitPolicy
    load_mode: LoadMode
    snapshot_bytes: int
    gpu_layers: int = 0
    """Layers computed on the GPU, from the last one on; one more than there are includes the output matrix."""
    gpu: str | None = None
    """That GPU, as CUDA_VISIBLE_DEVICES names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmPlan(Plan):
    """A model served by vLLM from one or several equal GPUs, or by its CPU build from main memory."""

    engine: Literal["vllm"] = "vllm"
    task: Task = "generate"
    """What the model is for. Of those that embed or rank, encoders keep no cache."""
    pooling: Pooling | None = None
    """How the numbers of a text's tokens become those of the text; None for models that write."""
    is_encoder: bool = False
    """It reads a whole text at once, which one step has to hold."""
    gpus: tuple[str, ...]
    """The GPUs, as CUDA_VISIBLE_DEVICES names them: tensor × pipeline × data of them. () is the CPU build."""
    tensor: int = 1
    """GPUs that share each layer."""
    pipeline: int = 1
    """Stages, each with a part of the layers. The memory table is that of the fullest."""
    data: int = 1
    """Copies beside each other, each with a cache of its own; `concurrency` and `kv_tokens` are of all together."""
    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters that requests can name in place of the model."""
    cores: tuple[int, ...] = ()
    """Hardware threads that the CPU build computes on."""
    memory_utilisation: float
    """Share of each GPU's memory that vLLM may take; 0 without GPUs."""
    kv_bytes: int | None = None
    """The KV cache of the CPU build, in bytes; on GPUs it is what the share leaves."""
    step_tokens: int
    """Tokens computed in one step, at most."""
    dtype: Literal["bfloat16", "float16", "float32"]
    """Type of the activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersPlan(Plan):
    """A model served by PyTorch and Transformers, one request at a time: the oracle."""

    engine: Literal["transformers"] = "transformers"
    task: Task = "generate"
    """What the model is for: this engine does nothing else."""
    threads: int
    cores: tuple[int, ...]
    """Hardware threads that the engine is bound to."""
    gpu: str | None = None
    """The GPU it computes on, as CUDA_VISIBLE_DEVICES names it; None computes on the cores."""


AnyPlan = LlamacppPlan | VllmPlan | TransformersPlan
_PLANS: TypeAdapter[AnyPlan] = TypeAdapter(Annotated[AnyPlan, Field(discriminator="engine")])


def name_of(gpu: Gpu) -> str:
    """A GPU as CUDA_VISIBLE_DEVICES names it: by its UUID, since CUDA may count otherwise than the driver."""
    return gpu.uuid or str(gpu.index)


def most_parallel(wishes: Wishes) -> int:
    """GPUs that the wishes ask for at least; 1 where they ask for none."""
    shared = (wishes.tensor_parallel or 1) * (wishes.pipeline_parallel or 1)
    return max(wishes.parallel or 1, shared) * (wishes.data_parallel or 1)


def sum_bytes(lines: tuple[MemoryLine, ...], kind: MemoryKind, *, as_used: bool = True) -> int:
    """Bytes of one kind in a memory table."""
    return sum(line.bytes for line in lines if line.kind == kind and (as_used or not line.as_used))


def host_bytes(lines: tuple[MemoryLine, ...]) -> int:
    """Bytes of main memory in a memory table."""
    return sum_bytes(lines, "anonymous") + sum_bytes(lines, "file")


@dataclass(frozen=True, slots=True)
class NearestFit:
    """What would fit: the wishes to change, and what it then takes."""

    change: tuple[tuple[str, str | int | bool | None], ...]
    """Names of wishes (`backend`, `variant`, `context`, …) and the values that fit; None for a wish to give up."""
    total_bytes: int
    """Bytes of main memory that it takes then."""
    gpu_bytes: int = 0
    """Bytes of each GPU."""


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why a model cannot be served here as wished, in numbers."""

    model: str
    variant: str | None
    reason: str
    """One sentence without the model's name: `needs 21.4 GiB, 15.8 GiB available`."""
    short_bytes: int | None
    """How much memory is missing, on each GPU where those are short; None where memory is not what it fails on."""
    memory: tuple[MemoryLine, ...] = ()
    """The table of the smallest plan under these wishes."""
    budget_bytes: int | None = None
    gpu_budget_bytes: int | None = None
    nearest: tuple[NearestFit, ...] = ()
    """What would fit here, best first; () where nothing does."""
    enough: str | None = None
    """More of the same hardware that would hold it: `4 × NVIDIA L4`."""
    rejected: tuple[Rejected, ...] = ()

    def to_json(self) -> str:
        """One JSON object; `NoFit.from_json` reads it back."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote. Raises pydantic.ValidationError for anything else."""
        return TypeAdapter(cls).validate_json(text)


def _to_json(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value), default=str, ensure_ascii=False)
