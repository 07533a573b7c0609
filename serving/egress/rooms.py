"""Where the egress process keeps what it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.audit.log import Places
from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class Rooms:
    """Where the process keeps what it has."""

    directory: Path
    socket: Path
    credentials: Path

    @property
    def taint(self) -> Path:
        """Fingerprints of sensitive texts."""
        return self.directory / "taint"

    @property
    def taint_key(self) -> Path:
        """What they are made with."""
        return self.directory / "taint.key"

    @property
    def switch(self) -> Path:
        """The kill switch: nothing leaves while it is there."""
        return self.directory / "closed"

    @property
    def drill(self) -> Path:
        """An outage that is played."""
        return self.directory / "drill"

    @property
    def audit(self) -> Places:
        """Its audit log, and the keys of that."""
        keys = self.directory / "audit-keys"
        return Places(self.directory / "audit", keys / "signing.key", keys / "fingerprint.key")


def rooms_of(settings: Settings, environment: Mapping[str, str]) -> Rooms:
    """Absolute paths; nothing is made here."""
    home = Path(environment.get("HOME") or Path.home())
    state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state") / "perimeter" / "egress"
    directory = (settings.egress.directory or state).expanduser().absolute()
    return Rooms(
        directory,
        (settings.egress.socket or directory / "egress.sock").expanduser().absolute(),
        (settings.egress.credentials or directory / "credentials").expanduser().absolute(),
    )
