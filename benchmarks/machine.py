"""What every result carries, and the interval that every ratio carries."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def described() -> dict[str, object]:
    """Date, machine and versions: without them a figure means nothing."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if "model name" in line:
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()},
        "versions": {
            "python": platform.python_version(),
            "llama-cpp-python": importlib.metadata.version("llama-cpp-python"),
        },
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Distribution-free 95% interval of the median: the order statistics that a fair coin leaves outside in 5%."""
    ordered, n = sorted(values), len(values)
    outside, k = 0.0, 0
    while k < n // 2:
        outside += math.comb(n, k) / 2**n
        if 2 * outside > 0.05:
            break
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]


def quantile(values: Sequence[float], q: float) -> float:
    """The value that a share `q` of them is not above."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
