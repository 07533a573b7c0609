"""What destinations are shown to be let in: one file each, which only this process's user can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from serving.errors import BadSettings, FileMissing, Untrusted

_MOST_BYTES: Final = 16 << 10


class Credentials:
    """A directory of files called as the destinations are. Read with each request: a new one counts at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"Credentials({str(self._directory)!r})"

    def of(self, destination: str) -> str:
        """A destination's secret. Raises FileMissing, Untrusted, BadSettings."""
        path = self._directory / destination
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            hint = "write it to that file, mode 0600, as the user that the process runs as"
            raise FileMissing(f"there is no credential `{path}`", hint=hint) from None
        except OSError as error:
            raise BadSettings(f"the credential `{path}` cannot be read: {error.strerror}") from None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o077:
                message = f"others may read the credential `{path}` (mode {stat.S_IMODE(facts.st_mode):o})"
                raise Untrusted(message, hint=f"chmod 600 {path}; who could read it may have it: replace it")
            return os.read(descriptor, _MOST_BYTES).decode("ascii", "replace").strip()
        finally:
            os.close(descriptor)
