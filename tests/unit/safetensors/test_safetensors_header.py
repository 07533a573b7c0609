"""The safetensors reader takes what is sound and says what is wrong with the rest."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from serving.errors import BadFile, FileMissing
from serving.safetensors import BITS, INDEX, MAX_HEADER, MAX_SHARDS, SINGLE, Tensor, read_header, read_index
from tests.support.hostile_safetensors import Bare, Pairs, dump, tensors_sound


def write(path: Path, header: object, data: int = 0) -> Path:
    """A file of that header: an object, or its bytes."""
    raw = header if isinstance(header, bytes) else dump(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))
    return path


def told(dtype: object = "F32", shape: object = None, offsets: object = None) -> Pairs:
    pairs = [("dtype", dtype), ("shape", [2] if shape is None else shape)]
    return Pairs([*pairs, ("data_offsets", [0, 8] if offsets is None else offsets)])


def one(**fields: object) -> Pairs:
    return Pairs([("a", told(**fields))])


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    """Metadata, and tensors in the order of their data with places from the start of the file."""
    header = Pairs(
        [
            ("__metadata__", Pairs([("format", "pt")])),
            ("b", told("BF16", [2, 3], [8, 20])),
            ("none", told("F16", [0, 7], [8, 8])),
            ("a", told("F32", [], [4, 8])),
            ("c", told("F8_E8M0", [4], [0, 4])),
            ("half", told("F4", [3, 2], [20, 23])),
        ]
    )
    path = write(tmp_path / "a.safetensors", header, 23)
    read = read_header(path)
    start = path.stat().st_size - 23
    assert read.metadata == {"format": "pt"}
    assert [tensor.name for tensor in read.tensors] == ["c", "a", "none", "b", "half"]
    assert read.tensors[3] == Tensor("b", "BF16", (2, 3), start + 8, 12)
    assert read.tensor_bytes == 23
    assert read.file_bytes == path.stat().st_size


def test_each_type_has_its_size(tmp_path: Path) -> None:
    """Eight numbers of each type take as many bytes as one has bits."""
    for dtype, bits in BITS.items():
        path = write(tmp_path / "a", one(dtype=dtype, shape=[8], offsets=[0, bits]), bits)
        assert read_header(path).tensors[0].size == bits


def test_blanks_behind_the_header_are_no_part_of_it(tmp_path: Path) -> None:
    """Writers fill the header up so that the data are aligned."""
    read_header(write(tmp_path / "a", dump(one()).encode() + b"     ", 8))


BAD: dict[str, tuple[object, int, str]] = {
    "no object": (b"[]", 0, "begins with"),
    "a blank first": (b" {}", 0, "begins with"),
    "a byte-order mark": (b"\xef\xbb\xbf{}", 0, "begins with"),
    "no JSON": (b"{,}", 0, "not JSON"),
    "two objects": (b"{}{}", 0, "not JSON"),
    "no UTF-8": (b'{"\xff":1}', 0, "not UTF-8"),
    "NaN": (b'{"a":NaN}', 0, "`NaN`"),
    "a fraction": (one(offsets=[0, Bare("8.0")]), 8, "not a whole number"),
    "a number of 5000 digits": (one(offsets=[0, Bare("9" * 5000)]), 8, "not JSON as it should be"),
    "a tensor twice": (Pairs([("a", told()), ("a", told(offsets=[8, 16]))]), 16, "`a` comes twice"),
    "a field twice": (Pairs([("a", Pairs([*told(), ("dtype", "F32")]))]), 8, "`dtype` comes twice"),
    "brackets without end": (b'{"a":' + b"[" * 100_000, 0, "nests too deep"),
    "metadata that are a list": (Pairs([("__metadata__", [])]), 0, "__metadata__"),
    "metadata that are numbers": (Pairs([("__metadata__", Pairs([("a", 1)]))]), 0, "__metadata__"),
    "no name": (Pairs([("", told())]), 8, "named ``"),
    "a name of 600 letters": (Pairs([("a" * 600, told())]), 8, "named"),
    "a name for the terminal": (Pairs([("\x1b[31m", told())]), 8, "named `\\x1b[31m`"),
    "half a character for a name": (b'{"\\ud800":{}}', 0, "named `\\ud800`"),
    "a tensor that is a number": (Pairs([("a", 1)]), 0, "not described"),
    "a field too few": (Pairs([("a", Pairs(told()[:2]))]), 0, "not described"),
    "a field too many": (Pairs([("a", Pairs([*told(), ("stride", [1])]))]), 8, "not described"),
    "an unknown type": (one(dtype="Q4_0"), 8, "unknown type `Q4_0`"),
    "a type that is no text": (one(dtype=Pairs()), 8, "unknown type no text"),
    "a shape that is no list": (one(shape="2"), 8, "shape that is not"),
    "a negative length": (one(shape=[-2]), 8, "shape that is not"),
    "true for a length": (one(shape=[2, True]), 8, "shape that is not"),
    "nine dimensions": (one(shape=[1] * 8 + [2]), 8, "shape that is not"),
    "a shape of 2^64": (one(shape=[1 << 32, 1 << 32]), 8, "takes"),
    "one offset": (one(offsets=[8]), 8, "data_offsets"),
    "an end before its beginning": (one(offsets=[8, 0]), 8, "data_offsets"),
    "an offset of 2^63": (one(offsets=[1 << 63, (1 << 63) + 8]), 8, "data_offsets"),
    "a shape of another size": (one(shape=[3]), 8, "has 8 bytes; that shape takes 96 bits"),
    "half a byte": (one(dtype="F4", shape=[15]), 8, "takes 60 bits"),
    "a hole": (Pairs([("a", told()), ("b", told(offsets=[16, 24]))]), 24, "begins at 16; the one before ends at 8"),
    "a hole in front": (one(offsets=[8, 16]), 16, "begins at 8; the one before ends at 0"),
    "one over another": (Pairs([("a", told()), ("b", told(offsets=[4, 12]))]), 12, "begins at 4"),
    "two at one place": (Pairs([("a", told()), ("b", told())]), 8, "begins at 0; the one before ends at 8"),
    "data cut short": (one(), 7, "truncated"),
    "bytes behind the data": (one(), 9, "1 bytes follow"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Each kind of damage is BadFile with what is wrong, in one printable line, and a hint."""
    header, data, says = BAD[name]
    with pytest.raises(BadFile) as caught:
        read_header(write(tmp_path / "a.safetensors", header, data))
    assert says in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500
    assert caught.value.hint


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "0 bytes long"),
        (b"\0" * 7, "7 bytes long"),
        (struct.pack("<Q", 3) + b"{}", "truncated"),
        (struct.pack("<Q", 1 << 63) + b"{}", "truncated"),
        (struct.pack("<Q", 0), "begins with"),
    ],
)
def test_its_length_is_checked_first(raw: bytes, says: str, tmp_path: Path) -> None:
    """What the first eight bytes say is compared with the file before anything is read."""
    path = tmp_path / "a"
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=says):
        read_header(path)


