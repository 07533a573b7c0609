"""What NVML says of one GPU, and of the slices that it is cut into."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving.hardware.machine import Gpu, MigSlice
from serving.hardware.nvlink import Links, read_links
from serving.hardware.pci import numa_node

_TRANSFERS_PER_CLOCK = 2
"""GDDR and HBM move data on both edges of the clock that NVML reports as maximum."""


@dataclass(frozen=True, slots=True)
class Device:
    """What one physical GPU comes to."""

    gpus: tuple[Gpu, ...]
    """The GPU itself, or its slices."""
    linked_to: tuple[str, ...] = ()
    """PCI addresses at the far end of its NVLinks."""
    notes: tuple[str, ...] = ()


def read_device(nvml: Any, root: Path, index: int) -> Device:
    """One GPU by NVML's index. Raises nvml.NVMLError where it is lost or cannot be opened."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    links = read_links(nvml, handle)
    gpu = _whole(nvml, root, index, handle, links)
    if not gpu.mig:
        return Device((gpu,), links.remotes)
    slices = tuple(_slices(nvml, gpu, handle))
    if slices:
        return Device(slices)
    return Device((), notes=(f"GPU {index} is in MIG mode and has no slices: it cannot be used (`nvidia-smi mig`)",))


def _whole(nvml: Any, root: Path, index: int, handle: Any, links: Links) -> Gpu:
    total, free, unified = _memory(nvml, handle)
    version = ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    capability = ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    mig = ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    ecc = ask(nvml, nvml.nvmlDeviceGetEccMode, handle)
    persistence = ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    pci = ask(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    address = _text(pci.busId) if pci else None
    pending, failed = _repairs(nvml, handle)
    processes = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return Gpu(
        index=index,
        name=_text(ask(nvml, nvml.nvmlDeviceGetName, handle)),
        uuid=_text(ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
        memory_total_bytes=total,
        memory_free_bytes=free,
        compute_capability=(capability[0], capability[1]) if capability else None,
        mig=bool(mig[0]) if mig else None,
        nvlink_links=links.up,
        power_limit_w=_watts(ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        driver=_text(ask(nvml, nvml.nvmlSystemGetDriverVersion)),
        cuda=f"{version // 1000}.{version % 1000 // 10}" if version else None,
        nvswitch=links.to_switch,
        memory_bandwidth_bytes_s=_bandwidth(nvml, handle),
        unified_memory=unified,
        memory_numa_node=ask(nvml, nvml.nvmlDeviceGetNumaNodeId, handle),
        numa_node=numa_node(root, address) if address else None,
        pci_address=address,
        power_limit_set_w=_watts(ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle)),
        power_limit_default_w=_watts(ask(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
        persistence=bool(persistence) if persistence is not None else None,
        ecc=bool(ecc[0]) if ecc else None,
        ecc_uncorrected=_uncorrected(nvml, handle),
        repair_pending=pending,
        repair_failed=failed,
        fabric_ready=_fabric(nvml, handle),
        processes=len(processes) if processes is not None else None,
    )


def _memory(nvml: Any, handle: Any) -> tuple[int | None, int | None, bool | None]:
    """Total, free, and whether the GPU has no memory of its own, which the driver tells by not knowing the question."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        return None, None, True
    except nvml.NVMLError as failure:
        if is_gone(nvml, failure):
            raise
        return None, None, None
    # Some integrated GPUs answer with zeros.
    return (memory.total, memory.free, False) if memory.total else (None, None, True)


def _slices(nvml: Any, parent: Gpu, handle: Any) -> list[Gpu]:
    """The MIG devices of a GPU: in its place, with what is theirs over what is its."""
    slices = []
    for number in range(ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is None:
            continue
        total, free, _ = _memory(nvml, part)
        processes = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, part)
        slices.append(
            replace(
                parent,
                name=_text(ask(nvml, nvml.nvmlDeviceGetName, part)) or parent.name,
                uuid=_text(ask(nvml, nvml.nvmlDeviceGetUUID, part)),
                memory_total_bytes=total,
                memory_free_bytes=free,
                mig=True,
                # MIG devices have no peer-to-peer traffic, over NVLink neither.
                nvlink_links=None,
                nvswitch=None,
                slice=MigSlice(
                    parent_index=parent.index,
                    parent_uuid=parent.uuid,
                    gpu_instance=ask(nvml, nvml.nvmlDeviceGetGpuInstanceId, part),
                    compute_instance=ask(nvml, nvml.nvmlDeviceGetComputeInstanceId, part),
                ),
                processes=len(processes) if processes is not None else None,
            )
        )
    return slices


def _bandwidth(nvml: Any, handle: Any) -> int | None:
    width = ask(nvml, nvml.nvmlDeviceGetMemoryBusWidth, handle)
    clock = ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM)
    return width // 8 * clock * 1_000_000 * _TRANSFERS_PER_CLOCK if width and clock else None


def _uncorrected(nvml: Any, handle: Any) -> int | None:
    count: int | None = ask(
        nvml,
        nvml.nvmlDeviceGetTotalEccErrors,
        handle,
        nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        nvml.NVML_AGGREGATE_ECC,
    )
    return count


def _repairs(nvml: Any, handle: Any) -> tuple[bool | None, bool | None]:
    """Repairs of memory (pending, failed): rows since Ampere, pages before."""
    rows = ask(nvml, nvml.nvmlDeviceGetRemappedRows, handle)
    if rows is not None:
        _, _, pending, failed = rows
        return bool(pending), bool(failed)
    pages = ask(nvml, nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)
    return (bool(pages) if pages is not None else None), None


def _fabric(nvml: Any, handle: Any) -> bool | None:
    """Whether the NVSwitch fabric took this GPU in; None where it is on none."""
    info = nvml.c_nvmlGpuFabricInfo_t()
    if ask(nvml, nvml.nvmlDeviceGetGpuFabricInfo, handle, ctypes.byref(info)) is None:
        return None
    if info.state == nvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED:
        return None
    return bool(info.state == nvml.NVML_GPU_FABRIC_STATE_COMPLETED)


def ask(nvml: Any, question: Callable[..., Any], *details: Any) -> Any:
    """The answer, or None where this GPU or driver has none. Raises nvml.NVMLError where the GPU is gone."""
    try:
        return question(*details)
    except nvml.NVMLError as failure:
        if is_gone(nvml, failure):
            raise
        return None


def is_gone(nvml: Any, failure: Exception) -> bool:
    """Whether the error says that the GPU is no more, rather than that it has no answer to this question."""
    return isinstance(failure, (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired))


def said(failure: Exception) -> str:
    """NVML's own words."""
    return str(failure) or type(failure).__name__


def _watts(milliwatts: int | None) -> float | None:
    return milliwatts / 1000 if milliwatts else None


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
