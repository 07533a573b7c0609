"""A bundle's wheels into an environment of their own: from the directory they lie in, and from nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from serving.errors import BadSettings, NoFitError, StartError, UsageError

_UNDONE: Final = ".perimeter-undone"
"""Is in an environment until it is whole: what has it may be made anew."""
_LAST_WORDS: Final = 2000
_ENVIRONMENT_BYTES: Final = 64 << 20
"""Of an environment with pip and nothing else."""


def check_into(into: Path) -> None:
    """See that an environment can be made at `into`. Raises UsageError."""
    if os.path.lexists(into) and not (into / _UNDONE).exists():
        raise UsageError(f"`{into}` is there already", hint="wheels go into a fresh environment: name a new directory")


def install_wheels(wheels: Path, into: Path) -> None:
    """Make the environment `into` with the wheels in a directory, as its `requirements.txt` names them.

    Raises UsageError, NoFitError, StartError with pip's words.
    """
    check_into(into)
    _require_space(wheels, into)
    shutil.rmtree(into, ignore_errors=True)
    try:
        into.mkdir(parents=True)
        (into / _UNDONE).touch()
    except OSError as error:
        raise BadSettings(f"`{into}` cannot be made: {error.strerror}", hint="name another directory") from None
    _run([sys.executable, "-I", "-m", "venv", str(into)], "make the environment", "apt install python3-venv")
    pip = [str(into / "bin" / "python"), "-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "install", "--quiet", "--no-cache-dir", "--no-index", "--find-links", str(wheels)]
    command += ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    command += ["--requirement", str(wheels / "requirements.txt")]
    _run(command, "install the wheels", "`serve bundle inspect` tells what they are for")
    (into / _UNDONE).unlink()


def _require_space(wheels: Path, into: Path) -> None:
    needed = _ENVIRONMENT_BYTES
    for path in wheels.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            needed += sum(info.file_size for info in archive.infolist())
    there = next(each for each in into.absolute().parents if each.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        message = f"the environment `{into}` needs {needed:,} bytes, and {free:,} are free"
        raise NoFitError(message, hint="make room, or name a directory on another disk")


def _run(command: list[str], what: str, hint: str) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    ended = subprocess.run(  # noqa: S603 - this Python and its pip
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    if ended.returncode:
        words = (ended.stderr.strip() or ended.stdout.strip())[-_LAST_WORDS:]
        raise StartError(f"could not {what}: {words}", hint=hint)
