"""Main memory and disk, under whatever limits the control group sets."""

from __future__ import annotations

import os
from pathlib import Path

from serving.hardware.cgroup import Limits
from serving.hardware.files import read_text
from serving.hardware.machine import Disk, Memory


def read_memory(root: Path, limits: Limits) -> Memory:
    """Main memory as the files under `root` show it."""
    table: dict[str, int] = {}
    for line in (read_text(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit() and unit == "kB":
            table[name] = int(number) * 1024
    total = table.get("MemTotal")
    # A limit above what the machine has limits nothing.
    binding = limits.memory_bytes is not None and (total is None or limits.memory_bytes < total)
    return Memory(
        total_bytes=total,
        available_bytes=table.get("MemAvailable"),
        limit_bytes=limits.memory_bytes if binding else None,
        limit_remaining_bytes=limits.memory_remaining_bytes if binding else None,
    )


def read_disk(path: Path) -> Disk:
    """The file system under `path`, or under the nearest directory above it that exists."""
    for directory in (path, *path.parents):
        try:
            stat = os.statvfs(directory)
        except OSError:
            continue
        return Disk(path, stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize)
    return Disk(path)
