"""Weight files made to cost as much as they can: each at some bound of a reader, or far beyond it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from serving import gguf, safetensors
from tests.support.gguf_bytes import string, text, u32

MIB = 1 << 20
WIDE = "😀".encode()
"""Makes Python hold a text in four bytes a character."""


def _gguf(path: Path, metadata: Iterable[bytes], n_metadata: int, tensors: bytes = b"", n_tensors: int = 0) -> Path:
    """A GGUF file of that metadata, and a hole of 32 bytes for each tensor."""
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_metadata))
        for part in metadata:
            file.write(part)
        file.write(tensors)
        file.truncate(-(-file.tell() // 32) * 32 + 32 * n_tensors)
    return path


def _decoder(path: Path, tokens: Iterable[bytes], count: int, *, model: str = "gpt2") -> Path:
    """A file that is a decoder as far as its facts go, with that vocabulary."""
    facts = {"block_count": 1, "context_length": 64, "embedding_length": 8, "attention.head_count": 1}
    parts = [text("general.architecture") + string("llama"), text("tokenizer.ggml.model") + string(model)]
    parts += [text(f"llama.{key}") + u32(value) for key, value in facts.items()]
    parts += [text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count), *tokens]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 8, count, 0, 0)
    _gguf(path, parts, 3 + len(facts), tensor, 1)
    with path.open("r+b") as file:
        file.truncate(file.seek(0, 2) + 32 * (count - 1))
    return path


def _array(key: str, kind: int, count: int, content: bytes = b"") -> bytes:
    return text(key) + struct.pack("<IIQ", 9, kind, count) + content


def _tensors(count: int) -> Iterator[bytes]:
    for number in range(count):
        name = f"{number:x}".rjust(63, "x")
        yield text(name) + struct.pack("<IQQQQIQ", 4, 1, 1, 1, 8, 0, 32 * number)


def _keys(count: int, length: int, value: bytes) -> Iterator[bytes]:
    for number in range(count):
        yield text(f"{number:x}".rjust(length, "k")) + value


STRINGS, KEPT = gguf.MAX_STRINGS, gguf.MAX_KEPT
GGUF: dict[str, Callable[[Path], Path]] = {
    "strings, as many as may be": lambda p: _gguf(p, [_array("a", 8, STRINGS, bytes(8 * STRINGS))], 1),
    "16 million strings": lambda p: _gguf(p, [_array("a", 8, 1 << 24, bytes(8 << 24))], 1),
    "strings in many arrays": lambda p: _gguf(p, [_array(f"{n}", 8, 1025, bytes(8200)) for n in range(4000)], 4000),
    "a string that says it is 2^63 long": lambda p: _gguf(
        p, [_array("a", 8, 2000, struct.pack("<Q", 1 << 63) + bytes(16000))], 1
    ),
    "numbers, as many as may be kept": lambda p: _gguf(
        p, [_array(f"{n}", 12, 1024, struct.pack("<d", n + 0.5) * 1024) for n in range(KEPT // 1024)], KEPT // 1024
    ),
    "texts, as many as may be kept": lambda p: _gguf(
        p, [_array(f"{n}", 8, 1024, text(f"{n}" + "x" * 300) * 1024) for n in range(KEPT // 1024)], KEPT // 1024
    ),
    "4096 arrays to keep": lambda p: _gguf(p, [_array(f"{n}", 0, 1024, bytes(1024)) for n in range(4096)], 4096),
    "four wide texts of 16 MB": lambda p: _gguf(
        p, [text(f"{n}") + struct.pack("<I", 8) + text(b"x" * (16 * MIB - 4) + WIDE) for n in range(3)], 3
    ),
    "a wide text that is no UTF-8 at its end": lambda p: _gguf(
        p, [text("a") + struct.pack("<I", 8) + text(WIDE + b"x" * (15 * MIB) + b"\xff")], 1
    ),
    "keys, as many and as long as may be": lambda p: _gguf(p, _keys(4096, 16000, u32(1)), 4096),
    "65536 keys": lambda p: _gguf(p, _keys(65536, 8, u32(1)), 65536),
    "tensors, as many as may be": lambda p: _gguf(p, [], 0, b"".join(_tensors(gguf.MAX_TENSORS)), gguf.MAX_TENSORS),
    "131072 tensors": lambda p: _gguf(p, [], 0, b"".join(_tensors(1 << 17)), 1 << 17),
    "a header of 200 MB": lambda p: _gguf(p, [_array(f"{n}", 0, 1 << 24, bytes(1 << 24)) for n in range(12)], 12),
    "empty tokens, as many as may be": lambda p: _decoder(p, [bytes(8 * STRINGS)], STRINGS),
    "tokens, as many and as long as may be": lambda p: _decoder(
        p, (text(f"{n:030}") for n in range(STRINGS)), STRINGS, model="llama"
    ),
    "the same token, as often as may be": lambda p: _decoder(p, [text("a") * STRINGS], STRINGS),
    "long tokens": lambda p: _decoder(p, (text(b"%d\0" % n + b"x" * (1 << 14)) for n in range(4000)), 4000),
}


def _safetensors(path: Path, header: bytes, *, says: int | None = None, data: int = 0) -> Path:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header) if says is None else says) + header)
        file.truncate(8 + len(header) + data)
    return path


def _filled(most: int, before: bytes, unit: bytes, after: bytes = b"}") -> bytes:
    """As many of `unit` as fit."""
    return before + unit * ((most - len(before) - len(after)) // len(unit)) + after


def _entries(count: int, value: str) -> bytes:
    return ("{" + ",".join(f'"{number:x}":{value}' for number in range(count)) + "}").encode()


def _many_tensors(path: Path, count: int) -> Path:
    told = (
        f'"model.layers.{n}.weight":{{"dtype":"F32","shape":[2,1],"data_offsets":[{8 * n},{8 * n + 8}]}}'
        for n in range(count)
    )
    return _safetensors(path, ("{" + ",".join(told) + "}").encode(), data=8 * count)


def _index(folder: Path, weight_map: bytes, shards: dict[str, bytes] | None = None) -> Path:
    folder.mkdir()
    (folder / safetensors.INDEX).write_bytes(b'{"weight_map":' + weight_map + b"}")
    for name, header in (shards or {}).items():
        _safetensors(folder / name, header)
    return folder


MOST, VALUES = safetensors.MAX_HEADER, safetensors.MAX_VALUES
SAFETENSORS: dict[str, Callable[[Path], Path]] = {
    "100 MB of brackets": lambda p: _safetensors(p, b'{"a":' + b"[" * (100 * MIB)),
    "16 MB of brackets": lambda p: _safetensors(p, _filled(MOST, b'{"a":', b"[")),
    "brackets, as deep as may be": lambda p: _safetensors(p, b'{"a":' + b"[" * (VALUES - 2)),
    "objects, as deep as may be": lambda p: _safetensors(p, b'{"a":' * (VALUES - 2)),
    "zeros, as many as may be": lambda p: _safetensors(p, b'{"a":[' + b"0," * VALUES + b"0]}"),
    "numbers, as many as may be": lambda p: _safetensors(
        p, b'{"a":[' + ",".join(map(str, range(10**6, 10**6 + VALUES))).encode() + b"]}"
    ),
    "texts, as many as may be": lambda p: _safetensors(
        p, b'{"a":[' + ",".join(f'"{n}"' for n in range(VALUES)).encode() + b"]}"
    ),
    "empty objects, as many as may be": lambda p: _safetensors(p, b'{"a":[' + b"{}," * (VALUES - 3) + b"{}]}"),
    "keys, as many as may be": lambda p: _safetensors(p, _entries(VALUES, "1")),
    "keys with objects": lambda p: _safetensors(p, _entries(VALUES - 2, "{}")),
    "one key, as often as may be": lambda p: _safetensors(p, b"{" + b'"a":1,' * VALUES + b'"a":1}'),
    "the last key twice": lambda p: _safetensors(p, _entries(VALUES - 1, "1")[:-1] + b',"0":1}'),
    "metadata, as much as may be": lambda p: _safetensors(p, b'{"__metadata__":' + _entries(VALUES - 1, '"x"') + b"}"),
    "a wide text of 16 MB": lambda p: _safetensors(p, _filled(MOST - 4, b'{"a":"' + WIDE, b"x", b'"}')),
    "16 MB of escapes": lambda p: _safetensors(p, _filled(MOST, b'{"a":"', b"\\u4e2d", b'"}')),
    "16 MB of digits": lambda p: _safetensors(p, _filled(MOST, b'{"a":', b"9")),
    "numbers of 4000 digits": lambda p: _safetensors(p, _filled(MOST, b'{"a":[', b"9" * 4000 + b",", b"0]}")),
    "numbers with a thousand places": lambda p: _safetensors(
        p, _filled(MOST, b'{"a":[', b"0." + b"3" * 998 + b",", b"0]}")
    ),
    "16 MB of blanks": lambda p: _safetensors(p, _filled(MOST, b"{", b" ")),
    "tensors, as many as may be": lambda p: _many_tensors(p, safetensors.MAX_TENSORS),
    "more tensors": lambda p: _many_tensors(p, safetensors.MAX_TENSORS + 1),
    "a header of 2^63": lambda p: _safetensors(p, b"{}", says=1 << 63),
    "an index of as many tensors as may be": lambda p: _index(
        p.with_suffix(""), _entries(VALUES, '"model-1.safetensors"'), {"model-1.safetensors": b"{}"}
    ),
    "an index of as many shards": lambda p: _index(
        p.with_suffix(""), ("{" + ",".join(f'"{n:x}":"{n:x}.safetensors"' for n in range(VALUES - 1)) + "}").encode()
    ),
    "shards that are all of 16 MB": lambda p: _index(
        p.with_suffix(""),
        json.dumps({f"{n}": f"{n}.safetensors" for n in range(8)}).encode(),
        {f"{n}.safetensors": _filled(MOST, b'{"a":"', b"x", b'"}') for n in range(8)},
    ),
}


def write_all(folder: Path) -> dict[str, Path]:
    """All of them, by name; some hundred MB."""
    found = {}
    for files, suffix in ((GGUF, "gguf"), (SAFETENSORS, "safetensors")):
        for number, (name, write) in enumerate(files.items()):
            found[f"{suffix}: {name}"] = write(folder / f"{number}.{suffix}")
    return found
