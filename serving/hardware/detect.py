"""Looking at the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.hardware.cgroup import read_limits
from serving.hardware.cpu import read_cpu
from serving.hardware.disk import read_disk
from serving.hardware.gpu import read_gpus
from serving.hardware.host import read_host
from serving.hardware.machine import Machine
from serving.hardware.memory import read_memory


def detect(
    root: Path = Path("/"),
    *,
    disk: Path | None = None,
    nvml: Any = None,
    environment: Mapping[str, str] | None = None,
) -> Machine:
    """The machine as this process sees it, under its affinity and its control group's limits.

    `root` stands in for `/` in tests, `nvml` for the pynvml module, `environment` for this process's own; `disk` is a
    directory whose file system is looked at (the root's by default). Never raises for what is missing: it is None, and
    what is broken is a warning.
    """
    limits = read_limits(root)
    report = read_gpus(root, nvml, os.environ if environment is None else environment)
    cpu = read_cpu(root, limits.cpus, limits.cpuset)
    gpu_nodes = {gpu.memory_numa_node for gpu in report.gpus} - {None}
    # A node of processors is never given up, whatever a driver says of it.
    elsewhere = [node for node in cpu.nodes if node.id in gpu_nodes and not node.cpus]
    memory = read_memory(root, limits, elsewhere)
    warnings = (*report.faults, *report.notes)
    if memory.usable_bytes is None:
        warnings = (
            *warnings,
            f"free memory cannot be read ({root / 'proc/meminfo'}): plans are made without its limit",
        )
    host = read_host(root)
    own_disk = read_disk(disk or root, root, is_virtual=bool(host.virtual))
    return Machine(
        gpus=report.gpus,
        cpu=cpu,
        memory=memory,
        disk=own_disk,
        warnings=warnings,
        host=host,
        gpu_faults=report.faults,
    )
