"""A strict reader of safetensors headers: what the weight files of a model directory hold, checked before use.

The format: https://huggingface.co/docs/safetensors (eight bytes of length, a JSON header, the tensors' bytes). As in
`serving.gguf`, everything in it is taken as hostile: the header's length is compared with the file's before it is read,
each tensor's offsets with its shape, its type and its neighbours, and the tensors must fill the file without a hole.

Whatever the bytes, reading one file takes under 2 s and 512 MiB (tests/properties/test_hostile_files.py). The format
allows headers of 100 MB; parsed, that much JSON can take gigabytes. The bounds here are on what costs: bytes, and the
commas and brackets that a value cannot be without, counted before anything is parsed. `serving.openai.strict` is not
used for it: it finds the path of an error for a client, by a walk that takes seconds for a header of this size.
"""

from __future__ import annotations

import json
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from serving.errors import BadFile, FileMissing

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
MAX_HEADER: Final = 1 << 24
"""Bytes of one file's JSON. Published shards have under 2 MB: some hundred to some thousand tensors of 110 bytes."""
MAX_INDEX: Final = 1 << 25
"""Bytes of an index; of the largest, about 150,000 tensors in some hundred shards, it has under 16 MB."""
MAX_VALUES: Final = 1 << 19
"""Commas, and as many brackets, in one header: a tensor has five to seven of the first and three of the second, a line
of an index has one comma."""
MAX_TENSORS: Final = 1 << 16
"""Tensors of one file."""
MAX_SHARDS: Final = 1 << 10
MAX_ALL_TENSORS: Final = 1 << 18
MAX_ALL_HEADERS: Final = 1 << 26
"""Tensors, and bytes of headers, of all shards together."""
MAX_NAME: Final = 512
MAX_DIMENSIONS: Final = 8

BITS: Final[dict[str, int]] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one number, by the type's name (safetensors 0.8)."""

_LENGTH: Final = struct.Struct("<Q")
_FIELDS: Final = frozenset({"dtype", "shape", "data_offsets"})
_SHOWN_CHARS: Final = 80
_SHARD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}\.safetensors")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it; `offset` is from the start of the file, `size` in bytes.

    `shape` is in the file's order: the contiguous dimension last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself, verified against its size. Tensors are in the order of their offsets."""

    path: Path
    file_bytes: int
    metadata: dict[str, str]
    tensors: tuple[Tensor, ...]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises FileMissing, or BadFile saying what is wrong and where."""
    raw, size = _read(path, MAX_HEADER)
    return _header(path, _parse(path, raw, "header"), size, len(raw))


def read_index(directory: Path) -> tuple[Header, ...]:
    """The headers of all shards of a model directory, in the order of their names.

    The directory holds `model.safetensors`, or an index and the shards it names: by plain file names, so that nothing
    outside the directory can be meant. A shard may be a symbolic link, wherever it leads: the Hugging Face cache is
    made of links, and who can place one in the directory could have placed a file. Each tensor of the index must be in
    the shard that the index says, and nothing else may be in any shard.

    Raises FileMissing or BadFile.
    """
    index, single = directory / INDEX, directory / SINGLE
    is_whole = _is_there(single)
    if not _is_there(index):
        if not is_whole:
            message = f"`{directory}` holds neither `{SINGLE}` nor `{INDEX}`"
            raise FileMissing(message, hint="give the directory with the .safetensors files")
        return (read_header(single),)
    shards = _weight_map(index)
    if is_whole and SINGLE not in shards:
        message = (
            f"`{directory}` holds a model in one file and, in `{INDEX}`, one in shards; loaders take one or the other"
        )
        raise BadFile(message, hint=f"remove `{SINGLE}` or the index")
    headers: list[Header] = []
    tensors, left = 0, MAX_ALL_HEADERS
    for name in sorted(shards):
        path = directory / name
        raw, size = _read(path, min(MAX_HEADER, left))
        left -= len(raw)
        header = _header(path, _parse(path, raw, "header"), size, len(raw))
        tensors += len(header.tensors)
        if tensors > MAX_ALL_TENSORS:
            raise _bad(path, f"with it the shards have {tensors} tensors; {MAX_ALL_TENSORS} at most")
        _compare(index, header, shards[name])
        headers.append(header)
    return tuple(headers)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as failure:
        raise BadFile(f"cannot read `{path}`: {failure.strerror}") from None


def _compare(index: Path, header: Header, wanted: set[str]) -> None:
    """Refuse a shard that does not hold exactly what the index says: with that, no tensor is in two of them either."""
    held = {tensor.name for tensor in header.tensors}
    hint = "the shards are not of one model: fetch the directory again"
    if missing := min(wanted - held, default=""):
        message = f"`{index}` says that tensor `{_shown(missing)}` is in `{header.path.name}`, and it is not"
        raise BadFile(message, hint=hint)
    if more := min(held - wanted, default=""):
        message = f"`{header.path}` holds tensor `{_shown(more)}`, which `{index.name}` does not say of it"
        raise BadFile(message, hint=hint)


def _weight_map(index: Path) -> dict[str, set[str]]:
    """The names of the tensors in each shard, by its file name."""
    raw, _ = _read(index, MAX_INDEX, is_json=True)
    content = _parse(index, raw, "index")
    entries = content.get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise _bad(index, "it has no `weight_map`")
    shards: dict[str, set[str]] = {}
    for name, shard in entries.items():
        if not name:
            raise _bad(index, "a tensor has no name")
        if not isinstance(shard, str) or (shard not in shards and not _SHARD.fullmatch(shard)):
            told = f"`{_shown(shard)}`" if isinstance(shard, str) else "no text"
            raise _bad(
                index, f"tensor `{_shown(name)}` is in {told}, which is not the plain name of a .safetensors file"
            )
        shards.setdefault(shard, set()).add(name)
        if len(shards) > MAX_SHARDS:
            raise _bad(index, f"it names more than {MAX_SHARDS} shards")
    return shards


def _read(path: Path, most: int, *, is_json: bool = False) -> tuple[bytes, int]:
    """The JSON of a file, at most `most` bytes of it, and the file's size."""
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # a pipe would be waited for
            raise BadFile(f"`{path}` is not a regular file", hint="give the path of a .safetensors file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = size
            if not is_json:
                if size < _LENGTH.size:
                    raise _bad(path, f"it is {size} bytes long")
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                if length > size - _LENGTH.size:
                    message = (
                        f"`{path}` is truncated: its header has {length} bytes, the file {size - _LENGTH.size} more"
                    )
                    raise BadFile(message, hint="the download or copy was cut short: fetch the file again")
            if length > most:
                raise _bad(path, f"its header has {length} bytes; {most} at most")
            return file.read(length), size
    except FileNotFoundError:
        raise FileMissing(f"weight file `{path}` does not exist", hint="fetch the model again") from None
    except IsADirectoryError:
        raise BadFile(f"`{path}` is a directory, not a file", hint="give the path of the file inside it") from None
    except OSError as failure:
        raise BadFile(f"cannot read `{path}`: {failure.strerror}") from None


def _parse(path: Path, raw: bytes, what: str) -> dict[str, Any]:
    """The JSON object; no key twice, and no more of anything than the bounds allow."""
    if raw[:1] != b"{":
        begins = ascii(raw[:8].decode("latin-1"))[1:-1]
        raise _bad(
            path, f"its {what} begins with `{begins}`, not with an object", hint="only safetensors are read here"
        )
    commas, brackets = raw.count(b","), raw.count(b"{") + raw.count(b"[")
    if commas > MAX_VALUES or brackets > MAX_VALUES:
        raise _bad(path, f"its {what} has {max(commas, brackets)} values; {MAX_VALUES} at most")
    try:
        value: object = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_refuse_float
        )
    except UnicodeDecodeError:
        raise _bad(path, f"its {what} is not UTF-8") from None
    except RecursionError:
        raise _bad(path, f"its {what} nests too deep") from None
    except ValueError as problem:  # what the hooks raise too
        told = str(problem) if not isinstance(problem, json.JSONDecodeError) else f"{problem.msg} at {problem.pos}"
        raise _bad(path, f"its {what} is not JSON as it should be: {told[:200]}") from None
    assert isinstance(value, dict)  # noqa: S101 - it begins with a brace
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    built = dict(pairs)
    if len(built) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key `{_shown(key)}` comes twice")
            seen.add(key)
    return built


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is not JSON")


