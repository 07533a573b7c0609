"""What the checks judge. All frozen; what could not be found out is None."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from serving.hardware import Disk, Machine
from serving.hardware.measure import MemoryRead
from serving.hardware.measure_disk import DiskRead

Limit = int | Literal["unlimited"] | None


@dataclass(frozen=True, slots=True)
class LlamaCppBuild:
    """The installed llama.cpp, as it describes itself in a process of its own."""

    version: str | None = None
    flags: tuple[str, ...] = ()
    """Instruction sets and libraries that it was compiled with: `AVX2`, `OPENMP`, …"""
    gpu_offload: bool | None = None
    variant: str | None = None
    """The part that a portable build chose for this processor, such as `haswell`; None for a build of one part."""
    failure: str | None = None
    """Why it did not answer."""
    signal: str | None = None
    """The signal that ended it: `SIGILL`, where it was built for another processor."""


@dataclass(frozen=True, slots=True)
class VllmInstall:
    """vLLM in the Python environment that would run it."""

    python: str
    version: str | None = None
    """None where it is not installed there."""
    torch: str | None = None
    cuda: str | None = None
    """The CUDA version its PyTorch was built with; None for a build without."""
    failure: str | None = None
    """Why that Python could not be asked."""
    harmony: str | None = None
    """The distribution that renders gpt-oss' prompts, and its version; None where there is none."""
    harmony_fetches: bool | None = None
    """That library knows an address to fetch its vocabulary from; None where it could not be looked at."""
    flashinfer: str | None = None
    flashinfer_cubin: str | None = None
    flashinfer_jit_cache: str | None = None
    """Versions of FlashInfer, and of the packages of its ready kernels; None where they are not installed."""
    include: str | None = None
    """Where C headers of that Python belong."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory as lstat(2) has it."""

    path: Path
    owner: int
    mode: int
    """Permission bits, the sticky one included."""


@dataclass(frozen=True, slots=True)
class CacheDirectory:
    """A directory in which vLLM keeps what it compiled, and from which it loads it as code."""

    path: Path
    places: tuple[Place, ...]
    """Itself and those above it, `/` first; it may end before `path`, which is then made when it is needed."""
    noexec: bool | None = None
    """Nothing there may be loaded as code; None where the mount is not known."""


VOCABULARY: Final = "o200k_base.tiktoken"
"""The file that gpt-oss' encoding is made from (openai/harmony, src/tiktoken_ext/public_encodings.rs)."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What vLLM reaches for while it runs, looked for as its process would: with the environment that it is given."""

    program_path: str
    """Its PATH."""
    user: int
    """Its user's number."""
    encodings: str | None = None
    """TIKTOKEN_ENCODINGS_BASE."""
    encoding_sha256: str | None = None
    """Digest of the vocabulary file there; None where there is none to be read."""
    cubin_dir: str | None = None
    """FLASHINFER_CUBIN_DIR, where kernels lie there and VLLM_HAS_FLASHINFER_CUBIN says that they are to be used."""
    nvcc: str | None = None
    ninja: str | None = None
    compiler: str | None = None
    """Programs that compile kernels; None where they are not found."""
    cc: str | None = None
    """CC, which names the compiler in place of a search."""
    has_headers: bool | None = None
    """Python.h is there; None where nobody said where it belongs."""
    caches: tuple[CacheDirectory, ...] = ()


@dataclass(frozen=True, slots=True)
class Ulimits:
    """Limits of this process (setrlimit(2)), the soft ones but where said."""

    open_files: Limit = None
    open_files_hard: Limit = None
    core_bytes: Limit = None
    locked_bytes: Limit = None
    address_space_bytes: Limit = None


@dataclass(frozen=True, slots=True)
class Clock:
    """The system's clock."""

    is_synchronised: bool | None = None
    """The kernel's own opinion (adjtimex(2)); in a virtual machine the host's clock may be kept right without it."""
    now_s: float | None = None
    """Seconds since 1970."""
    at_least_s: float | None = None
    """The time at which this package's files were written: it cannot be earlier now."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Settings of the kernel that matter to inference."""

    overcommit: int | None = None
    numa_balancing: bool | None = None
    smt: bool | None = None
    governors: tuple[str, ...] = ()
    """Those in use on any processor."""
    frequency_driver: str | None = None
    energy_preferences: tuple[str, ...] = ()
    core_pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that weights lie in."""

    path: Path
    disk: Disk
    read: DiskRead | None = None
    """How fast it reads; None where that was not measured."""


@dataclass(frozen=True, slots=True)
class Models:
    """The catalogue and its weights."""

    count: int | None = None
    """Models that the catalogue knows, the site's included."""
    paths: tuple[Path, ...] = ()
    """Weight files and directories of theirs that are here."""
    faults: tuple[str, ...] = ()
    """What is wrong with those that are here or should be, as sentences."""
    failure: str | None = None
    """Why the catalogue cannot be read."""
    hint: str | None = None
    """What to do about that."""


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """A directory of Perimeter's own: where sockets and engine state are, or what can be made again."""

    path: Path | None = None
    free_bytes: int | None = None
    failure: str | None = None
    """Why it cannot be used."""
    hint: str | None = None
    """What to do about that."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is judged."""

    machine: Machine
    python: tuple[int, int, int]
    require_gpu: bool = False
    llamacpp: LlamaCppBuild = LlamaCppBuild()
    vllm: VllmInstall | None = None
    surroundings: Surroundings | None = None
    """None where vLLM is not to run here."""
    ulimits: Ulimits = Ulimits()
    clock: Clock = Clock()
    kernel: Kernel = Kernel()
    shared_memory_bytes: int | None = None
    """Size of /dev/shm."""
    weights: tuple[Directory, ...] = ()
    models: Models = Models()
    runtime: OwnDirectory = OwnDirectory()
    cache: OwnDirectory = OwnDirectory()
    memory_read: MemoryRead | None = None
    """How fast memory reads; None where that was not measured."""
