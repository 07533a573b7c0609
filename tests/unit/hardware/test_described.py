"""A machine by name or file: what it is, and the real cause where it is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import BadFile, FileMissing, UsageError
from serving.hardware.described import described_machine
from serving.hardware.known import machine


def test_a_name_is_a_number_of_a_kind() -> None:
    """In any case."""
    assert described_machine("4xH100") == machine("H100", 4)
    assert described_machine("16xrtx-4090") == machine("RTX-4090", 16)


@pytest.mark.parametrize(
    ("name", "says", "hints"),
    [
        ("17xH100", "`17xH100`: one host has 1 to 16 GPUs", "for example 16xH100"),
        ("0xH100", "`0xH100`: one host has 1 to 16 GPUs", "for example"),
        ("H100", "`H100` does not say how many GPUs", "for example 1xH100"),
        ("xL4", "does not say how many GPUs", "for example 1xL4"),
        ("", "is empty", "serve hardware --json"),
    ],
)
def test_a_name_with_a_slip_is_told_the_slip(name: str, says: str, hints: str) -> None:
    """Not that a file is missing."""
    with pytest.raises(UsageError) as caught:
        described_machine(name)
    assert says in caught.value.message
    assert hints in str(caught.value.hint)


def test_an_unknown_kind_may_have_been_a_file() -> None:
    """Both are said."""
    with pytest.raises(FileMissing, match="no machine file `4xH900`, and no GPU is known"):
        described_machine("4xH900")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# Perimeter", "it is not JSON"),
        ("{}", "neither `cpu` nor `memory`"),
        ("[]", "neither `cpu` nor `memory`"),
        ('{"gpus": []}', "neither `cpu` nor `memory`"),
        ('{"memory": {"total_bytes": -5}}', "`memory.total_bytes` is -5, below 0"),
        ('{"cpu": {}, "gpus": [{"index": 0, "memory_total_bytes": -1}]}', "`gpus.0.memory_total_bytes` is -1"),
        ('{"cpu": {"logical": "x"}}', "`cpu.logical` must be a whole number"),
        ('{"cpu": 5}', "`cpu` must be a table"),
    ],
)
def test_a_file_that_describes_no_machine_is_told_why(text: str, says: str, tmp_path: Path) -> None:
    """In our words, with what makes one."""
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(BadFile) as caught:
        described_machine(str(path))
    assert says in caught.value.message
    assert "serve hardware --json" in str(caught.value.hint)
    with pytest.raises(BadFile, match="directory"):
        described_machine(str(tmp_path))


def test_a_file_with_processors_or_memory_is_enough(tmp_path: Path) -> None:
    """What it leaves out is not known."""
    path = tmp_path / "machine.json"
    path.write_text(json.dumps({"memory": {"total_bytes": 8, "available_bytes": 4}}))
    assert described_machine(str(path)).memory.available_bytes == 4
