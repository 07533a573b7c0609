"""What an engine is shut up in: from what the host offers and what the engine needs, what to run. Pure.

Every layer is told, with its reason where it is missing; whether that ends the start is `check_sealed`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from serving.engines.confinement import filter as refusing
from serving.engines.confinement.launch import NAMESPACES, UID
from serving.engines.confinement.walls import Confinement, Layer, LayerName
from serving.engines.spec import EngineSpec
from serving.errors import EngineFailed, NotSealed

Mode = Literal["off", "best-effort", "require"]
Kind = Literal["ro", "rw", "dev", "tmpfs", "proc", "link", "dir"]
_NAMESPACE_OF: Final[dict[str, LayerName]] = {
    "user": "users",
    "pid": "processes",
    "net": "network",
    "mount": "files",
    "ipc": "ipc",
    "uts": "hostname",
    "cgroup": "cgroup",
}
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_BWRAP_NAMESPACES: Final = ("user", "pid", "net", "ipc", "uts", "cgroup")
"""What bubblewrap is asked for; it always makes a mount namespace."""

FILES: Final = {
    "passwd": f"engine:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin\n",
    "group": f"engine:x:{UID}:\n",
    "hosts": "127.0.0.1 localhost engine\n::1 localhost engine\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
"""The files of /etc that libc reads, made up: they say nothing of the host."""
FILES_DIRECTORY: Final = "etc"
"""In the engine's state directory, beside the one that it sees."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of an engine's root."""

    kind: Kind
    target: Path
    source: str = ""
    """What is bound, as a path; of a link what it says."""


@dataclass(frozen=True, slots=True)
class Means:
    """What this host offers, each thing tried (`means.look`); a text is the reason why it cannot be had."""

    python: Path
    """The interpreter that runs our launcher."""
    package: Path
    """The directory of this package."""
    bwrap: Path | None = None
    """bubblewrap, where it is installed and works."""
    bwrap_lacks: str = "it is not installed"
    namespaces: frozenset[str] = frozenset()
    """What our own launcher can make, together."""
    lacks: tuple[tuple[str, str], ...] = ()
    """Why it cannot make the others."""
    proc_lacks: str | None = None
    """Why no /proc of an engine's own processes can be mounted; None where it can."""
    machine: refusing.Machine | None = None
    """Whose calls can be filtered here; None where none can."""
    calls_lack: str = ""
    swap: str | None = None
    """Why what is in memory may come to stand on a disk; None where it cannot."""
    base: Path = Path("/tmp")  # noqa: S108 - only mounted upon, in a namespace of its own
    """A directory that there is, for a moment's mount."""
    system: tuple[Mount, ...] = ()
    """Programs, libraries, and what detection reads, as they are found on this host."""
    proc: tuple[Mount, ...] = ()
    """What is laid over a /proc made anew, so that it cannot be written to."""
    gpu: tuple[Mount, ...] = ()
    """Device files and descriptions of GPUs."""
    pythons: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    """By interpreter, the directories that it imports from."""


@dataclass(frozen=True, slots=True)
class Box:
    """What the launcher is told (`launch`)."""

    namespaces: tuple[str, ...] = ()
    base: Path = Path("/tmp")  # noqa: S108 - as in Means
    mounts: tuple[Mount, ...] = ()
    weights: tuple[tuple[int, Path], ...] = ()
    filter: bytes = b""
    environment: tuple[str, ...] = ()
    """Names of the variables that the engine gets."""
    directory: Path = Path("/")

    def to_json(self) -> str:
        """As it stands on the launcher's command line."""
        return json.dumps(
            {
                "namespaces": self.namespaces,
                "base": str(self.base),
                "mounts": [[each.kind, each.source, str(each.target)] for each in self.mounts],
                "weights": [[fd, str(path)] for fd, path in self.weights],
                "filter": self.filter.hex(),
                "environment": self.environment,
                "directory": str(self.directory),
            },
            separators=(",", ":"),
        )


def plan_confinement(spec: EngineSpec, means: Means, held: Mapping[int, Path] = MappingProxyType({})) -> Confinement:
    """As much as this host offers around that engine. `held` says where the files of its descriptors lie now."""
    own = own_directory(spec)
    namespaces = frozenset(NAMESPACES) if means.bwrap is not None else means.namespaces
    mounts = tuple(_mounts(spec, means, held, namespaces))
    code = refusing.program(means.machine, has_ip=spec.has_ip) if means.machine is not None else b""
    last = Box(
        weights=spec.weights,
        filter=code,
        environment=tuple(name for name, _ in spec.env),
        directory=own,
    )
    layers = tuple(_layers(means, namespaces))
    python = (str(means.python), "-I", "-S", str(means.package / "engines" / "confinement" / "launch.py"))
    if means.bwrap is not None:
        argv = (*_bwrap(means.bwrap, mounts, own), "--", *python, "finish", last.to_json(), *spec.argv)
        return Confinement(argv, layers, "bubblewrap")
    ordered = tuple(name for name in NAMESPACES if name in namespaces)
    box = replace(last, namespaces=ordered, base=means.base, mounts=mounts if "mount" in namespaces else ())
    argv = (*python, "enter", box.to_json(), *spec.argv)
    return Confinement(argv, layers, "our own launcher" if ordered else "nothing")


