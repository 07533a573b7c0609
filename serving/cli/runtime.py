"""Where engines' sockets and state are, and what can be made again, unless the settings say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from serving.engines.runtime import private_directory


def runtime_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The runtime directory, made if need be, mode 0700 and ours. Raises BadSettings."""
    path = configured or _default(environment)
    private_directory(path)
    return path


def cache_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The directory for files that can be made again; not made here."""
    if configured is not None:
        return configured
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "perimeter"


def _default(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / "perimeter"
    return Path(environment.get("TMPDIR") or "/tmp") / f"perimeter-{os.getuid()}"  # noqa: S108 -- checked to be ours
