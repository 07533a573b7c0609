"""What of this host decides whether a bundle's wheels run on it."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.bundle.manifest import Wheels
from serving.bundle.wheels import platforms_of
from serving.errors import NoFitError, UsageError
from serving.wheels import levels


@dataclass(frozen=True, slots=True)
class Host:
    """As much of a host as wheels depend on."""

    machine: str
    """As uname(2) calls its processor's kind: `x86_64`."""
    python: str
    """Such as `3.11`."""
    glibc: int | None
    """Of version 2.N; None without glibc."""
    flags: frozenset[str]
    """Of the processor, as the kernel names them."""


def this_host() -> Host:
    """The one that this runs on."""
    name, version = platform.libc_ver()
    minor = version.removeprefix("2.") if name == "glibc" else ""
    return Host(
        platform.machine(),
        f"{sys.version_info.major}.{sys.version_info.minor}",
        int(minor) if minor.isdecimal() else None,
        _flags(Path("/proc/cpuinfo")),
    )


def level_of(flags: frozenset[str]) -> tuple[int, str]:
    """The level of x86-64 that a processor with these flags has, 1 to 4, and the flag that it lacks for the next."""
    level = levels.level_of(flags)
    return level, next(iter(levels.lacking(levels.LEVELS.get(level + 1, ()), flags)), "")


def check_host(wheels: Wheels, host: Host) -> None:
    """See that the wheels are for a host like this one. Raises NoFitError, UsageError."""
    platforms = platforms_of(wheels.platform)
    machine = platforms[-1].removeprefix("linux_")
    if machine != host.machine:
        message = f"the bundle's wheels are for {machine}, and this is {host.machine}"
        raise NoFitError(message, hint="ask for a bundle for this platform, or take its models alone: --models-only")
    if machine == "x86_64" and any(wheel.project == "numpy" for wheel in wheels.files):
        levels.require_level(levels.NUMPY_LEVEL, machine, host.flags, "what the bundle installs")
    if wheels.platform.startswith("manylinux_2_"):
        needed = int(wheels.platform.split("_")[2])
        if host.glibc is None or host.glibc < needed:
            has = "no glibc" if host.glibc is None else f"glibc 2.{host.glibc}"
            message = f"the bundle's wheels may need glibc 2.{needed}, and this host has {has}"
            raise NoFitError(message, hint="ask for a bundle for an older platform, or take its models: --models-only")
    if wheels.python != host.python:
        message = f"the bundle's wheels are for Python {wheels.python}, and this is {host.python}"
        raise UsageError(message, hint=f"run it with python{wheels.python}, or take the models alone: --models-only")


def _flags(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
