"""A Python with vLLM made from carried wheels, and what nvidia-smi says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_INSTALL_TIMEOUT_S = 3600
_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


class CannotInstall(Exception):
    """The wheels do not make an environment."""


def environment_from(wheels: Path, directory: Path, builder: str = sys.executable) -> str:
    """The Python of a new environment in `directory` with vLLM from `wheels` alone. Raises CannotInstall.

    Everything that lies there is installed, so that the kernels of FlashInfer come along, which nothing depends on.
    No index is asked.
    """
    found = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    if not any(Path(wheel).name.startswith("vllm") for wheel in found):
        raise CannotInstall(f"no wheel of vLLM among the {len(found)} in the directory that --wheels names")
    python = str(directory / "bin/python")
    pip = [builder, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    for what, argv in {
        "venv": [builder, "-m", "venv", "--without-pip", str(directory)],
        "pip install": [*pip, "--find-links", str(wheels), *found],
    }.items():
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-5:])
            raise CannotInstall(f"`{what}`: {said}")
    return python


def ask_nvidia_smi() -> list[tuple[str, int]] | None:
    """Name and MiB of each GPU; None where it is not there or does not answer.

    It sees all of the host's: where this process is shown some of them only, the two cannot be compared.
    """
    if shutil.which(_SMI[0]) is None or os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return None
    done = subprocess.run(_SMI, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return None
    return gpus_of(done.stdout)


def gpus_of(printed: str) -> list[tuple[str, int]] | None:
    """What it printed, as name and MiB; None where it is not that."""
    rows = [line.rpartition(",") for line in printed.splitlines() if line.strip()]
    try:
        return [(name.strip(), int(size)) for name, _, size in rows]
    except ValueError:
        return None