def test_a_long_header_is_refused(tmp_path: Path) -> None:
    """The format would allow a hundred megabytes."""
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER + 1))
        file.truncate(MAX_HEADER + 9)
    with pytest.raises(BadFile, match=f"{MAX_HEADER} at most"):
        read_header(path)


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    """No prefix of a file is taken for a file."""
    header, size = tensors_sound()
    whole = write(tmp_path / "a", header, size).read_bytes()
    assert len(read_header(tmp_path / "a").tensors) == len(header) - 1
    for length in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:length])
        with pytest.raises(BadFile):
            read_header(tmp_path / "a")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """A file that is not there, a directory, and a pipe that would be waited for."""
    with pytest.raises(FileMissing):
        read_header(tmp_path / "none")
    with pytest.raises(BadFile, match="directory"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadFile, match="not a regular file"):
        read_header(tmp_path / "pipe")


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory of two shards."""
    write(tmp_path / FIRST, Pairs([("a", told())]), 8)
    write(tmp_path / SECOND, Pairs([("b", told()), ("c", told(offsets=[8, 16]))]), 16)
    return index(tmp_path, {"a": FIRST, "b": SECOND, "c": SECOND})


def index(directory: Path, weight_map: object) -> Path:
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 24}, "weight_map": weight_map}))
    return directory


def test_a_directory_of_shards_is_read(model: Path) -> None:
    """The header of each shard, in the order of their names."""
    headers = read_index(model)
    assert [header.path.name for header in headers] == [FIRST, SECOND]
    assert [tensor.name for header in headers for tensor in header.tensors] == ["a", "b", "c"]


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    """`model.safetensors` alone, or as the one shard of an index."""
    write(tmp_path / SINGLE, Pairs([("a", told())]), 8)
    assert len(read_index(tmp_path)) == 1
    assert len(read_index(index(tmp_path, {"a": SINGLE}))) == 1


def test_links_are_followed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The Hugging Face cache has nothing else in its snapshots."""
    blob = tmp_path_factory.mktemp("blobs") / "0123"
    (model / FIRST).rename(blob)
    (model / FIRST).symlink_to(blob)
    assert len(read_index(model)) == 2
    blob.unlink()
    with pytest.raises(FileMissing):
        read_index(model)


