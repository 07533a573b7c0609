"""What this host offers for shutting engines in: each thing is tried, in a process of its own, and not guessed.

What is tried is what will be done: the walls around an engine that does nothing and ends well.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from serving.engines import runtime
from serving.engines.confinement import filter as refusing
from serving.engines.confinement.launch import NAMESPACES
from serving.engines.confinement.layers import FILES, FILES_DIRECTORY, Means, Mount, plan_confinement
from serving.engines.spec import EngineSpec

_TRY_S: Final = 20.0
_PACKAGE: Final = Path(__file__).resolve().parents[2]
_BWRAP_AT: Final = "/usr/local/bin:/usr/bin:/bin"
_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_ETC: Final = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/openssl.cnf")
"""Of /etc what the loader, compilers and OpenSSL need. Everything else there is made up, or not there."""
_SYS: Final = ("devices/system", "kernel/mm/transparent_hugepage", "kernel/mm/hugepages")
_SYS_GPU: Final = ("bus", "class", "devices", "module/nvidia", "module/amdgpu", "kernel/mm")
_NOT_OF_PROCESSES: Final = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
"""Of /proc what is the host's and not a process's. Where the host's user is root most of it could be written to without
any capability, and a core pattern is a program that the host runs."""
_WEIGHTS: Final = (".safetensors", ".gguf")
_DEV_GPU: Final = ("nvidia*", "dri", "kfd")
_ASK_PYTHON: Final = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]))"


def look(scratch: Path, executables: Collection[str] = (), *, use_bwrap: bool = True) -> Means:
    """Ask this host. `scratch` is a directory of ours; `executables` are the engines' own, where they are not ours.

    Without `use_bwrap` it is as if bubblewrap were not installed.
    Takes some tenths of a second at most where everything is there, and a few seconds where nothing is.
    """
    means = Means(
        python=Path(sys.executable),
        package=_PACKAGE,
        swap=swap_lacks(),
        base=_base(scratch),
        system=tuple(_system()),
        proc=tuple(_shown(Path("/proc"), _NOT_OF_PROCESSES)),
        gpu=tuple(_gpu()),
        pythons=tuple((name, import_paths(name)) for name in {sys.executable, *executables}),
    )
    bwrap = shutil.which("bwrap", path=_BWRAP_AT) if use_bwrap else None
    # All at once is what most hosts offer; what is in the way is looked for only where something is.
    hopeful = _wrapped(replace(means, machine=refusing.machine_of(os.uname().machine)), bwrap, scratch)
    everything = replace(hopeful, namespaces=frozenset(NAMESPACES))
    if hopeful.bwrap is not None or attempt(everything, scratch) is None:
        return hopeful if hopeful.bwrap is not None else everything
    found = _with_calls(replace(hopeful, machine=None), scratch)
    if found.machine is None:
        found = _wrapped(found, bwrap, scratch)
    return found if found.bwrap is not None else _with_namespaces(found, scratch)


def _wrapped(means: Means, bwrap: str | None, scratch: Path) -> Means:
    """With bubblewrap, where it is there and works."""
    if bwrap is None:
        return means
    wrapped = replace(means, bwrap=Path(bwrap), bwrap_lacks="")
    failure = attempt(wrapped, scratch)
    return wrapped if failure is None else replace(means, bwrap_lacks=failure)


def attempt(means: Means, scratch: Path) -> str | None:
    """Start nothing behind the walls that these means make; None where that works, else the last word of it."""
    socket = runtime.socket_in(scratch, "attempt")
    write_files(runtime.state_directory(socket))
    spec = EngineSpec("attempt", "llamacpp", argv=("",), socket=socket)
    argv = plan_confinement(spec, means).argv[:-1]
    try:
        done = subprocess.run(  # noqa: S603 - our own launcher
            argv, env={}, capture_output=True, text=True, errors="replace", timeout=_TRY_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return _said(done.stderr) or f"it ended with {done.returncode}"


def write_files(directory: Path) -> None:
    """Make the directories that an engine's root is put together from, in the state directory of one."""
    (directory / runtime.OWN).mkdir(mode=0o700, parents=True, exist_ok=True)
    made_up = directory / FILES_DIRECTORY
    made_up.mkdir(mode=0o700, exist_ok=True)
    for name, text in FILES.items():
        (made_up / name).write_text(text, encoding="ascii")


def _with_calls(means: Means, scratch: Path) -> Means:
    """Whether system calls can be filtered."""
    machine = refusing.machine_of(os.uname().machine)
    if machine is None:
        return replace(means, calls_lack=f"there is no filter for `{os.uname().machine}`")
    tried = replace(means, machine=machine)
    failure = attempt(tried, scratch)
    return tried if failure is None else replace(means, calls_lack=failure)


def _with_namespaces(means: Means, scratch: Path) -> Means:
    """Which namespaces our own launcher can make: all, or as many as work together."""
    everything = replace(means, namespaces=frozenset(NAMESPACES))
    failure = attempt(everything, scratch)
    if failure is None:
        return everything
    # In most containers parts of /proc are covered, and the kernel then lets nobody mount one that shows them.
    without = replace(means, proc_lacks=failure)
    everything = replace(without, namespaces=frozenset(NAMESPACES))
    if attempt(everything, scratch) is None:
        return everything
    # Where the user namespace is refused, root may still make the others.
    working: frozenset[str] = frozenset()
    lacks: list[tuple[str, str]] = []
    for name in NAMESPACES:
        failure = attempt(replace(without, namespaces=working | {name}), scratch)
        if failure is None:
            working |= {name}
        else:
            lacks.append((name, failure))
    found = replace(means, namespaces=working, lacks=tuple(lacks))
    failure = attempt(found, scratch)
    return found if failure is None else replace(found, proc_lacks=failure)


