"""Which instructions a library's compiler was allowed, by the library's own record.

GCC and Clang write it where `-frecord-gcc-switches` is given, as `make portable` does: one string for each distinct
command line among the objects that were linked. `-march=native` is in it as the processor that it stood for.
"""

from __future__ import annotations

import struct
from typing import Final

from serving.errors import BadFile
from serving.wheels.levels import flags_of

_SECTION: Final = b".GCC.command.line"
_X86_64: Final = 62
"""EM_X86_64 (the System V ABI's list of machines)."""
_ELF64: Final = b"\x7fELF\x02\x01"
"""A file of 64 bits, the low byte first."""
_HEADER: Final = struct.Struct("<I20xQQ24x")
"""Of a section: where its name begins among the names, where it begins in the file, its size."""

_FLAGS: Final = {
    "avx512vbmi": "avx512vbmi",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avxvnni": "avx_vnni",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    "sse4.2": "sse4_2",
    **{flag: flag for flag in ("avx", "avx2", "fma", "f16c", "bmi2")},
    **{flag: flag for flag in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")},
}
"""The compiler's names of instruction sets (`-mavx512vnni`), and the kernel's."""
_LEVELS: Final = {"x86-64": 1, "x86-64-v2": 2, "x86-64-v3": 3, "x86-64-v4": 4}
_HARMLESS: Final = ("tune=", "no-", "64")
"""Switches that allow no instruction."""


def instruction_sets(library: bytes, name: str) -> tuple[str, ...]:
    """The kernel's flags that a processor needs for all that this library's compiler was allowed, sorted.

    `library` is an ELF file, `name` what it is called in errors. Raises BadFile where it is not one for x86-64, has
    no record, or was compiled for one processor.
    """
    switches = {word for line in recorded(library, name) for word in line.split() if word.startswith("-m")}
    flags: set[str] = set()
    for switch in sorted(switches):
        what = switch[2:]
        if what.startswith("arch="):
            level = _LEVELS.get(what[5:])
            if level is None:
                raise BadFile(
                    f"`{name}` was compiled for one processor, `{what[5:]}`, and may end with SIGILL on another",
                    hint="build a wheel for all of them: make portable",
                )
            flags.update(flags_of(level))
        elif what in _FLAGS:
            flags.add(_FLAGS[what])
        elif not what.startswith(_HARMLESS):
            raise BadFile(f"`{name}` was compiled with `{switch}`, of which nobody knows here what it takes")
    return tuple(sorted(flags))


def recorded(library: bytes, name: str) -> tuple[str, ...]:
    """The command lines that a library was compiled by. Raises BadFile where it is no such library or has none."""
    try:
        lines = _record(library)
    except (struct.error, ValueError, OverflowError) as failure:
        raise BadFile(f"`{name}` is not a whole library for x86-64: {failure}") from None
    if not lines:
        raise BadFile(
            f"`{name}` does not say what it was compiled for",
            hint="build the wheel by `make portable`, which has the compiler write it down",
        )
    return tuple(line.decode("utf-8", "replace") for line in lines.split(b"\0") if line)


def _record(library: bytes) -> bytes:
    """The section's bytes, none where it is not there. The fields are the System V ABI's, chapter 4."""
    if library[:6] != _ELF64:
        raise ValueError("it does not begin as a 64-bit ELF file does")
    (machine,) = struct.unpack_from("<H", library, 18)
    if machine != _X86_64:
        raise ValueError(f"it is for machine {machine}")
    (table,) = struct.unpack_from("<Q", library, 40)
    size, count, names_at = struct.unpack_from("<HHH", library, 58)
    headers = [_HEADER.unpack_from(library, table + number * size) for number in range(count)]
    if names_at >= count:
        raise ValueError("its sections have no names")
    names = _bytes(library, *headers[names_at])
    for name, *place in headers:
        if names.startswith(_SECTION + b"\0", name):
            return _bytes(library, name, *place)
    return b""


def _bytes(library: bytes, _name: int, offset: int, size: int) -> bytes:
    if offset + size > len(library):
        raise ValueError("a section lies outside the file")
    return library[offset : offset + size]
