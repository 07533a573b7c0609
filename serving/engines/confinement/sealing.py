"""All engines of a start put behind their walls, and what a person is told of it."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from serving.engines.confinement.layers import Means, Mode, check_sealed, plan_confinement
from serving.engines.confinement.means import look, targets_of
from serving.engines.confinement.walls import Layer
from serving.engines.runtime import private_directory
from serving.engines.spec import EngineSpec

_PR_SET_DUMPABLE: Final = 4


@dataclass(frozen=True, slots=True)
class Sealed:
    """The engines of a start, and the walls that are around each of them."""

    mode: Mode
    specs: tuple[EngineSpec, ...]
    by: str = ""
    """What makes the namespaces."""
    layers: tuple[Layer, ...] = ()
    """The same for every engine; () where there are none, or none of ours."""

    @property
    def active(self) -> tuple[str, ...]:
        """The layers that are there."""
        return tuple(layer.name for layer in self.layers if layer.missing is None)

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """Those that are not, with the reason."""
        return tuple((layer.name, layer.missing) for layer in self.layers if layer.missing is not None)

    def lines(self) -> Iterator[str]:
        """For the terminal: one line, and one for each layer that is missing."""
        if self.mode == "off":
            yield "off: engines see what this user sees (docs/sealed.md)"
        elif self.layers:
            yield f"{self.mode}, by {self.by}: {', '.join(self.active)}"
            yield from (f"not {name}: {why}" for name, why in self.missing)


def seal(specs: Sequence[EngineSpec], mode: Mode, runtime: Path) -> Sealed:
    """The engines as they are to be started. `runtime` is the runtime directory, made if it is not there.

    Raises NotSealed where every layer is required and one cannot be had; BadSettings for a directory that is not ours.
    """
    children = [spec for spec in specs if spec.origin is None]
    if mode == "off" or not children:
        return Sealed(mode, tuple(specs))
    private_directory(runtime)
    leave_no_core()
    with tempfile.TemporaryDirectory(dir=runtime, prefix="engine-") as scratch:
        means = look(Path(scratch), {spec.argv[0] for spec in children})
    sealed = seal_with(specs, mode, means)
    if {"users", "processes"} & {name for name, _ in sealed.missing}:
        # To an engine of the same user nothing else hides this process's environment and memory.
        hide_memory()
    return sealed


def hide_memory() -> None:
    """Let nobody of this user's look into this process: its environment, its memory, its descriptors."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_no_core() -> None:
    """Prompts are in this process's memory, too: no core file of it, and nothing in one that a program is given."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # a kernel without core dumps has no such file
        Path("/proc/self/coredump_filter").write_text("0", encoding="ascii")


def seal_with(specs: Sequence[EngineSpec], mode: Mode, means: Means) -> Sealed:
    """As `seal`, with what is known of the host."""
    done: list[EngineSpec] = []
    sealed = Sealed(mode, ())
    for spec in specs:
        if spec.origin is not None:
            done.append(spec)
            continue
        held = {fd: Path(f"/proc/self/fd/{fd}").readlink() for fd, _ in spec.weights}
        confinement = plan_confinement(replace(spec, reads=targets_of(spec.reads)), means, held)
        check_sealed(confinement, mode)
        done.append(replace(spec, confinement=confinement))
        sealed = Sealed(mode, (), confinement.by, confinement.layers)
    return replace(sealed, specs=tuple(done))
