"""The device file that CUDA needs beside those of the GPUs."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

_MAKE_S: Final = 30.0
_PATH: Final = "/usr/bin:/usr/local/bin:/bin:/usr/sbin:/sbin"


def make_memory_node(root: Path = Path("/"), path: str = _PATH) -> bool:
    """Have the driver's own program make /dev/nvidia-uvm where it is missing; whether it had to be asked.

    CUDA asks it when it is first used. It raises its rights by its file's mode, which a process that has promised not
    to (`serving.rings`), or is in a user namespace, cannot have it do: so it is asked before.
    """
    if not (root / "proc/driver/nvidia").exists() or (root / "dev/nvidia-uvm").exists():
        return False
    program = shutil.which("nvidia-modprobe", path=path)
    if program is None:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([program, "-u", "-c=0"], capture_output=True, timeout=_MAKE_S, check=False)  # noqa: S603 - the driver's
    return True