def _refuse_float(digits: str) -> NoReturn:
    raise ValueError(f"`{digits[:20]}` is not a whole number")


def _header(path: Path, content: dict[str, Any], size: int, length: int) -> Header:
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "its `__metadata__` is not an object of texts")
    if len(content) > MAX_TENSORS:
        raise _bad(path, f"it has {len(content)} tensors; {MAX_TENSORS} at most")
    start = _LENGTH.size + length
    tensors = sorted((_tensor(path, name, told, start) for name, told in content.items()), key=_place)
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            where = f"begins at {tensor.offset - start}; the one before ends at {end - start}"
            raise _bad(path, f"tensor `{_shown(tensor.name)}` {where}")
        end += tensor.size
    if end > size:
        message = f"`{path}` is truncated: its header describes {end} bytes, the file has {size}"
        raise BadFile(message, hint="the download or copy was cut short: fetch the file again")
    if end < size:
        raise _bad(path, f"{size - end} bytes follow its last tensor")
    return Header(path, size, metadata, tuple(tensors))


def _place(tensor: Tensor) -> tuple[int, int]:
    """Empty tensors lie before what begins at the same place."""
    return tensor.offset, tensor.size


def _tensor(path: Path, name: str, told: object, start: int) -> Tensor:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise _bad(path, f"a tensor is named `{_shown(name)}`")
    if not isinstance(told, Mapping) or told.keys() != _FIELDS:
        raise _bad(path, f"tensor `{_shown(name)}` is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        what = f"`{_shown(dtype)}`" if isinstance(dtype, str) else "no text"
        raise _bad(path, f"tensor `{_shown(name)}` is of unknown type {what}")
    if not _are_lengths(shape) or len(shape) > MAX_DIMENSIONS:
        raise _bad(path, f"tensor `{_shown(name)}` has a shape that is not up to {MAX_DIMENSIONS} lengths below 2^48")
    if not _are_lengths(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(path, f"tensor `{_shown(name)}` has data_offsets that are not a beginning and an end below 2^48")
    for length in shape:
        bits *= length
    size = offsets[1] - offsets[0]
    if bits != size * 8:
        raise _bad(path, f"tensor `{_shown(name)}` of {dtype} {shape} has {size} bytes; that shape takes {bits} bits")
    return Tensor(name, dtype, tuple(shape), start + offsets[0], size)


def _are_lengths(value: object) -> bool:
    # `type`, since true is an int to Python
    return isinstance(value, list) and all(type(length) is int and 0 <= length < 1 << 48 for length in value)


def _shown(name: str) -> str:
    """A word of the file, for an error: one line, printable, cut. What the file says may be meant for the terminal."""
    text = name[: _SHOWN_CHARS + 1]
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _bad(path: Path, problem: str, hint: str | None = None) -> BadFile:
    return BadFile(
        f"`{path}` is not a sound safetensors file: {problem}",
        hint=hint or "fetch the file again and compare its checksum",
    )
