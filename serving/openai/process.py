"""What every engine's process tells of itself: what it holds, and why it ends (docs/engine-protocol.md)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from serving.errors import ServingError


def resident_bytes() -> dict[str, int]:
    """What this process holds now: anonymous and file-backed resident memory in bytes."""
    memory = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in {"RssAnon", "RssFile"}:
            memory[name] = int(value.split()[0]) * 1024
    return memory


def available_bytes() -> int | None:
    """What may still be taken without swapping, under this process's own control group (version 2); None: not known."""
    root = Path("/sys/fs/cgroup")
    found = []
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            found.append(int(value.split()[0]) * 1024)
    group = next((line[3:].strip("/") for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::")), "")
    for directory in (root / group, root):  # inside a container the path may be the host's, and the root the group
        limit, used = _lines(directory / "memory.max"), _lines(directory / "memory.current")
        if limit and limit[0].isdigit() and used:
            cache = sum(
                int(line.split()[1])
                for line in _lines(directory / "memory.stat")
                if line.split()[0] in {"inactive_file", "active_file"}
            )
            found.append(max(0, int(limit[0]) - int(used[0]) + cache))
    return min(found, default=None)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def die(error: ServingError) -> NoReturn:
    """Say why in one line that the supervisor reads, and end the process at once, from whichever thread."""
    event = {"event": "fatal", "code": error.code, "message": error.message, "hint": error.hint}
    sys.stderr.write(json.dumps(event) + "\n")
    sys.stderr.flush()
    os._exit(error.exit_status)
