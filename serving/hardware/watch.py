"""GPUs that were there at the start, asked for again: at the start (`require_gpu`), and while serving (`GpuWatch`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.errors import GpuMissing
from serving.hardware.device import said
from serving.hardware.gpu import load_nvml, session
from serving.hardware.machine import Gpu, Machine


@dataclass(frozen=True, slots=True)
class LostGpu:
    """A GPU that was there and no longer answers."""

    gpu: Gpu
    why: str
    """NVML's words, or ours where the driver as a whole is silent."""

    def __str__(self) -> str:
        return f"GPU {self.gpu.index} ({self.gpu.name or 'unnamed'}, {self.gpu.uuid or 'no UUID'}): {self.why}"


def require_gpu(machine: Machine) -> None:
    """Refuse a machine without a GPU to compute on, or with one that does not work. Raises GpuMissing."""
    if machine.gpu_faults:
        raise GpuMissing(
            f"`hardware.require_gpu` is set, and not all GPUs work: {'; '.join(machine.gpu_faults)}",
            hint="mend the driver (`serve doctor` has more), or set `hardware.require_gpu = false`",
        )
    if not machine.gpus:
        notes = f": {'; '.join(machine.warnings)}" if machine.warnings else ""
        raise GpuMissing(
            f"`hardware.require_gpu` is set, and no GPU can be used here{notes}",
            hint="give this process a GPU (`serve doctor` has more), or set `hardware.require_gpu = false`",
        )


def find_lost(expected: Sequence[Gpu], nvml: Any = None) -> tuple[LostGpu, ...]:
    """Those of the GPUs that no longer answer, MIG slices included. Blocks for as long as the driver does.

    NVML is opened anew each time: a handle from before a driver's restart would say that all are lost.
    """
    if nvml is None:
        nvml = load_nvml()
    if nvml is None:
        return tuple(LostGpu(gpu, "the package nvidia-ml-py is missing") for gpu in expected)
    try:
        with session(nvml):
            found = ((gpu, _why_lost(nvml, gpu)) for gpu in expected)
            return tuple(LostGpu(gpu, why) for gpu, why in found if why is not None)
    except nvml.NVMLError as failure:
        return tuple(LostGpu(gpu, f"the driver does not answer ({said(failure)})") for gpu in expected)


def _why_lost(nvml: Any, gpu: Gpu) -> str | None:
    """What NVML says against a GPU; None while it answers. Having no answer to a question is one."""
    try:
        if gpu.uuid is None:
            handle = nvml.nvmlDeviceGetHandleByIndex(gpu.index)
        else:
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        nvml.nvmlDeviceGetMemoryInfo(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
        return None
    except nvml.NVMLError as failure:
        return said(failure)
    return None


class GpuWatch:
    """Asks for GPUs again and again, and tells when one is lost or comes back.

    The driver is asked on a thread of its own, since a call into one that hangs does not return; a daemon, so that it
    keeps nobody from leaving. While it hangs, all are lost.
    """

    def __init__(
        self,
        expected: Sequence[Gpu],
        on_change: Callable[[tuple[LostGpu, ...]], None],
        *,
        every_s: float = 15.0,
        timeout_s: float = 30.0,
        look: Callable[[Sequence[Gpu]], tuple[LostGpu, ...]] = find_lost,
    ) -> None:
        """`on_change` is called on the event loop with all that are lost now, whenever they are others than before."""
        self._expected = tuple(expected)
        self._on_change = on_change
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._look = look
        self.lost: tuple[LostGpu, ...] = ()

    async def run(self) -> None:
        """Watch until cancelled; returns at once where there is nothing to watch."""
        while self._expected:
            await asyncio.sleep(self._every_s)
            answer = self._ask()
            done, _ = await asyncio.wait({answer}, timeout=self._timeout_s)
            if not done:
                why = f"the driver has not answered for {self._timeout_s:g} s"
                self._tell(tuple(LostGpu(gpu, why) for gpu in self._expected))
            self._tell(await answer)

    def _ask(self) -> asyncio.Future[tuple[LostGpu, ...]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[LostGpu, ...]] = loop.create_future()

        def settle(lost: tuple[LostGpu, ...]) -> None:
            if not answer.done():
                answer.set_result(lost)

        def look() -> None:
            try:
                lost = self._look(self._expected)
            except Exception as failure:  # noqa: BLE001 - a watch that died in silence would be the worst of outcomes
                why = f"it cannot be asked for: {type(failure).__name__}: {failure}"
                lost = tuple(LostGpu(gpu, why) for gpu in self._expected)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, lost)

        threading.Thread(target=look, name="gpu-watch", daemon=True).start()
        return answer

    def _tell(self, lost: tuple[LostGpu, ...]) -> None:
        before = {(one.gpu, one.why) for one in self.lost}
        self.lost = lost
        if {(one.gpu, one.why) for one in lost} != before:
            self._on_change(lost)