def _said(stderr: str) -> str:
    """The last word of a launcher, without what it says of itself."""
    line = (stderr.strip().splitlines() or [""])[-1]
    try:
        event = json.loads(line)
        return str(event["message"]).removeprefix("the engine is not sealed: ")
    except (ValueError, KeyError, TypeError):
        return line.removeprefix("bwrap: ")


@functools.cache
def import_paths(executable: str) -> tuple[Path, ...]:
    """Where an interpreter imports from, links followed and not; () for a program that is no Python."""
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter of an engine
            [executable, "-I", "-c", _ASK_PYTHON],
            env={"HOME": "/nonexistent"},  # without one, Python asks the name services for it
            capture_output=True,
            text=True,
            timeout=_TRY_S,
            check=True,
        )
        said = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    found = [Path(each) for each in said if each.startswith("/")]
    hops = [Path(executable)]
    while hops[-1].is_symlink():
        hops.append(hops[-1].parent / hops[-1].readlink())
    found += [hop.parent.parent for hop in hops if hop.parent.name == "bin"]
    real = {spelt for each in found for spelt in (each, each.resolve())}
    # an editable install of ours would show a whole checkout; the package itself is shown anyway
    kept = {each for each in real if each != Path("/") and each.exists() and not _is_checkout(each)}
    return tuple(sorted(each for each in kept if not any(parent in kept for parent in each.parents)))


def _is_checkout(path: Path) -> bool:
    return (path / "serving" / "engines").is_dir() and not path.name.endswith("-packages")


def targets_of(paths: Collection[Path]) -> tuple[Path, ...]:
    """Those that are there, with what symbolic links in or at them lead to: a model directory may be made of links.

    A link in a directory is somebody else's word. It is followed to a file of weights, or into the blobs of the Hugging
    Face cache that the directory is a snapshot of, and nowhere else: it could show whatever this user may read. What is
    not there or not followed is not shown: the engine says itself what it misses, and in its own words.
    """
    paths = [path for path in paths if path.exists()]
    found = dict.fromkeys(paths)
    for path in paths:
        if path.is_symlink():
            found[path.resolve()] = None
        for each in path.iterdir() if path.is_dir() else ():
            target = each.resolve()
            if each.is_symlink() and target.is_file() and _is_models(each, target, path):
                found[target] = None
    return tuple(found)


def _is_models(link: Path, target: Path, directory: Path) -> bool:
    """Whether a link in a model's directory leads to a file of a model."""
    if target.parent == directory.resolve().parent.parent / "blobs":
        return True
    return link.suffix == target.suffix and link.suffix in _WEIGHTS


def swap_lacks(root: Path = Path("/")) -> str | None:
    """Why memory of this process may be written to a disk as swap; None where it cannot."""
    lines = (root / "proc/swaps").read_text(encoding="ascii").splitlines()[1:] if _is_there(root / "proc/swaps") else []
    disks = [line.split()[0] for line in lines if not line.startswith("/dev/zram")]
    if not disks:
        return None
    groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    group = next((line[3:].strip("/") for line in groups if line.startswith("0::")), "")
    for at in (Path(group), *Path(group).parents):
        limit = root / "sys/fs/cgroup" / at / "memory.swap.max"
        if _is_there(limit) and limit.read_text(encoding="ascii").strip() == "0":
            return None
    return f"`{disks[0]}` is in use, and this service may use it: MemorySwapMax=0 in its unit, or swapoff"


def _is_there(path: Path) -> bool:
    return os.access(path, os.R_OK)


def _base(scratch: Path) -> Path:
    return next((path for path in (Path("/tmp"), Path("/run")) if path.is_dir()), scratch)  # noqa: S108


def _system() -> Iterator[Mount]:
    for name in _PROGRAMS:
        path = Path(name)
        if path.is_symlink():
            yield Mount("link", path, str(path.readlink()))
        elif path.is_dir():
            yield Mount("ro", path, name)
    yield from _shown(Path("/etc"), _ETC)
    yield from _shown(Path("/sys"), _SYS)
    group = Path("/sys/fs/cgroup") / _own_group()
    if (group / "cgroup.controllers").exists():
        yield Mount("ro", Path("/sys/fs/cgroup"), str(group))


def _own_group() -> str:
    """This process's control group (version 2), which is the root of what an engine sees of them."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")


def _gpu() -> Iterator[Mount]:
    for pattern in _DEV_GPU:
        for path in sorted(Path("/dev").glob(pattern)):
            if path.is_dir() or stat.S_ISCHR(path.stat().st_mode):
                yield Mount("dev", path, str(path))
    yield from _shown(Path("/sys"), _SYS_GPU)


def _shown(directory: Path, names: Collection[str]) -> Iterator[Mount]:
    for path in (directory / name for name in names):
        if path.exists():
            yield Mount("ro", path, str(path))
