"""The file system under a directory: room, type, and the kind of disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from serving.hardware.files import read_int, read_text
from serving.hardware.machine import Disk


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    point: Path
    device: str
    """`major:minor`; major 0 is no block device."""
    filesystem: str
    options: tuple[str, ...] = ()
    """As it is mounted there: `rw`, `nosuid`, `noexec`, …"""


def read_disk(path: Path, root: Path = Path("/"), *, is_virtual: bool = False) -> Disk:
    """The file system under `path`, or under the nearest directory above it that exists.

    `root` is where `/proc` and `/sys` are looked for. In a virtual machine a disk that says it turns is not believed:
    hypervisors' do, unless somebody set it right.
    """
    for directory in (path, *path.parents):
        try:
            stat = os.statvfs(directory)
        except OSError:
            continue
        mount = mount_of(directory.resolve(), read_mounts(root))
        turns = _is_rotational(root, mount.device) if mount else None
        return Disk(
            path,
            stat.f_blocks * stat.f_frsize,
            stat.f_bavail * stat.f_frsize,
            mount.filesystem if mount else None,
            None if turns and is_virtual else turns,
        )
    return Disk(path)


def read_mounts(root: Path) -> tuple[Mount, ...]:
    """What this process has mounted, in the order in which it was."""
    mounts = []
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if dash and len(fields) >= 6 and kinds:
            mounts.append(Mount(Path(_unescape(fields[4])), fields[2], kinds[0], tuple(fields[5].split(","))))
    return tuple(mounts)


def mount_of(path: Path, mounts: tuple[Mount, ...]) -> Mount | None:
    """The mount that an absolute path lies on: the deepest above it, the last of those mounted over one another."""
    above = [mount for mount in mounts if path.is_relative_to(mount.point)]
    deepest = max((len(mount.point.parts) for mount in above), default=0)
    return next((mount for mount in reversed(above) if len(mount.point.parts) == deepest), None)


def _unescape(text: str) -> str:
    """Blanks and backslashes stand in octal there."""
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, sign)
    return text


def _is_rotational(root: Path, device: str) -> bool | None:
    if device.startswith("0:"):
        return None
    block = root / "sys/dev/block" / device
    for queue in (block / "queue", block / ".." / "queue"):  # a partition's is its disk's
        value = read_int(queue / "rotational")
        if value is not None:
            return bool(value)
    return None
