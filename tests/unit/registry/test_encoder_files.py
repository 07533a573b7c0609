"""Weight files that embed or rank: what they are for is read from them, and what would be served wrongly is refused."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest

from serving.errors import BadFile
from serving.gguf import read_header
from serving.pooling import pooling_of, task_of
from serving.registry import load_catalogue, model_from_file
from serving.registry.local import check_kind, check_servable
from serving.registry.servable import check_sound
from tests.llamacpp.encoders.vocabularies import compile_map
from tests.llamacpp.encoders.weights import ENCODERS, POSITIONS, write_gguf
from tests.support.gguf_bytes import tiny

CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
U32 = gguf.GGUFValueType.UINT32


@pytest.mark.parametrize("name", ENCODERS)
def test_what_a_file_is_for_is_read_from_it(name: str, tmp_path: Path) -> None:
    """Its pooling, its kind, its longest text; sound files of each kind pass."""
    encoder = ENCODERS[name]
    header = read_header(write_gguf(encoder, tmp_path))
    check_servable(header)
    assert pooling_of(header) == encoder.pooling
    assert task_of(header) == ("rerank" if encoder.pooling == "rank" else "embed")
    model = load_catalogue().find(str(header.path))
    assert model.kind == ("reranker" if encoder.pooling == "rank" else "embedding")
    assert model.architecture is not None
    assert (model.context, model.architecture.positions, model.architecture.encoder) == (POSITIONS, POSITIONS, True)


def test_a_head_says_that_a_model_ranks(tmp_path: Path) -> None:
    """Converters write a reranker's head and no pooling type."""
    header = read_header(write_gguf(ENCODERS["xlmr-rank"], tmp_path, pooling=False))
    assert (pooling_of(header), task_of(header)) == ("rank", "rerank")
    check_servable(header)


def test_a_decoder_generates_unless_its_file_says_otherwise(tmp_path: Path) -> None:
    """A plain decoder is for chat."""
    header = read_header(tiny().write(tmp_path / "a.gguf"))
    assert (pooling_of(header), task_of(header)) == (None, "generate")
    assert model_from_file(header.path).kind == "chat"


def write(name: str, folder: Path, **more: Any) -> Path:
    """An encoder's file with other facts, or another family."""
    return write_gguf(ENCODERS[name], folder, **more)


def test_an_encoder_that_does_not_say_how_to_pool_is_refused(tmp_path: Path) -> None:
    """Guessing between mean and first token would give plausible nonsense."""
    with pytest.raises(BadFile, match=r"bert\.pooling_type"):
        check_servable(read_header(write("xlmr-mean", tmp_path, pooling=False)))


def test_a_reranker_with_two_token_types_is_refused(tmp_path: Path) -> None:
    """llama.cpp would give every token the first one, and score wrongly."""
    ranker = dataclasses.replace(ENCODERS["bert-cls"], name="bert-rank", pooling="rank")
    with pytest.raises(BadFile, match="token type"):
        check_servable(read_header(write_gguf(ranker, tmp_path)))


def test_a_ranking_file_without_a_head_is_refused(tmp_path: Path) -> None:
    """Its scores would be numbers of the first token."""
    path = write("xlmr-mean", tmp_path, pooling=False, metadata={"bert.pooling_type": (4, U32)})
    with pytest.raises(BadFile, match="classifier's head"):
        check_servable(read_header(path))


def test_a_file_of_another_kind_than_its_entry_is_refused(tmp_path: Path) -> None:
    """A site's entry that calls an embedder a chat model."""
    header = read_header(write("xlmr-mean", tmp_path))
    check_kind(header, "own", "embedding")
    with pytest.raises(BadFile, match=r"`embedding`.*`own` as `chat`"):
        check_kind(header, "own", "chat")


def patched(path: Path, key: str, value: bytes) -> Path:
    """The file with the bytes of a metadata array replaced by as many others."""
    data = bytearray(path.read_bytes())
    at = data.index(key.encode()) + len(key) + 4
    (kind, length) = struct.unpack_from("<IQ", data, at)
    assert kind in (0, 1)
    assert len(value) == length
    data[at + 12 : at + 12 + length] = value
    path.write_bytes(data)
    return path


