"""What a machine is, as the planner sees it. What could not be read is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG slice of it."""

    index: int
    name: str | None = None
    uuid: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    mig: bool | None = None
    """Multi-instance mode is on."""
    nvlink_links: int | None = None
    """NVLink links that are up."""
    power_limit_w: float | None = None
    driver: str | None = None
    cuda: str | None = None
    """The newest CUDA version that the driver serves."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors this process may use."""

    model: str | None = None
    architecture: str | None = None
    logical: int | None = None
    """Hardware threads in the machine."""
    physical: int | None = None
    """Cores in the machine, hyper-threads of one core counted once."""
    usable: tuple[int, ...] = ()
    """Ids of the hardware threads that this process's affinity allows."""
    cores: tuple[int, ...] = ()
    """One of the usable ids for each physical core among them: what compute threads are bound to."""
    quota: float | None = None
    """Processors' worth of time that the control group allows; None where it sets no limit."""
    isa: tuple[str, ...] = ()
    """Instruction sets that matter for inference and are there: `avx2`, `avx512f`, `amx_int8`, …"""
    numa_nodes: int | None = None

    @property
    def parallel(self) -> int:
        """Compute threads that can run at once: usable physical cores, fewer under a quota; at least 1."""
        cores = len(self.cores) or len(self.usable) or self.physical or 1
        return max(1, min(cores, int(self.quota)) if self.quota is not None else cores)


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory, in bytes."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    """What can be had without swapping, by the kernel's own estimate."""
    limit_bytes: int | None = None
    """The tightest control group limit over this process; None where there is none."""
    limit_remaining_bytes: int | None = None
    """What is left under the control group limits, page cache that can be dropped counted as free."""

    @property
    def usable_bytes(self) -> int | None:
        """What this process may still take: the less of available and remaining; None if neither is known."""
        known = [number for number in (self.available_bytes, self.limit_remaining_bytes) if number is not None]
        return min(known) if known else None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that a directory lies on, in bytes."""

    path: Path
    total_bytes: int | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the planner knows of the host, and what went wrong while finding out."""

    gpus: tuple[Gpu, ...] = ()
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    disk: Disk | None = None
    warnings: tuple[str, ...] = ()
    """What is broken here and why, in sentences: a GPU driver that does not answer, a limit that cannot be read."""
