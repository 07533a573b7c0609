"""Whatever the bytes, the GGUF reader answers with a header or with BadFile."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadFile
from serving.gguf import Header, read_header
from serving.registry import Model, model_from_file
from tests.support.gguf_bytes import tiny

WHOLE = tiny().encode()
HEADER_END = len(WHOLE) - 64 * 2000 * 4 - 64 * 4
INTERESTING = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])


@settings(max_examples=400, deadline=2000)
@given(
    edits=st.lists(st.tuples(st.integers(0, 420), INTERESTING | st.integers(0, 255)), max_size=8),
    tail=st.lists(st.tuples(st.integers(HEADER_END - 150, HEADER_END), INTERESTING), max_size=4),
    cut=st.none() | st.integers(0, len(WHOLE)),
)
def test_mutated_headers_are_read_or_refused(
    edits: list[tuple[int, int]], tail: list[tuple[int, int]], cut: int | None
) -> None:
    """A mutated file is a model or a BadFile; nothing else is raised, and no tensor lies outside the file."""
    raw = bytearray(WHOLE)
    for at, value in [*edits, *tail]:
        raw[at] = value
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.gguf"
        path.write_bytes(raw[:cut])
        try:
            header = read_header(path)
            model = model_from_file(path)
        except BadFile:
            return
    assert isinstance(header, Header)
    assert isinstance(model, Model)
    assert all(tensor.offset + tensor.size <= header.file_bytes for tensor in header.tensors)


@settings(max_examples=200, deadline=2000)
@given(raw=st.binary(max_size=512))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    """Bytes that are no GGUF file are BadFile, behind the right magic too."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.gguf"
        for content in (raw, b"GGUF\x03\0\0\0" + raw):
            path.write_bytes(content)
            try:
                read_header(path)
            except BadFile:
                continue
