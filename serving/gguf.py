"""A strict reader of GGUF headers: what a weight file is, checked against its size before anything trusts it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count, length and offset is taken as
hostile: it is compared with the bytes that are left before anything is read or allocated on its word, and each tensor
must lie where ggml expects it, inside the file. Large arrays (vocabularies) are walked, not kept.

Whatever the bytes, reading takes under 2 s and 512 MiB (tests/properties/test_hostile_files.py): what costs per byte is
bounded by `MAX_HEADER`, what costs per element by a bound on their sum over the file, not only in each place. The
bounds are some times what the largest published models have.
"""

from __future__ import annotations

import mmap
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.errors import BadFile, FileMissing

Scalar = int | float | bool | str

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_HEADER: Final = 1 << 26
"""Bytes before the tensors' data; a vocabulary of 262,144 tokens and 514,906 merges takes under 20 MB."""
KEEP_ARRAY_UP_TO: Final = 1024
"""Arrays of at most this many elements are kept as tuples; of longer ones only type, length and place."""
MAX_KEPT: Final = 1 << 17
"""Elements of all kept arrays together; published files have some thousand, a few for each layer."""
MAX_ARRAY: Final = 1 << 24
"""Longest array of numbers accepted, elements. They are stepped over in one go."""
MAX_STRINGS: Final = 5 << 18
"""Strings in all arrays together: each must be stepped over. The largest vocabularies have 0.8 million with merges."""
MAX_STRING: Final = 1 << 24
MAX_KEY: Final = (1 << 16) - 1
"""Bytes of a metadata key, as the format says."""
MAX_TENSORS: Final = 1 << 15
"""llama.cpp has 512 layers at most, and no architecture has 64 tensors in a layer: experts are one tensor."""
MAX_METADATA: Final = 1 << 12
MAX_NAME: Final = 64
"""ggml's GGML_MAX_NAME: longer tensor names are refused by llama.cpp."""
MIN_ALIGNMENT: Final = 32
"""ggml's TENSOR_ALIGNMENT: llama.cpp ends the process on mapped tensors that do not begin on a multiple of it."""

