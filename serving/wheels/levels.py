"""The levels of x86-64: what a compiler may take for granted when it is told x86-64-v2, -v3 or -v4.

From the psABI's table of micro-architecture levels (gitlab.com/x86-psABIs/x86-64-ABI), in the names that the kernel
gives its flags (asm/cpufeatures.h): `pni` is SSE3, `abm` has LZCNT, `cx16` is CMPXCHG16B, and `xsave` stands for
OSXSAVE, which the kernel does not list. There is no such table for ARM.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from serving.errors import NoFitError

LEVELS: Final[dict[int, tuple[str, ...]]] = {
    1: (),
    2: ("cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"),
    3: ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    4: ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
"""What each level adds to the one below."""
NUMPY_LEVEL: Final = 2
"""What NumPy's own wheels ask for, and so everything that is served here (its message on an older processor:
"built with baseline optimizations: (X86_V2)"; where SSSE3 is missing too it ends with SIGILL before that)."""


def flags_of(level: int) -> tuple[str, ...]:
    """All flags of a level, those of the lower ones first."""
    return tuple(flag for each, added in LEVELS.items() if each <= level for flag in added)


def lacking(needed: Iterable[str], flags: Collection[str]) -> tuple[str, ...]:
    """Those of the needed flags that are not among a processor's, in the order of need."""
    return tuple(flag for flag in needed if flag not in flags)


def level_of(flags: Collection[str]) -> int:
    """The highest level that an x86-64 processor with these flags has whole: 1 to 4."""
    return max(level for level in LEVELS if not lacking(flags_of(level), flags))


def require_level(level: int, architecture: str | None, flags: Collection[str], what: str) -> None:
    """Raise NoFitError where a processor is below a level of x86-64, naming the flags that it lacks.

    `architecture` and `flags` are `Cpu.architecture` and `Cpu.isa`, and what could not be read does not fit; `what` is
    what asks for it, such as "wheel `numpy-2.4.6-…`".
    """
    if architecture != "x86_64":
        found = "could not be read" if architecture is None else f"is {architecture}"
        raise NoFitError(
            f"{what} is for x86-64, and this host's processor {found}",
            hint="take what was built for this host's kind of processor",
        )
    missing = lacking(flags_of(level), flags)
    if missing:
        told = ", ".join(f"`{flag}`" for flag in missing)
        raise NoFitError(
            f"{what} needs x86-64-v{level}; this host's processor is x86-64-v{level_of(flags)}: it lacks {told}",
            hint=f"take what was built for x86-64-v{level_of(flags)}",
        )
