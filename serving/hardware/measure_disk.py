"""How fast a directory's disk is read from the start of a file to its end, past the page cache."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.hardware.disk import mount_of, read_mounts

_FILE_BYTES = 512 * 1024**2
_LEAST_BYTES = 64 * 1024**2
_ROOM = 4
"""The file takes at most one part in so many of what is free."""
_BLOCK_BYTES = 8 * 1024**2
_WRITE_S = 4.0
_READ_S = 4.0
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")


@dataclass(frozen=True, slots=True)
class DiskRead:
    """Bytes per second of one sequential read."""

    path: Path
    read_bytes_s: float | None = None
    file_bytes: int | None = None
    method: Literal["direct", "dropped"] | None = None
    """`direct`: past the page cache (O_DIRECT); `dropped`: the file's pages were given up before it was read."""
    skipped: str | None = None
    """Why nothing was measured."""


def measure_disk(directory: Path, *, size: int = _FILE_BYTES) -> DiskRead:
    """Write a file without a name into the directory and read it back; at most about 9 s. Nothing is left behind."""
    mount = mount_of(directory.resolve(), read_mounts(Path("/")))
    if mount is not None and mount.filesystem in _IN_MEMORY:
        return DiskRead(directory, skipped=f"a {mount.filesystem} lies in memory")
    try:
        stat = os.statvfs(directory)
        size = min(size, stat.f_bavail * stat.f_frsize // _ROOM) // _BLOCK_BYTES * _BLOCK_BYTES
        if size < _LEAST_BYTES:
            return DiskRead(directory, skipped="too little room for a file to read")
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            written = _write(file.fileno(), size)
            method, rate = _read(file.fileno(), written)
    except OSError as failure:
        return DiskRead(directory, skipped=f"cannot write there: {failure.strerror or failure}")
    return DiskRead(directory, rate, written, method)


def _write(descriptor: int, size: int) -> int:
    """Fill the file with what does not compress, until it is full or the time is up; returns its size."""
    block = os.urandom(_BLOCK_BYTES)
    began = time.monotonic()
    written = 0
    while written < size and (written < _LEAST_BYTES or time.monotonic() - began < _WRITE_S):
        written += os.write(descriptor, block)
        os.fdatasync(descriptor)  # as it goes, so that the end does not wait for all of it
    return written // _BLOCK_BYTES * _BLOCK_BYTES


def _read(descriptor: int, size: int) -> tuple[Literal["direct", "dropped"], float]:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT)
    except OSError:  # file systems without it
        return "dropped", _rate(descriptor, size)
    try:
        return "direct", _rate(direct, size)
    except OSError:
        return "dropped", _rate(descriptor, size)
    finally:
        os.close(direct)


def _rate(descriptor: int, size: int) -> float:
    began = time.monotonic()
    done = 0
    with mmap.mmap(-1, _BLOCK_BYTES) as buffer:  # aligned to a page, as O_DIRECT asks
        while done < size and time.monotonic() - began < _READ_S:
            count = os.preadv(descriptor, [buffer], done)
            if count == 0:
                break
            done += count
    return done / (time.monotonic() - began)
