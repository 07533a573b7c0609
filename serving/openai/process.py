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


def die(error: ServingError) -> NoReturn:
    """Say why in one line that the supervisor reads, and end the process at once, from whichever thread."""
    event = {"event": "fatal", "code": error.code, "message": error.message, "hint": error.hint}
    sys.stderr.write(json.dumps(event) + "\n")
    sys.stderr.flush()
    os._exit(error.exit_status)
