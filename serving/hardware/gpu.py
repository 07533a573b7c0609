"""NVIDIA GPUs through NVML. The only file that imports `pynvml` (package nvidia-ml-py).

No driver is a normal machine: no GPUs and nothing to say. A driver that is there and does not answer is a warning
with its cause, since serving from the CPU in silence is what an operator would find out too late.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.hardware.machine import Gpu

_MAX_LINKS = 36


def read_gpus(root: Path, nvml: Any = None) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs, and warnings. `nvml` stands in for the pynvml module in tests."""
    driver_present = (root / "proc/driver/nvidia/version").exists()
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            if not driver_present:
                return (), ()
            return (), ("an NVIDIA driver is loaded, but the package nvidia-ml-py is missing: GPUs are not seen",)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as failure:
        return (), _why_not(nvml, failure, driver_present=driver_present)
    try:
        return _gpus(nvml)
    finally:
        _ask(nvml, nvml.nvmlShutdown)


def _why_not(nvml: Any, failure: Exception, *, driver_present: bool) -> tuple[str, ...]:
    absent = (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded)
    if isinstance(failure, absent) and not driver_present:
        return ()
    return (f"the NVIDIA driver does not answer ({failure}): GPUs are not used",)


def _gpus(nvml: Any) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    warnings: list[str] = []
    gpus: list[Gpu] = []
    driver = _text(_ask(nvml, nvml.nvmlSystemGetDriverVersion))
    version = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    cuda = f"{version // 1000}.{version % 1000 // 10}" if version else None
    for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as failure:
            warnings.append(f"GPU {index} does not answer ({failure}): it is not used")
            continue
        memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        mig = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
        power = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
        gpus.append(
            Gpu(
                index=index,
                name=_text(_ask(nvml, nvml.nvmlDeviceGetName, handle)),
                uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
                memory_total_bytes=memory.total if memory else None,
                memory_free_bytes=memory.free if memory else None,
                compute_capability=tuple(capability) if capability else None,
                mig=bool(mig[0]) if mig else None,
                nvlink_links=_links(nvml, handle),
                power_limit_w=power / 1000 if power else None,
                driver=driver,
                cuda=cuda,
            )
        )
    return tuple(gpus), tuple(warnings)


def _links(nvml: Any, handle: Any) -> int | None:
    states = [_ask(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(_MAX_LINKS)]
    known = [state for state in states if state is not None]
    return sum(known) if known else None


def _ask(nvml: Any, question: Callable[..., Any], *details: Any) -> Any:
    """The answer, or None where this GPU or driver has none."""
    try:
        return question(*details)
    except nvml.NVMLError:
        return None


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
