"""Machines that nobody has here: hosts with GPUs of the kinds that people buy, as NVML and the kernel describe them.

For planning before buying: `serve plan llama3.1-70b --machine 4xH100`. Totals are what NVML reports, not the round
numbers on the box.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.hardware.machine import Cpu, Disk, Gpu, Host, Machine, Memory, NumaNode
from serving.wheels.levels import flags_of

GIB = 1024**3
MIB = 1024**2

MOST_GPUS = 16
"""GPUs of one host, at most."""
GpuKind = Literal["A100-40", "A100-80", "H100", "H200", "L40S", "L4", "RTX-4090"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of GPU says of itself."""

    name: str
    total_bytes: int
    reserved_bytes: int
    """What the driver holds on an idle GPU."""
    capability: tuple[int, int]
    bandwidth_bytes_s: int
    links: int
    """NVLink links; 0 for a PCIe card."""
    power_w: float


KINDS: dict[GpuKind, Kind] = {
    "A100-40": Kind("NVIDIA A100-SXM4-40GB", 40960 * MIB, 425 * MIB, (8, 0), 1_555_200_000_000, 12, 400.0),
    "A100-80": Kind("NVIDIA A100-SXM4-80GB", 81920 * MIB, 511 * MIB, (8, 0), 2_039_040_000_000, 12, 400.0),
    "H100": Kind("NVIDIA H100 80GB HBM3", 85_520_809_984, 545 * MIB, (9, 0), 3_352_320_000_000, 18, 700.0),
    "H200": Kind("NVIDIA H200", 143771 * MIB, 602 * MIB, (9, 0), 4_915_200_000_000, 18, 700.0),
    "L40S": Kind("NVIDIA L40S", 46068 * MIB, 486 * MIB, (8, 9), 864_096_000_000, 0, 350.0),
    "L4": Kind("NVIDIA L4", 23034 * MIB, 481 * MIB, (8, 9), 300_048_000_000, 0, 72.0),
    "RTX-4090": Kind("NVIDIA GeForce RTX 4090", 24564 * MIB, 367 * MIB, (8, 9), 1_008_096_000_000, 0, 450.0),
}


def kind_called(name: str) -> GpuKind | None:
    """The kind of GPU of that name, in any case; None where it is not known."""
    return next((kind for kind in KINDS if kind.lower() == name.lower()), None)


def machine(gpu: GpuKind, count: int, *, memory_bytes: int = 512 * GIB) -> Machine:
    """A host of 64 cores with AVX-512 and `count` GPUs of a kind, all of them idle.

    `memory_bytes` is what main memory has to give. SXM modules are joined by NVLink through a switch, cards are not.
    """
    kind = KINDS[gpu]
    return Machine(
        gpus=tuple(_gpu(kind, index, count) for index in range(count)),
        cpu=_cpu(memory_bytes),
        memory=Memory(
            total_bytes=memory_bytes + 16 * GIB,
            available_bytes=memory_bytes,
            swap_total_bytes=0,
            swap_free_bytes=0,
            huge_pages=0,
            huge_pages_free=0,
            huge_page_bytes=2 * MIB,
            transparent_huge_pages="madvise",
        ),
        disk=Disk(Path("/"), 3840 * GIB, 2048 * GIB, "ext4", rotational=False),
        host=Host("Supermicro SYS-821GE-TNHR", "6.8.0-60-generic", virtual=False, container=False),
    )


def _gpu(kind: Kind, index: int, count: int) -> Gpu:
    return Gpu(
        index=index,
        name=kind.name,
        uuid=f"GPU-0000000{index}-0000-4000-8000-000000000000",
        memory_total_bytes=kind.total_bytes,
        memory_free_bytes=kind.total_bytes - kind.reserved_bytes,
        compute_capability=kind.capability,
        mig=False if kind.links else None,
        nvlink_links=kind.links or None,
        power_limit_w=kind.power_w,
        driver="570.133.20",
        cuda="12.8",
        nvlink_peers=tuple(peer for peer in range(count) if peer != index) if kind.links else (),
        nvswitch=True if kind.links else None,
        memory_bandwidth_bytes_s=kind.bandwidth_bytes_s,
        unified_memory=False,
        numa_node=0 if index < (count + 1) // 2 else 1,
        pci_address=f"00000000:{0x19 + 0x10 * index:02X}:00.0",
        power_limit_set_w=kind.power_w,
        power_limit_default_w=kind.power_w,
        persistence=True,
        ecc=True if kind.links or "L4" in kind.name else None,
        ecc_uncorrected=0 if kind.links or "L4" in kind.name else None,
        processes=0,
    )


def _cpu(memory_bytes: int) -> Cpu:
    halves = tuple((*range(32 * half, 32 * half + 32), *range(64 + 32 * half, 96 + 32 * half)) for half in (0, 1))
    return Cpu(
        model="Intel(R) Xeon(R) Platinum 8462Y+",
        architecture="x86_64",
        logical=128,
        physical=64,
        usable=tuple(range(128)),
        cores=tuple(range(64)),
        isa=(*flags_of(4), "avx512_vnni", "avx512_bf16"),
        numa_nodes=2,
        nodes=tuple(
            NumaNode(half, cpus, (memory_bytes + 16 * GIB) // 2, memory_bytes // 2) for half, cpus in enumerate(halves)
        ),
        last_level_cache_bytes=120 * MIB,
    )
