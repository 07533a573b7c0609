"""Looking at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.hardware.cgroup import read_limits
from serving.hardware.cpu import read_cpu
from serving.hardware.gpu import read_gpus
from serving.hardware.machine import Machine
from serving.hardware.memory import read_disk, read_memory


def detect(root: Path = Path("/"), *, disk: Path | None = None, nvml: Any = None) -> Machine:
    """The machine as this process sees it, under its affinity and its control group's limits.

    `root` stands in for `/` in tests, `nvml` for the pynvml module; `disk` is a directory whose file system is looked
    at (the root's by default). Never raises for what is missing: it is None, and what is broken is a warning.
    """
    limits = read_limits(root)
    gpus, warnings = read_gpus(root, nvml)
    cpu = read_cpu(root, limits.cpus)
    memory = read_memory(root, limits)
    if memory.usable_bytes is None:
        warnings = (
            *warnings,
            f"free memory cannot be read ({root / 'proc/meminfo'}): plans are made without its limit",
        )
    return Machine(gpus=gpus, cpu=cpu, memory=memory, disk=read_disk(disk or root), warnings=warnings)
