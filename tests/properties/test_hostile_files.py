"""Whatever the bytes, the readers of weight files answer with a header or with BadFile, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import gguf, safetensors
from serving.errors import BadFile
from tests.support import hostile_child, worst_files

SOURCE = Path(__file__).parents[2]
MUTANTS = 5000
SEED = 20
"""Of the generator; any will do, and the test is the same each time."""


def child(*arguments: str) -> tuple[int, list[dict], str]:
    """What `hostile_child.py` says of them."""
    ended = subprocess.run(
        [sys.executable, hostile_child.__file__, *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr[-3000:]


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_mutants_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    """Sound files changed in one to three places: each is accepted, or refused in one line that names the file.

    Nothing else is raised, within 2 s of computing for each and 512 MiB for all.
    """
    status, (result,), stderr = child(kind, str(MUTANTS), str(SEED), str(tmp_path))
    assert status == 0, (result, stderr)
    assert result["accepted"] + result["refused"] == MUTANTS
    assert min(result["accepted"], result["refused"]) > MUTANTS // 20, "the mutants are all of one kind"


def test_the_costliest_files_are_read_or_refused_in_bounds() -> None:
    """Files at each bound of the readers, and far beyond it: 2 s and 512 MiB for each, enforced by the kernel."""
    with tempfile.TemporaryDirectory() as folder:  # half a gigabyte that pytest would keep
        files = worst_files.write_all(Path(folder))
        status, results, stderr = child("read", *map(str, files.values()))
    broken = {name: result for name, result in zip(files, results, strict=False) if "broken" in result}
    assert status == 0, (broken, stderr)
    assert len(results) == len(files)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=512))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    """Bytes that are no weight file are BadFile, behind the right beginning too."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a"
        for content in (
            raw,
            b"GGUF\x03\0\0\0" + raw,
            len(raw).to_bytes(8, "little") + raw,
            b"\x10\0\0\0\0\0\0\0{" + raw,
        ):
            path.write_bytes(content)
            for read in (gguf.read_header, safetensors.read_header):
                try:
                    read(path)
                except BadFile:
                    continue
