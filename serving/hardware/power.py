"""What the machine draws now: GPUs by NVML, processors by RAPL's counters. What cannot be read is None."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serving.hardware.gpu import load_nvml

_RAPL: Final = "sys/class/powercap"


@dataclass(frozen=True, slots=True)
class Reading:
    """All meters at one moment. None for what none of them tells."""

    power_w: float | None = None
    """GPUs and processors together, as far as there are meters."""
    utilisation: float | None = None
    """Mean over the GPUs of the share of time in which a kernel ran, 0 to 1."""
    memory_bytes: int | None = None
    """GPU memory in use, of all GPUs together."""
    clock_mhz: float | None = None
    """Mean clock of the GPUs' streaming multiprocessors."""


class Meters:
    """The meters of this machine, open until closed."""

    def __init__(self, root: Path = Path("/"), nvml: Any = None) -> None:
        self._nvml = load_nvml() if nvml is None else nvml
        self._gpus = self._open_gpus()
        self._rapl = _Rapl(root)
        self.names: tuple[str, ...] = (
            *(["nvml"] if self._gpus else []),
            *(["rapl"] if self._rapl.is_there else []),
        )

    def _open_gpus(self) -> list[Any]:
        if self._nvml is None:
            return []
        try:
            self._nvml.nvmlInit()
            return [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError:
            return []

    def read(self) -> Reading:
        """Now. A processor's power is the mean since the last reading, and so not in the first one."""
        nvml = self._nvml
        watts = self._each(lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000)
        processors = self._rapl.watts()
        if processors is not None:
            watts.append(processors)
        busy = self._each(lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
        memory = self._each(lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        clocks = self._each(lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM))
        return Reading(
            sum(watts) if watts else None,
            sum(busy) / len(busy) if busy else None,
            round(sum(memory)) if memory else None,
            sum(clocks) / len(clocks) if clocks else None,
        )

    def _each(self, ask: Callable[[Any], float]) -> list[float]:
        """The answers of the GPUs that have one."""
        found = []
        for gpu in self._gpus:
            with contextlib.suppress(self._nvml.NVMLError):
                found.append(ask(gpu))
        return found

    def close(self) -> None:
        """Give the driver back."""
        if self._gpus:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


class _Rapl:
    """Energy counters of the processors' packages (powercap); readable for root alone on most systems."""

    def __init__(self, root: Path) -> None:
        self._files = []
        for package in sorted((root / _RAPL).glob("intel-rapl:*")):
            if package.name.count(":") == 1:  # those with two are parts of one that is counted already
                with contextlib.suppress(OSError, ValueError):
                    int((package / "energy_uj").read_text())
                    self._files.append((package / "energy_uj", int((package / "max_energy_range_uj").read_text())))
        self._last: tuple[float, list[int]] | None = None

    @property
    def is_there(self) -> bool:
        """Whether a counter can be read."""
        return bool(self._files)

    def watts(self) -> float | None:
        """Mean since the last call; None at the first, and where a counter no longer answers."""
        if not self._files:
            return None
        try:
            now = time.perf_counter(), [int(file.read_text()) for file, _ in self._files]
        except (OSError, ValueError):
            return None
        last, self._last = self._last, now
        if last is None or now[0] <= last[0]:
            return None
        micro = sum((new - old) % most for new, old, (_, most) in zip(now[1], last[1], self._files, strict=True))
        return micro / 1e6 / (now[0] - last[0])
