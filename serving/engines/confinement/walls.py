"""The walls around an engine: which there are, and how it is started behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LayerName = Literal[
    "environment", "users", "processes", "network", "files", "ipc", "hostname", "cgroup", "rights", "calls", "peers",
    "cores", "swap",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the walls."""

    name: LayerName
    missing: str | None = None
    """Why it is not there; None where it is."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """How an engine is started behind walls, and which they are."""

    argv: tuple[str, ...]
    """In place of the engine's own."""
    layers: tuple[Layer, ...]
    by: Literal["bubblewrap", "our own launcher", "nothing"]
    """What makes the namespaces."""