_SCALARS: Final[dict[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<B"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_BOOL: Final = 7
_U8_TYPE: Final = 0
_I8_TYPE: Final = 1
_U32_TYPE: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_SPLIT: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_ARCHITECTURE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ALIGNMENT: Final = "general.alignment"
_SHOWN_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class TensorType:
    """A ggml number type: `block` elements are stored in `block_bytes` bytes."""

    name: str
    block: int
    block_bytes: int


TYPES: Final[dict[int, TensorType]] = {
    number: TensorType(name, block, size)
    for number, name, block, size in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
    )
}


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array too long to keep: its element type (GGUF's number), its length, and where in the file it begins."""

    element_type: int
    length: int
    offset: int = field(default=0, compare=False)


Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it; `offset` is from the start of the file, `size` in bytes.

    `shape` is in ggml's order: the contiguous dimension first.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """Count of numbers in the tensor."""
        total = 1
        for length in self.shape:
            total *= length
        return total


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself, verified against its size."""

    path: Path
    file_bytes: int
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def architecture(self) -> str | None:
        """`general.architecture`, such as `llama`, `qwen3` or `gemma3`."""
        return self.text("general.architecture")

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, padding not counted."""
        return sum(tensor.size for tensor in self.tensors)

    def fact(self, key: str) -> Value | None:
        """A value of the model's own architecture: `fact("block_count")` reads `llama.block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def integer(self, key: str) -> int | None:
        """An architecture fact that is a whole number, else None."""
        value = self.fact(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        """A metadata string by its full key, else None."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def length(self, key: str) -> int | None:
        """Length of a metadata array by its full key, else None."""
        value = self.metadata.get(key)
        if isinstance(value, LongArray):
            return value.length
        return len(value) if isinstance(value, tuple) else None


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises FileMissing, or BadFile saying what is wrong and where."""
    split = _SPLIT.search(path.name)
    if split and int(split[2]) > 1:
        message = f"`{path}` is part {int(split[1])} of {int(split[2])} of a split GGUF, which is not served"
        raise BadFile(message, hint=f"join it first: llama-gguf-split --merge {path.name} model.gguf")
    with _opened(path) as reader:
        return reader.header()


def read_strings(header: Header, key: str) -> list[bytes]:
    """The elements of a metadata array of strings, as they stand in the file; none where the key holds no such array.

    Raises FileMissing or BadFile where the file is no longer what it was when its header was read.
    """
    value = header.metadata.get(key)
    if isinstance(value, tuple):
        return [element.encode() for element in value if isinstance(element, str)]
    if not isinstance(value, LongArray) or value.element_type != _STRING:
        return []
    with _opened(header.path) as reader:
        return reader.strings(value, key)


def read_bytes(header: Header, key: str) -> bytes:
    """The elements of a metadata array of 8-bit numbers; empty where the key holds no such array.

    Raises FileMissing or BadFile where the file is no longer what it was when its header was read.
    """
    value = header.metadata.get(key)
    if isinstance(value, tuple):
        return bytes(int(element) & 0xFF for element in value if isinstance(element, int))
    if not isinstance(value, LongArray) or value.element_type not in (_U8_TYPE, _I8_TYPE):
        return b""
    with _opened(header.path) as reader:
        return reader.small(value, key)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # a pipe would be waited for
            raise BadFile(f"`{path}` is not a regular file", hint="give the path of a .gguf file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < len(MAGIC):
                raise _bad(path, f"it is {size} bytes long")
            # The weights are never looked at, so they are not mapped either.
            with mmap.mmap(file.fileno(), min(size, MAX_HEADER), access=mmap.ACCESS_READ) as data:
                yield _Reader(path, data, size)
    except FileNotFoundError:
        message = f"weight file `{path}` does not exist"
        raise FileMissing(message, hint="give the path of a .gguf file, or a name from `serve models list`") from None
    except IsADirectoryError:
        raise _directory(path) from None
    except OSError as failure:
        message = f"cannot read weight file `{path}`: {failure.strerror}"
        raise BadFile(message) from None


def _directory(path: Path) -> BadFile:
    """A directory where a file should be, with what to name instead."""
    inside = sorted(path.glob("*.gguf"))
    if inside:
        hint = f"give the path of a .gguf file inside it: {inside[0]}"
        return BadFile(f"`{path}` is a directory, not a GGUF file", hint=hint)
    if any(path.glob("*.safetensors")):
        message = f"`{path}` is a directory of safetensors, which vLLM serves, and llama.cpp does not"
        hint = "convert it to GGUF; or give it as `path` of a variant for vLLM in a site catalogue"
        return BadFile(message, hint=f"{hint} (docs/site-catalogue.md)")
    return BadFile(f"`{path}` is a directory without weights", hint="give the path of a .gguf file")


def _bad(path: Path, problem: str, hint: str | None = None) -> BadFile:
    return BadFile(
        f"`{path}` is not a sound GGUF file: {problem}", hint=hint or "fetch the file again and compare its checksum"
    )


def _shown(name: str) -> str:
    """A word of the file, for an error: one line, printable, cut. What the file says may be meant for the terminal."""
    text = name[: _SHOWN_CHARS + 1]
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


class _Reader:
    """A cursor over the file that never passes its end, nor that of what may be a header."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self._path = path
        self._data = data
        self._size = size
        self._end = len(data)
        self._at = 0
        self._kept = 0
        self._strings = 0

    def header(self) -> Header:
        if (magic := self._take(4, "magic")) != MAGIC:
            raise self._bad(
                f"it begins with `{_shown(magic.decode('latin-1'))}`, not `{MAGIC.decode()}`",
                hint="only GGUF weights are served by llama.cpp",
            )
        version = self._u32("version")
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            hint = "the file is big-endian; convert it" if version >> 16 else "convert it with a current llama.cpp"
            raise self._bad(f"version {version}; versions {known} are known", hint=hint)
        n_tensors = self._count("tensor count", MAX_TENSORS, smallest=33)
        n_metadata = self._count("metadata count", MAX_METADATA, smallest=13)
        metadata: dict[str, Value] = {}
        for _ in range(n_metadata):
            key = self._string("metadata key", longest=MAX_KEY)
            if not key or key in metadata:
                raise self._bad(f"metadata key `{_shown(key)}` is {'given twice' if key else 'empty'}")
            metadata[key] = self._value(key)
        self._check_family(metadata.get("general.architecture"))
        if (parts := metadata.get("split.count", 0)) not in (0, 1):
            raise self._bad(
                f"it is one part of {parts if isinstance(parts, int) else 'several'}",
                hint="join the parts first: llama-gguf-split --merge FIRST-PART model.gguf",
            )
        alignment = metadata.get(_ALIGNMENT, MIN_ALIGNMENT)
        if not isinstance(alignment, int) or not MIN_ALIGNMENT <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._bad(f"`{_ALIGNMENT}` is {alignment}, not a power of two from {MIN_ALIGNMENT} to 1048576")
        return self._tensors(version, metadata, n_tensors, alignment)

    def _check_family(self, name: Value | None) -> None:
        """The name of an architecture begins the names of its facts, and is shown to people."""
        if name is not None and not (isinstance(name, str) and _ARCHITECTURE.fullmatch(name)):
            told = f"`{_shown(name)}`" if isinstance(name, str) else "no text"
            raise self._bad(f"`general.architecture` is {told}, not a name of letters, digits and `_.-`")

    def strings(self, array: LongArray, key: str) -> list[bytes]:
        """The elements of an array of strings that `header` stepped over."""
        data, read, at = self._data, _U64.unpack_from, array.offset
        found = []
        for index in range(array.length):
            start = at + 8
            if start > self._end or (at := start + read(data, at)[0]) > self._end:
                raise self._short(f"string {index} of `{_shown(key)}`")
            found.append(data[start:at])
        return found

    def small(self, array: LongArray, key: str) -> bytes:
        """The elements of an array of 8-bit numbers that `header` stepped over."""
        if array.offset + array.length > self._end:
            raise self._short(f"array `{_shown(key)}`")
        return self._data[array.offset : array.offset + array.length]

    def _tensors(self, version: int, metadata: dict[str, Value], count: int, alignment: int) -> Header:
        found: list[Tensor] = []
        names: set[str] = set()
        expected = 0
        for _ in range(count):
            name = self._string("tensor name", longest=MAX_NAME - 1)
            if not name or name in names:
                raise self._bad(f"tensor name `{_shown(name)}` is {'given twice' if name else 'empty'}")
            names.add(name)
            shape, kind, offset = self._tensor_info(_shown(name))
            size = _tensor_bytes(shape, kind)
            if offset != expected:
                raise self._bad(
                    f"tensor `{_shown(name)}` is at offset {offset}; it must follow the one before, at {expected}"
                )
            expected = offset + -(-size // alignment) * alignment
            if expected > 1 << 62:
                raise self._bad(f"tensor `{_shown(name)}` of shape {list(shape)} is larger than any file")
            found.append(Tensor(name, shape, kind.name, offset, size))
        start = -(-self._at // alignment) * alignment
        if found and start + (end := found[-1].offset + found[-1].size) > self._size:
            message = (
                f"`{self._path}` is truncated: its header describes {start + end} bytes, the file has {self._size}"
            )
            raise BadFile(message, hint="the download or copy was cut short: fetch the file again")
        tensors = tuple(
            Tensor(tensor.name, tensor.shape, tensor.type, start + tensor.offset, tensor.size) for tensor in found
        )
        return Header(self._path, self._size, version, metadata, tensors, start)

    def _tensor_info(self, name: str) -> tuple[tuple[int, ...], TensorType, int]:
        n_dims = self._u32("tensor dimensions")
        if not 1 <= n_dims <= 4:
            raise self._bad(f"tensor `{name}` has {n_dims} dimensions; 1 to 4 are possible")
        shape = tuple(self._u64("tensor shape") for _ in range(n_dims))
        number = self._u32("tensor type")
        kind = TYPES.get(number)
        if kind is None:
            raise self._bad(f"tensor `{name}` is of unknown type {number}", hint="convert it to a type llama.cpp keeps")
        if any(not 1 <= length < 1 << 48 for length in shape):
            raise self._bad(f"tensor `{name}` has the impossible shape {list(shape)}")
        if shape[0] % kind.block:
            raise self._bad(f"tensor `{name}` has rows of {shape[0]}, not a multiple of {kind.name}'s {kind.block}")
        return shape, kind, self._u64("tensor offset")

    def _value(self, key: str) -> Value:
        told = _shown(key)
        kind = self._u32(f"type of `{told}`")
        if key == _ALIGNMENT and kind != _U32_TYPE:
            raise self._bad(f"`{told}` is of type {kind}, not an unsigned number of 32 bits")
        return self._array(told) if kind == _ARRAY else self._scalar(kind, told)

    def _scalar(self, kind: int, key: str) -> Scalar:
        if kind == _STRING:
            return self._string(f"value of `{key}`")
        form = _SCALARS.get(kind)
        if form is None:
            raise self._bad(f"metadata `{key}` is of unknown type {kind}")
        (value,) = form.unpack(self._take(form.size, f"value of `{key}`"))
        if kind == _BOOL:
            if value > 1:
                raise self._bad(f"metadata `{key}` is the boolean {value}")
            return bool(value)
        return value  # type: ignore[no-any-return]

    def _array(self, key: str) -> tuple[Scalar, ...] | LongArray:
        kind = self._u32(f"element type of `{key}`")
        form = _SCALARS.get(kind)
        if form is None and kind != _STRING:
            raise self._bad(f"metadata `{key}` is an array of type {kind}, which cannot be")
        count = self._count(f"length of `{key}`", MAX_ARRAY, smallest=form.size if form else 8)
        if form is None:
            self._strings += count
            if self._strings > MAX_STRINGS:
                raise self._bad(f"its metadata has {self._strings} strings up to `{key}`; {MAX_STRINGS} at most")
        if count <= KEEP_ARRAY_UP_TO:
            self._kept += count
            if self._kept > MAX_KEPT:
                raise self._bad(
                    f"its metadata has {self._kept} elements in short arrays up to `{key}`; {MAX_KEPT} at most"
                )
            return tuple(self._scalar(kind, key) for _ in range(count))
        array = LongArray(kind, count, self._at)
        if form:
            self._take(count * form.size, f"array `{key}`", keep=False)
        else:
            self._skip_strings(count, key)
        return array

    def _skip_strings(self, count: int, key: str) -> None:
        at, end, data, read = self._at, self._end, self._data, _U64.unpack_from
        last = end - 8
        for index in range(count):
            if at > last:
                raise self._short(f"string {index} of `{key}`")
            at += 8 + read(data, at)[0]
        if at > end:
            raise self._short(f"strings of `{key}`")
        self._at = at

    def _string(self, what: str, longest: int = MAX_STRING) -> str:
        length = self._u64(f"length of {what}")
        if length > longest:
            raise self._bad(f"{what} is {length} bytes long; {longest} at most")
        raw = self._take(length, what)
        if b"\0" in raw:  # C, and so llama.cpp, would read another text than we do
            raise self._bad(f"{what} has a NUL in it")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._bad(f"{what} is not UTF-8") from None

    def _count(self, what: str, most: int, smallest: int) -> int:
        """A count of things of at least `smallest` bytes each, which must fit into what is left of the file."""
        count = self._u64(what)
        left = self._end - self._at
        if count > most:
            raise self._bad(f"{what} is {count}; {most} at most")
        if count * smallest > left:
            place = "in the file" if self._end == self._size else f"of the {MAX_HEADER} that a header may have"
            raise self._bad(f"{what} is {count}, at least {count * smallest} bytes, and {left} are left {place}")
        return count

    def _u32(self, what: str) -> int:
        return int(_U32.unpack(self._take(4, what))[0])

    def _u64(self, what: str) -> int:
        return int(_U64.unpack(self._take(8, what))[0])

    def _take(self, length: int, what: str, *, keep: bool = True) -> bytes:
        end = self._at + length
        if end > self._end:
            raise self._short(what, length)
        start, self._at = self._at, end
        return self._data[start:end] if keep else b""

    def _short(self, what: str, length: int | None = None) -> BadFile:
        if self._end < self._size:
            return self._bad(f"its header does not end within {self._end} bytes: it is in its {what} there")
        need = f" ({self._at + length} bytes needed)" if length is not None else ""
        message = f"`{self._path}` is truncated: it ends at {self._size} bytes, within its {what}{need}"
        return BadFile(message, hint="the download or copy was cut short: fetch the file again")

    def _bad(self, problem: str, hint: str | None = None) -> BadFile:
        return _bad(self._path, problem, hint)


def _tensor_bytes(shape: tuple[int, ...], kind: TensorType) -> int:
    size = shape[0] // kind.block * kind.block_bytes
    for length in shape[1:]:
        size *= length
    return size
