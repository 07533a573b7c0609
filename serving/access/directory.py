"""Where keys and usage are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from serving.errors import BadSettings


def access_directory(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """Where keys and usage are, an absolute path; not made here."""
    if configured is None:
        home = environment.get("HOME") or Path.home()
        configured = Path(environment.get("XDG_STATE_HOME") or Path(home) / ".local" / "state") / "perimeter" / "access"
    return configured.expanduser().absolute()


def make_private(directory: Path, setting: str = "access.directory") -> None:
    """Make the directory, which `setting` names, or see that it is this user's alone. Raises BadSettings."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        message = f"the directory `{directory}` cannot be made: {error.strerror}"
        raise BadSettings(message, hint=f"set {setting} to one that this user may write to") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        message = f"the directory `{directory}` is not this user's alone (mode {stat.S_IMODE(facts.st_mode):o})"
        raise BadSettings(message, hint=f"chmod 700 {directory}, as the user that the process runs as")
