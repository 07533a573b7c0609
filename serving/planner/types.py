"""What goes into a plan and what comes out of it. All frozen, all JSON round-trips."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter

KvDtype = Literal["f16", "bf16", "f32", "q8_0"]
KvLayout = Literal["unified", "streams"]
LoadMode = Literal["mmap", "none"]
WaitPolicy = Literal["active", "brief", "passive"]
"""How a compute thread waits for the others: spin for milliseconds, spin for microseconds and then sleep, or sleep."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user insisted on; None leaves it to the planner."""

    backend: Literal["llamacpp"] | None = None
    variant: str | None = None
    context: int | None = None
    """Tokens per sequence."""
    concurrency: int | None = None
    """Sequences computed at the same time."""
    kv_layout: KvLayout | None = None
    kv_tokens: int | None = None
    """Cells of a unified cache in all; set, it rules out streams."""
    kv_dtype: KvDtype | None = None
    threads: int | None = None
    wait_policy: WaitPolicy | None = None
    load_mode: LoadMode | None = None
    swa_full: bool = False
    ubatch: int = 512
    """Tokens computed in one pass, at most."""
    most_concurrency: int = 16
    """What the planner aims at where `concurrency` is None."""
    snapshot_bytes: int = 256 * 1024**2
    """Host memory set aside for shared prefixes in the streams layout."""
    headroom: float = 0.1
    """Share of the usable memory that stays free."""


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One line of the memory table."""

    name: str
    bytes: int
    kind: Literal["anonymous", "file"]
    """`file`: mapped pages that other processes share and the kernel may drop and read again."""
    formula: str
    """How the number came about, with its inputs."""
    as_used: bool = False
    """Taken bit by bit as it is used, up to this; all other lines are resident once the engine has worked."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An alternative that was looked at and not taken."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is served on a machine."""

    model: str
    engine: Literal["llamacpp"]
    variant: str
    weights: Path
    context: int
    """Tokens one sequence may hold."""
    concurrency: int
    """Sequences computed at the same time."""
    kv_layout: KvLayout
    kv_tokens: int
    """Cells of the KV cache in all."""
    kv_dtype: KvDtype
    swa_full: bool
    n_ubatch: int
    threads: int
    cores: tuple[int, ...]
    """Hardware threads that the engine is bound to."""
    wait_policy: WaitPolicy
    load_mode: LoadMode
    snapshot_bytes: int
    memory: tuple[MemoryLine, ...]
    budget_bytes: int | None
    """What the machine can give, headroom taken off; None where its memory could not be read."""
    rejected: tuple[Rejected, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Anonymous and file-backed bytes together."""
        return sum(line.bytes for line in self.memory)

    def bytes_of(self, kind: Literal["anonymous", "file"], *, as_used: bool = True) -> int:
        """Bytes of one kind: what RssAnon or RssFile of the engine come to.

        Without `as_used`, what they come to before anything that is taken bit by bit has been.
        """
        return sum(line.bytes for line in self.memory if line.kind == kind and (as_used or not line.as_used))

    def to_json(self) -> str:
        """One JSON object; `Plan.from_json` reads it back to an equal plan."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` wrote. Raises pydantic.ValidationError for anything else."""
        return TypeAdapter(cls).validate_json(text)


@dataclass(frozen=True, slots=True)
class NearestFit:
    """What would fit: the wishes to change, and what it then takes."""

    change: tuple[tuple[str, str | int | bool], ...]
    """Names of wishes (`variant`, `context`, `concurrency`, `kv_layout`, `kv_dtype`) and the values that fit."""
    total_bytes: int


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why a model cannot be served here as wished, in numbers."""

    model: str
    variant: str | None
    reason: str
    """One sentence without the model's name: `needs 21.4 GiB, 15.8 GiB available`."""
    short_bytes: int | None
    """How much memory is missing; None where memory is not what it fails on."""
    memory: tuple[MemoryLine, ...] = ()
    """The table of the smallest plan under these wishes."""
    budget_bytes: int | None = None
    nearest: tuple[NearestFit, ...] = ()
    """What would fit, best first; () where nothing does."""
    rejected: tuple[Rejected, ...] = ()

    def to_json(self) -> str:
        """One JSON object; `NoFit.from_json` reads it back."""
        return _to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote. Raises pydantic.ValidationError for anything else."""
        return TypeAdapter(cls).validate_json(text)


def _to_json(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value), default=str, ensure_ascii=False)
