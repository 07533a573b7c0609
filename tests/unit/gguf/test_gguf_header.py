"""The GGUF reader takes what is sound and says what is wrong with the rest."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

import serving
from serving.errors import BadFile, FileMissing
from serving.gguf import (
    KEEP_ARRAY_UP_TO,
    MAX_HEADER,
    MAX_KEPT,
    MAX_STRINGS,
    TYPES,
    LongArray,
    read_header,
    read_strings,
)
from tests.support.gguf_bytes import Gguf, string, strings, text, tiny, u32

DEMO = Path(serving.__file__).parent / "models/demo"


@pytest.mark.parametrize("name", ["demo-q8_0.gguf", "demo-f16.gguf"])
def test_agrees_with_the_reference_reader(name: str) -> None:
    """Names, shapes, types, offsets and sizes are those that the gguf package reads."""
    ours = read_header(DEMO / name)
    theirs = gguf.GGUFReader(DEMO / name)
    assert [(t.name, t.shape, t.type, t.offset, t.size) for t in ours.tensors] == [
        (t.name, tuple(map(int, t.shape)), t.tensor_type.name, t.data_offset, t.n_bytes) for t in theirs.tensors
    ]
    assert ours.architecture == "llama"


def test_all_types_have_the_reference_sizes() -> None:
    """Our table of number types is ggml's."""
    for number, kind in TYPES.items():
        reference = gguf.GGMLQuantizationType(number)
        assert kind.name == reference.name
        assert (kind.block, kind.block_bytes) == gguf.GGML_QUANT_SIZES[reference]


def test_long_arrays_are_counted_not_kept(tmp_path: Path) -> None:
    """A vocabulary is walked over; only its type and length stay."""
    header = read_header(tiny().write(tmp_path / "a.gguf"))
    assert header.metadata["tokenizer.ggml.tokens"] == LongArray(8, 2000)
    assert header.length("tokenizer.ggml.tokens") == 2000


def test_facts_are_of_the_models_own_architecture(tmp_path: Path) -> None:
    """`integer` reads `llama.block_count` in a llama file."""
    header = read_header(tiny().write(tmp_path / "a.gguf"))
    assert header.integer("block_count") == 2
    assert header.integer("no_such") is None


def _metadata(key: str, value: bytes) -> Callable[[Gguf], None]:
    return lambda file: file.metadata.append((key, value))


def _set(**fields: object) -> Callable[[Gguf], None]:
    def change(file: Gguf) -> None:
        for name, value in fields.items():
            setattr(file, name, value)

    return change