def units_of(table: bytes) -> tuple[list[int], bytes]:
    """The double array, and the texts it points to."""
    (size,) = struct.unpack_from("<I", table)
    return list(struct.unpack(f"<{size // 4}I", table[4 : 4 + size])), table[4 + size :]


def as_table(units: list[int], texts: bytes) -> bytes:
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + texts


def table_of(path: Path) -> bytes:
    data = path.read_bytes()
    at = data.index(CHARSMAP.encode()) + len(CHARSMAP) + 4
    (length,) = struct.unpack_from("<Q", data, at + 4)
    return data[at + 12 : at + 12 + length]


def test_a_normaliser_that_leads_outside_its_table_is_refused(tmp_path: Path) -> None:
    """llama.cpp would end the process at the first text that gets there."""
    path = write("xlmr-mean", tmp_path)
    table = table_of(path)
    units, texts = units_of(table)
    # The unit of one byte of a key of several: its next state is put beyond the table.
    place = next(place for place, unit in enumerate(units) if 0x80 <= unit & 0x800000FF < 0x100)
    units[place] = units[place] & 0x3FF | (len(units) + 256 ^ place) << 10
    with pytest.raises(BadFile, match="leads outside itself"):
        check_servable(read_header(patched(path, CHARSMAP, as_table(units, texts))))


def test_a_normaliser_that_names_a_text_it_lacks_is_refused(tmp_path: Path) -> None:
    """A value beyond the texts."""
    path = write("xlmr-mean", tmp_path)
    units, texts = units_of(table_of(path))
    place = next(place for place, unit in enumerate(units) if unit >> 31)
    units[place] = 1 << 31 | len(texts)
    with pytest.raises(BadFile, match="names a text it does not have"):
        check_servable(read_header(patched(path, CHARSMAP, as_table(units, texts))))


@pytest.mark.parametrize("size", [3, 1 << 30, 0xFFFFFFFF])
def test_a_normaliser_that_is_cut_short_is_refused(size: int, tmp_path: Path) -> None:
    """The length of its table is not what it says."""
    path = write("xlmr-mean", tmp_path)
    table = struct.pack("<I", size) + table_of(path)[4:]
    with pytest.raises(BadFile, match="normaliser"):
        check_servable(read_header(patched(path, CHARSMAP, table)))


def test_a_normaliser_whose_states_go_round_is_read_to_its_end(tmp_path: Path) -> None:
    """A table in which a byte leads back to where it came from."""
    path = write("xlmr-mean", tmp_path)
    units, texts = units_of(table_of(path))
    root = units[0] >> 10
    place = next(place for place, unit in enumerate(units) if 0x80 <= unit & 0x800000FF < 0x100)
    units[place] = units[place] & 0xFF | (root ^ place) << 10
    check_servable(read_header(patched(path, CHARSMAP, as_table(units, texts))))


def test_the_tables_of_these_tests_are_those_of_sentencepiece() -> None:
    """A table of one character: its three units are where SentencePiece's compiler would put them."""
    units, texts = units_of(compile_map({"a": "b"}))
    assert texts == b"b\0"
    root = units[0] >> 10
    unit = units[root ^ ord("a")]
    assert unit & 0xFF == ord("a")
    assert unit >> 8 & 1
    assert units[(root ^ ord("a")) ^ unit >> 10] == 1 << 31


@pytest.mark.parametrize("which", ["bos", "seperator", "unknown"])
def test_special_tokens_that_are_not_there_are_refused(which: str, tmp_path: Path) -> None:
    """llama.cpp asserts on some, and computes with -1 for others; its own defaults are beyond a small vocabulary."""
    header = read_header(write("bert-cls", tmp_path))
    small = tuple(f"t{number}" for number in range(90))
    told = {f"tokenizer.ggml.{name}_token_id": 1 for name in ("bos", "seperator", "unknown") if name != which}
    facts = {key: value for key, value in header.metadata.items() if not key.endswith("_token_id")}
    facts |= {"tokenizer.ggml.tokens": small, **told}
    with pytest.raises(BadFile, match=f"{which}_token_id"):
        check_sound(dataclasses.replace(header, metadata=facts))
    check_sound(dataclasses.replace(header, metadata={**facts, f"tokenizer.ggml.{which}_token_id": 1}))
