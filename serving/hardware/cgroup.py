"""Limits that control groups set over this process: version 2, version 1, and what containers make of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.hardware.files import read_int, read_table, read_text

UNLIMITED_FROM = 1 << 60
"""Version 1 writes "no limit" as a number near 2^63, rounded to pages."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limits on the way from this process's group to the root; None where nothing limits."""

    memory_bytes: int | None = None
    memory_remaining_bytes: int | None = None
    cpus: float | None = None


def read_limits(root: Path) -> Limits:
    """The limits found under `root` (`/` but in tests)."""
    groups = _groups(root)
    mount = root / "sys/fs/cgroup"
    if (mount / "cgroup.controllers").exists():
        unified = mount
    elif (mount / "unified/cgroup.controllers").exists():
        unified = mount / "unified"
    else:
        unified = None
    memory: list[tuple[int, int | None]] = []
    cpus: list[float] = []
    if unified is not None and "" in groups:
        for group in _upwards(unified, groups[""]):
            memory += _memory_v2(group)
            cpus += _cpus_v2(group)
    if "memory" in groups:
        for group in _upwards(mount / "memory", groups["memory"]):
            memory += _memory_v1(group)
    if "cpu" in groups:
        directory = next((mount / name for name in ("cpu", "cpu,cpuacct") if (mount / name).is_dir()), mount / "cpu")
        for group in _upwards(directory, groups["cpu"]):
            cpus += _cpus_v1(group)
    remaining = [limit - used for limit, used in memory if used is not None]
    return Limits(
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_remaining_bytes=max(0, min(remaining)) if remaining else None,
        cpus=min(cpus, default=None),
    )


def _groups(root: Path) -> dict[str, str]:
    """Controller → path of this process's group; the unified hierarchy under the empty name."""
    found: dict[str, str] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _upwards(mount: Path, group: str) -> list[Path]:
    """The group's directory and all above it up to the mount.

    In a container the path may be the host's and not exist here; then the mount itself is the group.
    """
    parts = [part for part in group.split("/") if part not in ("", ".", "..")]
    directories = [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [directory for directory in directories if directory.is_dir()]


def _memory_v2(group: Path) -> list[tuple[int, int | None]]:
    limits = [read_int(group / name) for name in ("memory.max", "memory.high")]
    limit = min((number for number in limits if number is not None), default=None)
    if limit is None:
        return []
    used = read_int(group / "memory.current")
    stat = read_table(group / "memory.stat")
    return [(limit, _less_cache(used, stat.get("inactive_file", 0) + stat.get("active_file", 0)))]


def _memory_v1(group: Path) -> list[tuple[int, int | None]]:
    limit = read_int(group / "memory.limit_in_bytes")
    if limit is None or limit >= UNLIMITED_FROM:
        return []
    used = read_int(group / "memory.usage_in_bytes")
    stat = read_table(group / "memory.stat")
    return [(limit, _less_cache(used, stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)))]


def _less_cache(used: int | None, cache: int) -> int | None:
    return None if used is None else max(0, used - cache)


def _cpus_v2(group: Path) -> list[float]:
    quota, _, period = (read_text(group / "cpu.max") or "").partition(" ")
    return [int(quota) / int(period)] if quota.isdigit() and period.strip().isdigit() and int(period) else []


def _cpus_v1(group: Path) -> list[float]:
    quota = read_int(group / "cpu.cfs_quota_us")
    period = read_int(group / "cpu.cfs_period_us")
    return [quota / period] if quota is not None and quota > 0 and period else []
