"""Wheels of llama-cpp-python: made of nothing but what a reader looks at, and the portable one where it was built."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest

from tests.support.harness import SOURCE

GENERIC = "GNU C++17 12.2.0 -mtune=generic -march=x86-64 -O3 -fPIC"


def library(*lines: str, machine: int = 62) -> bytes:
    """An ELF file whose one section beside the names' is the compiler's record of these command lines."""
    names = b"\0.shstrtab\0.GCC.command.line\0"
    record = b"".join(line.encode() + b"\0" for line in lines)
    sections = [(0, 0, 0), (1, 64, len(names)), *([(11, 64 + len(names), len(record))] if lines else [])]
    table = b"".join(struct.pack("<I20xQQ24x", *section) for section in sections)
    at = 64 + len(names) + len(record)
    head = struct.pack("<6s12xH20xQ10xHHH", b"\x7fELF\x02\x01", machine, at, 64, len(sections), 1)
    return head + names + record + table


def wheel(directory: Path, libraries: dict[str, bytes], tag: str = "manylinux_2_34_x86_64") -> Path:
    """A wheel with these libraries, by their names between `lib` and `.so`."""
    path = directory / f"llama_cpp_python-0.3.36-py3-none-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in libraries.items():
            archive.writestr(f"llama_cpp/lib/lib{name}.so", data)
        archive.writestr("llama_cpp_python.libs/libgomp-f9a9ad78.so.1.0.0", b"\x7fELF")
    return path


def portable_wheel() -> Path:
    """The wheel that `make portable` built, in SERVING_PORTABLE_WHEELS or dist/portable; skips where there is none."""
    directory = Path(os.environ.get("SERVING_PORTABLE_WHEELS") or SOURCE / "dist" / "portable")
    found = sorted(directory.glob("llama_cpp_python-*.whl"))
    if not found:
        pytest.skip("no portable wheel (make portable, or SERVING_PORTABLE_WHEELS=directory)")
    return found[-1]
