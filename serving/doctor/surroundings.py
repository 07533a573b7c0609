"""What vLLM reaches for while it runs, looked for where its process would look. Reads files; changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from serving.doctor.facts import VOCABULARY, CacheDirectory, Place, Surroundings
from serving.hardware.disk import mount_of, read_mounts

_MOST_VOCABULARY_BYTES: Final = 64 * 1024**2
_CACHES: Final = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE")
"""Variables that say where compiled kernels are kept."""
_CUDA_HOME: Final = "/usr/local/cuda"
"""Where vLLM and FlashInfer suppose CUDA's tools, where nothing names another place."""


def read_surroundings(environment: Mapping[str, str], include: str | None, root: Path = Path("/")) -> Surroundings:
    """What a process with this environment finds.

    `include` is where C headers of its Python belong. `root` stands in for `/`.
    """
    path = environment.get("PATH", "")
    cuda = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    base = environment.get("TIKTOKEN_ENCODINGS_BASE")
    cubins = environment.get("FLASHINFER_CUBIN_DIR")
    is_used = environment.get("VLLM_HAS_FLASHINFER_CUBIN", "0") not in ("", "0")
    cc = environment.get("CC")
    return Surroundings(
        program_path=path,
        user=os.getuid(),
        encodings=base,
        encoding_sha256=None if base is None else _digest(_under(root, base) / VOCABULARY),
        cubin_dir=cubins if cubins and is_used and _holds_files(_under(root, cubins)) else None,
        nvcc=_program("nvcc", f"{cuda}/bin" if cuda else f"{path}:{_CUDA_HOME}/bin", root),
        ninja=_program("ninja", path, root),
        compiler=_program(cc, path, root) if cc else _program("gcc", path, root) or _program("clang", path, root),
        cc=cc,
        has_headers=None if include is None else (_under(root, include) / "Python.h").is_file(),
        caches=tuple(_caches((environment[name] for name in _CACHES if environment.get(name)), root)),
    )


def _under(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _program(name: str, path: str, root: Path) -> str | None:
    """Where a program is found, as shutil.which would without a root."""
    places = [name] if "/" in name else [f"{directory}/{name}" for directory in path.split(":") if directory]
    found = (place for place in places if os.access(_under(root, place), os.X_OK) and _under(root, place).is_file())
    return next(found, None)


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_VOCABULARY_BYTES + 1)
    except OSError:
        return None
    return hashlib.sha256(content).hexdigest()


def _holds_files(directory: Path) -> bool:
    return next((path for path in directory.rglob("*.cubin") if path.is_file()), None) is not None


def _caches(paths: Iterable[str], root: Path) -> Iterable[CacheDirectory]:
    mounts = read_mounts(root)
    for path in dict.fromkeys(map(Path, paths)):
        mount = mount_of(_under(root, str(path)).resolve() if root == Path("/") else path, mounts)
        above = [*reversed(path.parents), path]
        places = [place for place in (_place(step, root) for step in above) if place is not None]
        yield CacheDirectory(path, tuple(places), None if mount is None else "noexec" in mount.options)


def _place(path: Path, root: Path) -> Place | None:
    try:
        facts = _under(root, str(path)).stat()
    except OSError:
        return None
    return Place(path, facts.st_uid, stat.S_IMODE(facts.st_mode))