BAD: dict[str, tuple[Callable[[Gguf], None], str]] = {
    "magic": (_set(magic=b"PK\x03\x04"), "begins with"),
    "version 1": (_set(version=1), "version 1"),
    "big-endian": (_set(version=3 << 24), "version 50331648"),
    "2^63 tensors": (_set(n_tensors=1 << 63), "tensor count"),
    "30000 tensors that are not there": (_set(n_tensors=30_000), "bytes, and"),
    "2^40 metadata": (_set(n_metadata=1 << 40), "metadata count"),
    "an empty key": (_metadata("", u32(1)), "empty"),
    "a key twice": (_metadata("llama.block_count", u32(1)), "given twice"),
    "an unknown value type": (_metadata("x", struct.pack("<I", 13)), "unknown type 13"),
    "an array of arrays": (_metadata("x", struct.pack("<IIQ", 9, 9, 1)), "array of type 9"),
    "an array of 2^60": (_metadata("x", struct.pack("<IIQ", 9, 4, 1 << 60)), "length of `x`"),
    "a long array beyond the end": (_metadata("x", struct.pack("<IIQ", 9, 10, 1 << 23)), "are left in the file"),
    "a string of 2^62": (_metadata("x", struct.pack("<IQ", 8, 1 << 62)), "bytes long"),
    "a string that is not UTF-8": (_metadata("x", struct.pack("<I", 8) + text(b"\xff\xfe")), "not UTF-8"),
    "a boolean of 2": (_metadata("x", struct.pack("<IB", 7, 2)), "boolean 2"),
    "an alignment of 3": (_metadata("general.alignment", u32(3)), "general.alignment"),
    "an alignment that is text": (_metadata("general.alignment", string("x")), "general.alignment"),
    "an alignment of another type": (_metadata("general.alignment", struct.pack("<IQ", 10, 32)), "of type 10"),
    "an alignment of 8": (_metadata("general.alignment", u32(8)), "from 32 to"),
    "a NUL in a key": (_metadata("llama.block_count\0", u32(1)), "NUL"),
    "a NUL in a text": (_metadata("x", string("a\0b")), "NUL"),
    "a NUL in a tensor's name": (_set(tensors=[("a\0b", (8,), 0, 0)]), "NUL"),
    "a key of 65536 bytes": (_metadata("x" * 65536, u32(1)), "bytes long"),
    "an architecture that is no name": (_set(metadata=[("general.architecture", string("a\nb"))]), "not a name"),
    "an architecture that is a number": (_set(metadata=[("general.architecture", u32(1))]), "no text, not a name"),
    "parts that are a text": (_metadata("split.count", string("x" * 1000)), "one part of several"),
    "part of several": (_metadata("split.count", u32(3)), "one part of 3"),
    "no dimensions": (_set(tensors=[("a", (), 0, 0)]), "0 dimensions"),
    "five dimensions": (_set(tensors=[("a", (1, 1, 1, 1, 1), 0, 0)]), "5 dimensions"),
    "a dimension of 0": (_set(tensors=[("a", (0, 4), 0, 0)]), "impossible shape"),
    "a shape of 2^63": (_set(tensors=[("a", (1 << 63,), 0, 0)]), "impossible shape"),
    "a shape whose size overflows": (_set(tensors=[("a", (1 << 40, 1 << 40), 0, 0)]), "larger than any file"),
    "an unknown tensor type": (_set(tensors=[("a", (32,), 99, 0)]), "unknown type 99"),
    "half a block": (_set(tensors=[("a", (33,), 8, 0)]), "not a multiple"),
    "a tensor twice": (_set(tensors=[("a", (8,), 0, 0), ("a", (8,), 0, 32)]), "given twice"),
    "a name of 64 bytes": (_set(tensors=[("a" * 64, (8,), 0, 0)]), "bytes long"),
    "a tensor over another": (_set(tensors=[("a", (8,), 0, 0), ("b", (8,), 0, 0)]), "must follow"),
    "an offset of 2^64 - 1": (_set(tensors=[("a", (8,), 0, (1 << 64) - 1)]), "must follow"),
    "data cut short": (_set(data=b"\0" * 100), "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Each kind of damage is BadFile with what is wrong, and a hint."""
    change, says = BAD[name]
    file = tiny()
    change(file)
    with pytest.raises(BadFile) as caught:
        read_header(file.write(tmp_path / "a.gguf"))
    assert says in caught.value.message
    assert caught.value.hint


def test_what_the_file_says_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """Words of the file are shown printable, in one line, and cut."""
    file = tiny()
    file.metadata += [("\x1b[31m\n" + "é" * 500, u32(1))] * 2
    with pytest.raises(BadFile, match="given twice") as caught:
        read_header(file.write(tmp_path / "a.gguf"))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_elements_are_bounded_over_the_file(tmp_path: Path) -> None:
    """Many arrays, each of a length that may be, are as refused as one that is too long."""
    file = tiny()
    some = struct.pack("<IIQ", 9, 0, 1024) + bytes(1024)
    file.metadata += [(f"x{number}", some) for number in range(MAX_KEPT // 1024 + 1)]
    with pytest.raises(BadFile, match=f"{MAX_KEPT} at most"):
        read_header(file.write(tmp_path / "a.gguf"))
    file = tiny()
    empty = struct.pack("<IIQ", 9, 8, 1 << 16) + bytes(8 << 16)
    file.metadata += [(f"x{number}", empty) for number in range((MAX_STRINGS >> 16) + 1)]
    with pytest.raises(BadFile, match=f"{MAX_STRINGS} at most"):
        read_header(file.write(tmp_path / "a.gguf"))


def test_a_header_ends_within_its_bound(tmp_path: Path) -> None:
    """What would be read of a file is bounded, however large it is."""
    path = tmp_path / "a.gguf"
    long = struct.pack("<IIQ", 9, 0, (1 << 24) - 100)
    with path.open("wb") as opened:
        opened.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 5))
        for number in range(5):
            opened.write(text(f"x{number}") + long)
            opened.seek((1 << 24) - 100, 1)
        opened.truncate(1 << 33)
    with pytest.raises(BadFile, match=f"{MAX_HEADER} that a header may have"):
        read_header(path)


@pytest.mark.parametrize("count", [3, 2000])
def test_strings_can_be_read_again(count: int, tmp_path: Path) -> None:
    """The elements of an array of strings, kept or not; of nothing else."""
    file = tiny()
    names = [f"n{number}" for number in range(count)]
    file.metadata.append(("x", strings(names)))
    header = read_header(file.write(tmp_path / "a.gguf"))
    assert read_strings(header, "x") == [name.encode() for name in names]
    assert read_strings(header, "llama.block_count") == []
    assert read_strings(header, "none") == []
    if count > KEEP_ARRAY_UP_TO:
        header.path.write_bytes(b"GGUF" + b"\xff" * 100)
        with pytest.raises(BadFile):
            read_strings(header, "x")


def test_a_truncated_file_is_told_with_both_sizes(tmp_path: Path) -> None:
    """The message has what the header describes and what is there."""
    whole = tiny().encode()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:-5])
    with pytest.raises(BadFile, match=rf"describes {len(whole)} bytes, the file has {len(whole) - 5}"):
        read_header(path)


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    """No prefix of a file is taken for a file."""
    whole = tiny().encode()
    path = tmp_path / "cut.gguf"
    for length in [*range(300), *range(300, len(whole), 9973)]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile):
            read_header(path)


def test_missing_directory_and_split(tmp_path: Path) -> None:
    """A file that is not there, a directory, and a part of a split file are each told apart."""
    with pytest.raises(FileMissing):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(BadFile, match="directory"):
        read_header(tmp_path)
    with pytest.raises(BadFile, match="part 2 of 3"):
        read_header(tmp_path / "big-00002-of-00003.gguf")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """What is no regular file is refused before it is opened."""
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)
    with pytest.raises(BadFile, match="not a regular file"):
        read_header(pipe)
