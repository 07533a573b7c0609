"""Measuring: the sizes it chooses, what it leaves alone, and that it comes to a number. Never how large a number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.hardware import Cpu, Machine, Memory, detect
from serving.hardware import measure_disk as disk
from serving.hardware.disk import Mount
from serving.hardware.measure import array_bytes, measure_memory
from serving.hardware.measure_disk import measure_disk

GIB = 1024**3
MIB = 1024**2


def sized(cache: int | None, free: int | None) -> Machine:
    """A machine with so much cache and free memory."""
    return Machine(cpu=Cpu(last_level_cache_bytes=cache), memory=Memory(available_bytes=free))


@pytest.mark.parametrize(
    ("cache", "free", "wanted"),
    [
        (32 * MIB, 16 * GIB, 256 * MIB),
        (1152 * MIB, 512 * GIB, 4608 * MIB),
        (None, 16 * GIB, 256 * MIB),
        (32 * MIB, None, 256 * MIB),
        (32 * MIB, 512 * MIB, None),
        (1152 * MIB, 16 * GIB, None),
    ],
)
def test_arrays_are_larger_than_the_caches_and_smaller_than_memory(
    cache: int | None, free: int | None, wanted: int | None
) -> None:
    """Where both cannot be, nothing is measured."""
    assert array_bytes(sized(cache, free)) == wanted


def test_memory_is_read() -> None:
    """By one thread, and by as many as there are cores; this thread's affinity stays as it was."""
    before = os.sched_getaffinity(0)
    read = measure_memory(detect(), window_s=0.02)
    if read.skipped is None:
        assert read.one_thread_bytes_s
        assert read.all_threads_bytes_s
        assert read.threads == detect().cpu.parallel
    assert os.sched_getaffinity(0) == before


def test_too_little_memory_is_said() -> None:
    """Nothing is allocated."""
    assert "too little memory" in str(measure_memory(sized(32 * MIB, 64 * MIB)).skipped)


def test_a_disk_is_read_and_left_as_it_was(tmp_path: Path) -> None:
    """A number or a reason, and no file."""
    read = measure_disk(tmp_path, size=64 * MIB)
    assert bool(read.read_bytes_s) != bool(read.skipped)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_direct_reads_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are given up first, and how it was done is said."""
    real = os.open

    def refuse(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(disk.os, "open", refuse)
    read = measure_disk(tmp_path, size=64 * MIB)
    assert read.skipped is not None or read.method == "dropped"


def test_what_cannot_be_measured_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such directory, no room, and file systems that lie in memory."""
    assert "cannot" in str(measure_disk(tmp_path / "absent").skipped)
    assert "too little room" in str(measure_disk(tmp_path, size=MIB).skipped)
    monkeypatch.setattr(disk, "mount_of", lambda *_: Mount(tmp_path, "0:50", "tmpfs"))
    assert measure_disk(tmp_path).skipped == "a tmpfs lies in memory"
