"""Wheels of llama-cpp-python: which processors run them, by what their libraries say of themselves.

A portable one has llama.cpp's part for the CPU several times over, `libggml-cpu-haswell.so` and its like; llama.cpp
asks the processor when it starts and keeps the best (decision 0035).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadFile, FileMissing, NoFitError
from serving.wheels.levels import LEVELS, flags_of, lacking, require_level
from serving.wheels.switches import instruction_sets

_FILE: Final = re.compile(r"llama_cpp_python-([^-]+)-[^-]+-[^-]+-([A-Za-z0-9_.]+)\.whl")
_GLIBC: Final = re.compile(r"manylinux_(\d+)_(\d+)_x86_64")
_LIBRARY: Final = re.compile(r"llama_cpp/lib/lib([a-z0-9_-]+)\.so(?:\.\d+)*")
_VENDORED: Final = re.compile(r"llama_cpp_python\.libs/([^/]+)")
_CPU: Final = re.compile(r"ggml-cpu(?:-(\w+))?")
_MOST_BYTES: Final = 1 << 26
"""Of one library, unpacked: a CPU build's largest has some MiB."""
HINT: Final = "build one for all x86-64 processors: make portable"


@dataclass(frozen=True, slots=True)
class Variant:
    """llama.cpp's part for the CPU, compiled for one kind."""

    name: str
    """As in the file's name, such as `haswell`; empty where there is but one."""
    needs: tuple[str, ...]
    """Flags, as the kernel names them, that a processor must have."""


@dataclass(frozen=True, slots=True)
class LlamaCppWheel:
    """What a wheel of llama-cpp-python has in it."""

    file: str
    version: str
    glibc: tuple[int, int] | None
    """The oldest glibc that its platform tag names; None for a tag that promises nothing (`linux_x86_64`)."""
    needs: tuple[str, ...]
    """Flags that the libraries outside the variants need: none in a portable wheel."""
    variants: tuple[Variant, ...]
    vendored: tuple[str, ...]
    """Libraries of the builder's system that travel in the wheel, such as libgomp."""

    @property
    def level(self) -> int | None:
        """The lowest level of x86-64 that always suffices; None where even v4 does not."""
        return next((level for level in LEVELS if self.fitting(flags_of(level))), None)

    def fitting(self, flags: Collection[str]) -> tuple[Variant, ...]:
        """The variants that run on a processor with these flags, of which llama.cpp takes the best."""
        if lacking(self.needs, flags):
            return ()
        return tuple(variant for variant in self.variants if not lacking(variant.needs, flags))


def read_wheel(path: Path) -> LlamaCppWheel:
    """What the wheel says of itself: each library by its compiler's record, none of it loaded.

    Raises FileMissing, and BadFile where it is no wheel of llama-cpp-python for x86-64 Linux, has a library without a
    record, or one that was compiled for the processor of its builder.
    """
    named = _FILE.fullmatch(path.name)
    if named is None or "x86_64" not in named[2]:
        raise BadFile(f"`{path.name}` is not called as a wheel of llama-cpp-python for x86-64 is", hint=HINT)
    try:
        with zipfile.ZipFile(path) as wheel:
            libraries = {
                found[1]: _library(wheel, member)
                for member in wheel.infolist()
                if (found := _LIBRARY.fullmatch(member.filename))
            }
            vendored = [found[1] for name in wheel.namelist() if (found := _VENDORED.fullmatch(name))]
    except FileNotFoundError:
        raise FileMissing(f"there is no wheel `{path}`", hint="make portable") from None
    except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as failure:
        raise BadFile(f"`{path.name}` cannot be read as a wheel: {failure}") from None
    variants = [Variant(cpu[1] or "", flags) for name, flags in libraries.items() if (cpu := _CPU.fullmatch(name))]
    if not variants or "llama" not in libraries:
        raise BadFile(f"`{path.name}` lacks llama.cpp's libraries: it has {', '.join(libraries) or 'none'}", hint=HINT)
    glibc = [(int(major), int(minor)) for major, minor in _GLIBC.findall(named[2])]
    return LlamaCppWheel(
        file=path.name,
        version=named[1],
        glibc=min(glibc, default=None),
        needs=tuple(sorted({flag for name, flags in libraries.items() if not _CPU.fullmatch(name) for flag in flags})),
        variants=tuple(sorted(variants, key=lambda variant: (len(variant.needs), variant.name))),
        vendored=tuple(sorted(vendored)),
    )


def _library(wheel: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, ...]:
    if member.file_size > _MOST_BYTES:
        raise BadFile(f"`{member.filename}` is of {member.file_size} bytes, which no library of llama.cpp is")
    return instruction_sets(wheel.read(member), member.filename)


def require_processor(wheel: LlamaCppWheel, architecture: str | None, flags: Collection[str]) -> None:
    """Raise NoFitError where the wheel does not run on a processor, naming the flags that it lacks.

    `architecture` and `flags` are `Cpu.architecture` and `Cpu.isa`; what could not be read does not fit.
    """
    what = f"wheel `{wheel.file}`"
    require_level(1, architecture, flags, what)
    if not wheel.fitting(flags):
        missing = min((lacking((*wheel.needs, *variant.needs), flags) for variant in wheel.variants), key=len)
        told = ", ".join(f"`{flag}`" for flag in dict.fromkeys(missing))
        raise NoFitError(f"{what} needs {told}, which this processor lacks", hint=HINT)
