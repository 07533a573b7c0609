"""What a machine is, as the planner sees it. What could not be read is None, never 0."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class MigSlice:
    """Which part of which GPU a MIG device is."""

    parent_index: int
    parent_uuid: str | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG slice of it: what a process can compute on.

    A GPU in multi-instance mode cannot be used itself, so its slices stand in its place, with what they share with it
    (driver, power, errors) repeated in each.
    """

    index: int
    """NVML's, by PCI address: `nvidia-smi -i`. CUDA may count otherwise; name devices to it by `uuid`."""
    name: str | None = None
    uuid: str | None = None
    memory_total_bytes: int | None = None
    """None also where the GPU has no memory of its own (Jetson, GB10): see `unified_memory`."""
    memory_free_bytes: int | None = None
    compute_capability: tuple[int, int] | None = None
    mig: bool | None = None
    """Multi-instance mode is on; this is then a slice."""
    nvlink_links: int | None = None
    """NVLink links that are up."""
    power_limit_w: float | None = None
    """The limit in force, the lowest of all that are set."""
    driver: str | None = None
    cuda: str | None = None
    """The newest CUDA version that the driver serves."""
    slice: MigSlice | None = None
    """Set where this is a part of a GPU."""
    nvlink_peers: tuple[int, ...] = ()
    """Indices of the GPUs reached over NVLink, directly or through a switch."""
    nvswitch: bool | None = None
    """Its links lead to a switch: every GPU on it reaches every other at full rate."""
    memory_bandwidth_bytes_s: int | None = None
    """Peak by bus width and clock, bytes per second, the whole GPU's also in a slice; what a kernel gets is less."""
    unified_memory: bool | None = None
    """Its memory is the machine's main memory: plan with `Machine.memory`."""
    memory_numa_node: int | None = None
    """The NUMA node that its own memory shows up as in main memory (Grace Hopper); None elsewhere."""
    numa_node: int | None = None
    """The processors nearest to it."""
    pci_address: str | None = None
    power_limit_set_w: float | None = None
    """What an administrator set; None where the GPU does not let itself be limited."""
    power_limit_default_w: float | None = None
    persistence: bool | None = None
    """The driver keeps the GPU initialised while nobody uses it."""
    ecc: bool | None = None
    """Error correction of its memory is on."""
    ecc_uncorrected: int | None = None
    """Memory errors that could not be corrected, over the GPU's life."""
    repair_pending: bool | None = None
    """Rows or pages of its memory wait for a reset to be replaced."""
    repair_failed: bool | None = None
    """A broken row could not be replaced: the GPU has to be."""
    fabric_ready: bool | None = None
    """NVSwitch took it in; until then CUDA does not start. None where it is on no switch."""
    processes: int | None = None
    """Processes that compute on it now."""


@dataclass(frozen=True, slots=True)
class NumaNode:
    """Processors and the memory beside them, in bytes. A node may have only one of the two."""

    id: int
    cpus: tuple[int, ...] = ()
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None


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
    """Ids of the hardware threads that this process's affinity and cpuset allow."""
    cores: tuple[int, ...] = ()
    """One of the usable ids for each physical core among them: what compute threads are bound to.

    Where the machine has cores of several speeds, only the fast ones: a step of the engine ends when its slowest
    thread does."""
    quota: float | None = None
    """Processors' worth of time that the control group allows; None where it sets no limit."""
    isa: tuple[str, ...] = ()
    """Instruction sets that matter here and are there, as the kernel names them: `sse4_2`, `avx2`, `amx_int8`, …"""
    numa_nodes: int | None = None
    slow_cores: tuple[int, ...] = ()
    """The usable cores left out of `cores`: Intel's efficiency cores, ARM's small ones."""
    isolated: tuple[int, ...] = ()
    """Threads that the kernel schedules nobody on unasked (`isolcpus=`)."""
    nodes: tuple[NumaNode, ...] = ()
    last_level_cache_bytes: int | None = None
    """All caches of the last level together, bytes."""

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
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    huge_pages: int | None = None
    """Huge pages set aside at boot or by hand; none of them can hold anything else."""
    huge_pages_free: int | None = None
    huge_page_bytes: int | None = None
    transparent_huge_pages: Literal["always", "madvise", "never"] | None = None

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
    filesystem: str | None = None
    """The kernel's name of its type: `ext4`, `overlay`, `nfs4`, …"""
    rotational: bool | None = None
    """A disk that turns; None where no single device is known (overlay, network, btrfs), or a hypervisor says so, whose
    disks do unless somebody set it right."""


@dataclass(frozen=True, slots=True)
class Host:
    """What kind of machine this is."""

    product: str | None = None
    """Maker and product by the firmware; None where it does not say (many containers, WSL)."""
    kernel: str | None = None
    virtual: bool | None = None
    """A hypervisor runs beneath (x86 only: others do not say)."""
    container: bool | None = None
    """This process runs in a container; None where nothing tells."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the planner knows of the host, and what went wrong while finding out."""

    gpus: tuple[Gpu, ...] = ()
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    disk: Disk | None = None
    warnings: tuple[str, ...] = ()
    """What is broken here and why, in sentences: a GPU driver that does not answer, a limit that cannot be read."""
    host: Host = Host()
    gpu_faults: tuple[str, ...] = ()
    """Those of the warnings that are about GPUs which are there and cannot be used."""

    def to_json(self) -> str:
        """One JSON object; `Machine.from_json` reads it back to an equal machine."""
        return json.dumps(dataclasses.asdict(self), default=str, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The machine that `to_json` or `serve hardware --json` wrote.

        Fields that are missing are not known; unknown ones are passed over, so that a newer file can be read.
        Raises pydantic.ValidationError for anything else.
        """
        return TypeAdapter(cls).validate_json(text)
