"""NVIDIA GPUs through NVML. The only file that imports `pynvml` (package nvidia-ml-py).

No driver is a normal machine: no GPUs and nothing to say. A GPU that is there and cannot be used is a fault with its
cause, since serving from the CPU in silence is what an operator would find out too late.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.hardware.device import is_gone, read_device, said
from serving.hardware.machine import Gpu
from serving.hardware.nvlink import join
from serving.hardware.pci import NvidiaDevice, nvidia_devices
from serving.hardware.visible import visible


@dataclass(frozen=True, slots=True)
class GpuReport:
    """The GPUs that can be computed on, and what is the matter with the others."""

    gpus: tuple[Gpu, ...] = ()
    faults: tuple[str, ...] = ()
    """GPUs, or all of the driver, that are there and do not work: a sentence each."""
    notes: tuple[str, ...] = ()
    """What else an operator would want to know: GPUs hidden by the environment, slices that were never made."""


def read_gpus(root: Path, nvml: Any = None, environment: Mapping[str, str] | None = None) -> GpuReport:
    """The GPUs that NVML and the environment let this process use. `nvml` stands in for pynvml in tests."""
    on_bus = nvidia_devices(root)
    has_module = (root / "proc/driver/nvidia/version").exists()
    if nvml is None:
        nvml = load_nvml()
    if nvml is None:
        if not on_bus and not has_module:
            return GpuReport()
        return GpuReport(faults=("there is an NVIDIA GPU, but the package nvidia-ml-py is missing: it is not used",))
    try:
        with session(nvml):
            found = _devices(nvml, root)
    except nvml.NVMLError as failure:
        return GpuReport(faults=_why_not(nvml, failure, root, on_bus, has_module=has_module))
    gpus, notes = visible(found.gpus, environment or {})
    return GpuReport(gpus, found.faults, (*found.notes, *notes))


def load_nvml() -> Any:
    """The pynvml module, or None where it is not installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


@contextlib.contextmanager
def session(nvml: Any) -> Iterator[None]:
    """NVML initialised for the time of the block. Raises nvml.NVMLError where the driver does not answer."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _devices(nvml: Any, root: Path) -> GpuReport:
    faults: list[str] = []
    notes: list[str] = []
    gpus: list[Gpu] = []
    links: dict[int, tuple[str, ...]] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            device = read_device(nvml, root, index)
        except nvml.NVMLError as failure:
            faults.append(f"GPU {index} does not answer ({said(failure)}): it is not used{_way_out(nvml, failure)}")
            continue
        gpus += device.gpus
        notes += device.notes
        links[index] = device.linked_to
    return GpuReport(join(gpus, links), tuple(faults), tuple(notes))


def _way_out(nvml: Any, failure: Exception) -> str:
    if is_gone(nvml, failure):
        return "; the kernel's log has the reason (`dmesg | grep Xid`), a reset or a reboot may bring it back"
    if isinstance(failure, nvml.NVMLError_NoPermission):
        return "; this user must be able to open its /dev/nvidia* file"
    return ""


def _why_not(
    nvml: Any, failure: Exception, root: Path, on_bus: tuple[NvidiaDevice, ...], *, has_module: bool
) -> tuple[str, ...]:
    """Why NVML could not be opened, as faults; () where that is because there is no GPU."""
    unused = "GPUs are not used"
    if isinstance(failure, (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded)):
        if has_module:
            return (_not_given(nvml, failure, root) + f": {unused}",)
        ours = [device for device in on_bus if device.driver != "vfio-pci"]
        if not ours:
            return ()
        return (_no_driver(nvml, failure, ours),)
    causes = {
        nvml.NVMLError_LibRmVersionMismatch: "the driver was updated and the old kernel module still runs; reboot",
        nvml.NVMLError_NoPermission: "this user may not open /dev/nvidiactl; see its mode and group",
        nvml.NVMLError_GpuIsLost: "a GPU has fallen off the bus; `dmesg | grep Xid` has the reason; reboot",
    }
    advice = next((f"; {text}" for kind, text in causes.items() if isinstance(failure, kind)), "")
    return (f"the NVIDIA driver does not answer ({said(failure)}): {unused}{advice}",)


def _not_given(nvml: Any, failure: Exception, root: Path) -> str:
    """The kernel module is loaded, and this process cannot reach it: nearly always a container without its GPUs."""
    if isinstance(failure, nvml.NVMLError_LibraryNotFound):
        missing = "its library libnvidia-ml.so.1 is not here"
    elif not any((root / "dev").glob("nvidia[0-9]*")):
        missing = "there is no /dev/nvidia* here"
    else:
        missing = f"it does not answer ({said(failure)})"
    return (
        f"an NVIDIA driver is loaded, but {missing} "
        "(a container gets them by `--gpus all`, a pod by a limit on nvidia.com/gpu)"
    )


def _no_driver(nvml: Any, failure: Exception, devices: list[NvidiaDevice]) -> str:
    where = ", ".join(device.address for device in devices)
    what = f"there is an NVIDIA GPU on the PCI bus ({where})" if len(devices) == 1 else f"NVIDIA GPUs are at {where}"
    other = next((device.driver for device in devices if device.driver), None)
    if isinstance(failure, nvml.NVMLError_DriverNotLoaded):
        return f"{what}, but the driver's kernel module is not loaded: not used; see `dmesg` and `modprobe nvidia`"
    taken = f" (`{other}` has taken it)" if other else ""
    return f"{what}, but no NVIDIA driver is installed{taken}: not used"
