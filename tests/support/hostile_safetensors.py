"""Safetensors files and indexes that are wrong somewhere: a seeded generator, as `hostile` is for GGUF."""

from __future__ import annotations

import copy
import json
import math
import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.hostile import EDGES, Mutant


class Pairs(list):
    """A JSON object as its pairs, so that a key can come twice."""


def dump(value: Any) -> str:
    """JSON, and what only claims to be."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{dump(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    if isinstance(value, Bare):
        return value.text
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Bare:
    """Text that is put into JSON as it stands."""

    text: str


DTYPES = [("F32", 32), ("BF16", 16), ("F16", 16), ("I64", 64), ("F8_E4M3", 8), ("F8_E8M0", 8), ("F4", 4), ("BOOL", 8)]
ODD: list[Any] = [
    None,
    True,
    False,
    -1,
    1.5,
    "",
    "0",
    "\ud7ff",
    [],
    Pairs(),
    [[0]],
    Bare("NaN"),
    Bare("1e999"),
    Bare("-0"),
]
ODD += [
    Bare("9" * 5000),
    Bare('"\\ud800"'),
    Bare('"\\u0000"'),
    Bare("[" * 50 + "]" * 50),
    Bare("[" * 5000),
    Bare("01"),
    Bare("'x'"),
]
NAMES = ["", "__metadata__", "a\0b", "a\nb", "\x1b[31m", "😀", "x" * 600, "../x", "layers.0.w", " "]
SHARDS = [
    "../x.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b.safetensors",
    "a\\b.safetensors",
    "x",
    "a\0.safetensors",
]
SHARDS += [
    "model.safetensors",
    "model-00009-of-00009.safetensors",
    "%2e%2e/x.safetensors",
    "C:x.safetensors",
    "ключ.safetensors",
]


def tensors_sound() -> tuple[Pairs, int]:
    """A header of some tensors of each kind, and the bytes of their data."""
    told, at = Pairs([("__metadata__", Pairs([("format", "pt")]))]), 0
    for layer in range(2):
        for index, (dtype, bits) in enumerate(DTYPES):
            shape = [[4, 8], [16], [2, 2, 2], [3, 8], [], [0, 4]][(layer + index) % 6]
            if bits == 4 and not shape:
                shape = [2]
            size = math.prod(shape) * bits // 8
            entry = Pairs([("dtype", dtype), ("shape", list(shape)), ("data_offsets", [at, at + size])])
            told.append((f"model.layers.{layer}.part{index}.weight", entry))
            at += size
    return told, at


def safetensors_mutant(rng: random.Random) -> Mutant:
    """One mutant of a small safetensors file, changed in one to three places."""
    told, size = tensors_sound()
    changes = []
    places = rng.choice([1, 1, 1, 2, 2, 3])
    below = sum(rng.random() < 0.4 for _ in range(places))
    for _ in range(places - below):
        changes.append(_change_tensors(rng, told))
    text = bytearray(dump(told).encode("utf-8", "surrogatepass"))
    length = len(text)
    for _ in range(below):
        did = rng.choice(["length", "length", "bit", "insert", "cut", "pad", "prefix", "tail"])
        changes.append(did)
        if did == "length":
            length = rng.choice([*EDGES, length - 1, length + 1, length * 2]) % (1 << 64)
        elif did == "bit" and text:
            text[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        elif did == "insert":
            spot = rng.randrange(len(text) + 1)
            text[spot:spot] = rng.choice(
                [b"[", b"{", b'"', b"\\", b"\0", b"\xff", b",", b":", b"0", b"/**/", b"[" * 2000]
            )
            length = len(text)
        elif did == "pad":
            text += rng.choice([b" ", b"\n", b"\0", b"{}", b" " * 100])
            length = len(text)
        elif did == "prefix":
            text[:0] = rng.choice([b" ", b"\xef\xbb\xbf", b"\n", b"["])
            length = len(text)
        elif did == "tail":
            size = rng.choice([0, size - 1, size + 1, size * 2, 1 << 33])
        else:
            size = -rng.randrange(len(text) + 8)
    header = struct.pack("<Q", length) + bytes(text)
    return Mutant(header, max(0, len(header) + size), tuple(changes))


def _change_tensors(rng: random.Random, told: Pairs) -> str:
    spot = rng.randrange(len(told))
    name, entry = told[spot]
    what = rng.choice(
        ["name", "gone", "twice", "odd", "field", "field", "dtype", "shape", "offsets", "offsets", "swap", "extra"]
    )
    if what == "name":
        told[spot] = (rng.choice([*NAMES, told[0][0], told[-1][0]]), entry)
    elif what == "gone":
        del told[spot]
        if not told:
            told.append((name, Pairs()))
    elif what == "twice":
        told.append((rng.choice([name, name + "2"]), copy.deepcopy(entry)))
    elif what == "swap":
        other = rng.randrange(len(told))
        told[spot], told[other] = (name, told[other][1]), (told[other][0], entry)
    elif what == "odd" or not isinstance(entry, Pairs) or not entry:
        told[spot] = (name, rng.choice(ODD))
    else:
        place = rng.randrange(len(entry))
        key, value = entry[place]
        if what == "extra":
            entry.append(
                (rng.choice(["dtype", "shape", "data_offsets", "stride", ""]), rng.choice([1, "F32", [1], None]))
            )
        elif what == "field":
            entry[place] = (key, rng.choice(ODD))
        elif what == "dtype":
            entry[place] = (key, rng.choice(["F32", "F4", "F6_E2M3", "I64", "f32", "Q8_0", "", "F33"]))
        else:
            new = list(value) if isinstance(value, list) else [0]
            edge = rng.choice([*EDGES, -1])
            new = rng.choice([[*new, edge], new[:-1], [edge, *new[1:]], [*new[:-1], edge], [edge] * 9, new[::-1]])
            entry[place] = (key, new)
    return f"{name[:40]!r}: {what}"


def write_index_mutant(rng: random.Random, folder: Path) -> tuple[str, ...]:
    """A model directory of two shards and an index, changed in one or two places; returns what was done."""
    shards = [f"model-{index:05}-of-00002.safetensors" for index in (1, 2)]
    pairs = Pairs()
    for index, shard in enumerate(shards):
        entry = Pairs([("dtype", "F32"), ("shape", [2]), ("data_offsets", [0, 8])])
        text = dump(Pairs([(f"t{index}", entry)])).encode()
        (folder / shard).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        pairs.append((f"t{index}", shard))
    whole = Pairs([("metadata", Pairs([("total_size", 16)])), ("weight_map", pairs)])
    changes = []
    for _ in range(rng.choice([1, 1, 2])):
        what = rng.choice(["shard", "shard", "shard", "name", "odd", "gone", "twice", "map", "text"])
        changes.append(what)
        spot = rng.randrange(len(pairs)) if pairs else 0
        if what == "shard" and pairs:
            pairs[spot] = (pairs[spot][0], rng.choice([*SHARDS, *shards]))
        elif what == "name" and pairs:
            pairs[spot] = (rng.choice(NAMES), pairs[spot][1])
        elif what == "odd" and pairs:
            pairs[spot] = (pairs[spot][0], rng.choice(ODD))
        elif what == "gone" and pairs:
            del pairs[spot]
        elif what == "twice":
            pairs.append((rng.choice(["t0", "t1", "t2"]), rng.choice(shards)))
        elif what == "map":
            whole[-1] = ("weight_map", rng.choice(ODD))
    text = dump(whole).encode("utf-8", "surrogatepass")
    if "text" in changes:
        text = text[: rng.randrange(len(text))]
    (folder / "model.safetensors.index.json").write_bytes(text)
    return tuple(changes)