def own_directory(spec: EngineSpec) -> Path:
    """The one directory of the runtime directory's that the engine sees. Raises EngineFailed where it is no child."""
    if spec.socket is None or not spec.argv:
        raise EngineFailed(f"the engine of `{spec.model}` is no child process")
    return spec.socket.parent


def check_sealed(confinement: Confinement, mode: Mode) -> None:
    """Raises NotSealed where every layer is required and some are missing, naming each."""
    missing = [f"{layer.name} ({layer.missing})" for layer in confinement.layers if layer.missing is not None]
    if mode == "require" and missing:
        hint = "mend what it names (docs/sealed.md), or start with `--sealed best-effort`"
        raise NotSealed(f"engines cannot be sealed here; missing: {'; '.join(missing)}", hint=hint)


def _layers(means: Means, namespaces: frozenset[str]) -> Iterator[Layer]:
    yield Layer("environment")
    lacks = dict(means.lacks)
    for namespace, name in _NAMESPACE_OF.items():
        missing = None if namespace in namespaces else lacks.get(namespace, "it was not tried")
        if namespace == "pid" and missing is None and means.bwrap is None and means.proc_lacks is not None:
            missing = f"others can be listed, though neither read nor signalled: {means.proc_lacks}"
        if missing is not None and namespace == "user":
            missing += f"; bubblewrap: {means.bwrap_lacks}"
        yield Layer(name, missing)
    yield Layer("rights")
    yield Layer("calls", None if means.machine is not None else means.calls_lack)
    yield Layer("peers")
    yield Layer("cores")
    yield Layer("swap", means.swap)


def _mounts(spec: EngineSpec, means: Means, held: Mapping[int, Path], namespaces: frozenset[str]) -> Iterator[Mount]:
    """The engine's root, in the order in which it is put together: what lies in another directory after that."""
    own = own_directory(spec)
    yield from means.system
    if "pid" in namespaces and (means.bwrap is not None or means.proc_lacks is None):
        yield Mount("proc", Path("/proc"))
        yield from means.proc
        # bubblewrap's first process is under no filter, and has the engine's user: its memory is not to be written to
        yield Mount("tmpfs", Path("/proc/1"))
    else:
        yield Mount("ro", Path("/proc"), "/proc")
    yield Mount("dir", Path("/dev"))
    for name in _DEVICES:
        yield Mount("dev", Path("/dev", name), f"/dev/{name}")
    yield Mount("link", Path("/dev/fd"), "/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        yield Mount("link", Path("/dev", name), f"/proc/self/fd/{number}")
    yield Mount("tmpfs", Path("/dev/shm"))  # noqa: S108 - private
    yield Mount("tmpfs", Path("/tmp"))  # noqa: S108 - private
    for name in FILES:
        yield Mount("ro", Path("/etc", name), str(own.parent / FILES_DIRECTORY / name))
    if spec.has_gpu:
        yield from means.gpu
    theirs = dict(means.pythons)
    reads = {
        means.package,
        *theirs.get(str(means.python), ()),
        *theirs.get(spec.argv[0], ()),
        *spec.reads,
    }
    binds = [Mount("ro", path, str(path)) for path in reads if not _is_under(path, means.system)]
    # A descriptor's mount is another namespace's and cannot be bound: its path is, and then seen to be the same file.
    binds += [Mount("ro", path, str(held.get(fd, path))) for fd, path in spec.weights]
    binds += [Mount("rw", path, str(path)) for path in (own, *spec.writes)]
    yield from sorted(binds, key=lambda each: (len(each.target.parts), str(each.target), each.kind))


def _is_under(path: Path, system: tuple[Mount, ...]) -> bool:
    """Whether the system's own directories show it already."""
    return any(each.kind == "ro" and each.target in (path, *path.parents) for each in system)


def _bwrap(program: Path, mounts: tuple[Mount, ...], own: Path) -> Iterator[str]:
    yield str(program)
    yield from (f"--unshare-{name}" for name in _BWRAP_NAMESPACES)
    yield from ("--uid", str(UID), "--gid", str(UID), "--hostname", "engine", "--die-with-parent")
    yield from ("--cap-drop", "ALL")
    flags = {"ro": "--ro-bind", "rw": "--bind", "dev": "--dev-bind", "link": "--symlink"}
    for each in mounts:
        if each.kind in flags:
            yield from (flags[each.kind], each.source, str(each.target))
        else:
            yield from (f"--{each.kind}", str(each.target))
    yield from ("--remount-ro", "/", "--chdir", str(own))
