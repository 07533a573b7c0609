"""Limits that control groups set over this process: version 2, version 1, and what containers make of either."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.hardware.files import parse_list, read_int, read_table, read_text

UNLIMITED_FROM = 1 << 60
"""Version 1 writes "no limit" as a number near 2^63, rounded to pages."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limits on the way from this process's group to the root; None where nothing limits."""

    memory_bytes: int | None = None
    memory_remaining_bytes: int | None = None
    cpus: float | None = None
    cpuset: tuple[int, ...] = ()
    """Ids of the hardware threads that the group is confined to; () where it is not."""


def read_limits(root: Path) -> Limits:
    """The limits found under `root` (`/` but in tests)."""
    groups = _groups(root)
    mount = root / "sys/fs/cgroup"
    memory: list[tuple[int, int | None]] = []
    cpus: list[float] = []
    cpuset: tuple[int, ...] = ()
    for group in _upwards(_unified(mount), groups.get("")):
        memory += _memory_v2(group)
        cpus += _cpus_v2(group)
        cpuset = cpuset or _ids(group / "cpuset.cpus.effective")
    for group in _upwards(mount / "memory", groups.get("memory")):
        memory += _memory_v1(group)
    cpu = next((mount / name for name in ("cpu", "cpu,cpuacct") if (mount / name).is_dir()), None)
    for group in _upwards(cpu, groups.get("cpu")):
        cpus += _cpus_v1(group)
    for group in _upwards(mount / "cpuset", groups.get("cpuset")):
        cpuset = cpuset or _ids(group / "cpuset.effective_cpus") or _ids(group / "cpuset.cpus")
    remaining = [limit - used for limit, used in memory if used is not None]
    return Limits(
        memory_bytes=min((limit for limit, _ in memory), default=None),
        memory_remaining_bytes=max(0, min(remaining)) if remaining else None,
        cpus=min(cpus, default=None),
        cpuset=cpuset,  # the nearest group's: the effective list already heeds those above
    )


def _unified(mount: Path) -> Path | None:
    """Where version 2 is mounted, alone or beside version 1."""
    places = (mount, mount / "unified")
    return next((place for place in places if (place / "cgroup.controllers").exists()), None)


def _groups(root: Path) -> dict[str, str]:
    """Controller → path of this process's group; the unified hierarchy under the empty name."""
    found: dict[str, str] = {}
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _upwards(mount: Path | None, group: str | None) -> list[Path]:
    """The group's directory and all above it up to the mount; [] where there is no such hierarchy or group.

    In a container the path may be the host's and not exist here; then the mount itself is the group.
    """
    if mount is None or group is None:
        return []
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


def _ids(path: Path) -> tuple[int, ...]:
    return parse_list(read_text(path) or "")


def _cpus_v2(group: Path) -> list[float]:
    quota, _, period = (read_text(group / "cpu.max") or "").partition(" ")
    return [int(quota) / int(period)] if quota.isdigit() and period.strip().isdigit() and int(period) else []


def _cpus_v1(group: Path) -> list[float]:
    quota = read_int(group / "cpu.cfs_quota_us")
    period = read_int(group / "cpu.cfs_period_us")
    return [quota / period] if quota is not None and quota > 0 and period else []
