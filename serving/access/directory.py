"""Where keys and usage are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def access_directory(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """Where keys and usage are, an absolute path; not made here."""
    if configured is None:
        home = environment.get("HOME") or Path.home()
        configured = Path(environment.get("XDG_STATE_HOME") or Path(home) / ".local" / "state") / "perimeter" / "access"
    return configured.expanduser().absolute()