ELSEWHERE = [
    "../x.safetensors",
    "/x.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "",
    ".",
    "..",
    ".x.safetensors",
]
ODD = ["x.bin", "a\0.safetensors", "ключ.safetensors", "x" * 300 + ".safetensors", "a.safetensors\n", 1, None, ["a"]]


@pytest.mark.parametrize("shard", [*ELSEWHERE, *ODD])
def test_a_shard_is_a_plain_file_name(model: Path, shard: object) -> None:
    """Nothing that an index says can mean a file elsewhere."""
    with pytest.raises(BadFile, match="not the plain name"):
        read_index(index(model, {"a": FIRST, "b": shard, "c": SECOND}))


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({}, "no `weight_map`"),
        ([], "no `weight_map`"),
        ({"a": FIRST, "": SECOND}, "no name"),
        ({"a": FIRST, "b": SECOND}, "holds tensor `c`"),
        ({"a": FIRST, "b": SECOND, "c": SECOND, "d": SECOND}, "`d` is in"),
        ({"a": SECOND, "b": SECOND, "c": SECOND}, "`a` is in"),
        ({str(number): f"{number}.safetensors" for number in range(MAX_SHARDS + 1)}, "shards"),
    ],
)
def test_the_index_and_its_shards_say_the_same(model: Path, weight_map: object, says: str) -> None:
    """Each tensor is in its shard, in no other, and nothing else is there."""
    with pytest.raises(BadFile, match=says):
        read_index(index(model, weight_map))


def test_a_tensor_in_two_shards_is_refused(model: Path) -> None:
    """Loaders would take one or the other."""
    write(model / FIRST, Pairs([("a", told()), ("b", told(offsets=[8, 16]))]), 16)
    with pytest.raises(BadFile, match="holds tensor `b`"):
        read_index(model)


def test_a_shard_that_is_missing_or_broken_is_named(model: Path) -> None:
    """The error has the shard's own path."""
    (model / SECOND).write_bytes(b"\0" * 8)
    with pytest.raises(BadFile, match=SECOND):
        read_index(model)
    (model / SECOND).unlink()
    with pytest.raises(FileMissing, match=SECOND):
        read_index(model)


def test_what_is_no_model_directory_is_told(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing there, a file, an index that is no JSON, and two models in one directory."""
    with pytest.raises(FileMissing, match="neither"):
        read_index(tmp_path_factory.mktemp("empty"))
    with pytest.raises(FileMissing, match="neither"):
        read_index(model / "none")
    with pytest.raises(FileMissing, match="neither"):
        read_index(model / FIRST)
    write(model / SINGLE, Pairs([("a", told())]), 8)
    with pytest.raises(BadFile, match="loaders take one or the other"):
        read_index(model)
    (model / INDEX).write_text("{")
    with pytest.raises(BadFile, match="not JSON"):
        read_index(model)
