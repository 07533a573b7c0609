"""The file of a store of tainted texts, and the marker beside it. What a store makes of them is `policy.taint_store`.

A file has a header and blocks of 16 bytes, each encrypted by itself with its place in it: a block that was changed or
moved is no block any more. It is only added to; written anew it gets another name, and the marker, which says which
file counts and how many of its blocks there must be, is renamed over the old one. Whatever is behind them was not
acknowledged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
import secrets
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from serving.errors import StartError

_MAGIC: Final = b"perimeter taint1"
_ID_BYTES: Final = 16
_HEADER_BYTES: Final = len(_MAGIC) + _ID_BYTES + 32
_BLOCK: Final = np.dtype([("number", "<u8"), ("expires", "<u4"), ("check", "<u4")])
"""One block of the cipher. `check` is its place in the file and its kind; `expires` is in minutes since 1970."""
_MARKER: Final = struct.Struct(f"<{_ID_BYTES}sQ")
FINGERPRINT, OPENED, CLOSED, HOLE = range(4)
"""Kinds of blocks: what is remembered; an answer that began, and one that ended; something that was not kept."""
_KINDS: Final = 4
_MOST_BLOCKS: Final = 1 << 27

Blocks = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a directory holds."""

    problem: str | None
    """Why it cannot be relied on; None for a store that is whole."""
    generation: bytes = b""
    """The name of its file."""
    blocks: Blocks = field(default_factory=lambda: np.zeros(0, _BLOCK))
    """What can be read. `check` is the kind alone."""


class TaintFile:
    """The file of a store that is whole, open to be added to; for one thread at a time."""

    def __init__(self, directory: Path, key: bytes, generation: bytes, places: int) -> None:
        """`places` blocks of it count. Raises OSError."""
        self._key, self._generation, self.places = key, generation, places
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(directory / _name(generation), flags)
        try:
            os.ftruncate(self._file, _HEADER_BYTES + places * _BLOCK.itemsize)
            self._marker = os.open(directory / "marker", flags)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, rows: Blocks) -> None:
        """Add blocks, durably. Raises OSError; what is on the disk then does not count."""
        places = self.places + len(rows)
        if places > _MOST_BLOCKS:
            raise OSError(0, "it has no room left")
        raw = _sealed(self._key, self._generation, rows, self.places)
        _write_all(self._file, raw, _HEADER_BYTES + self.places * _BLOCK.itemsize)
        os.fdatasync(self._file)
        _write_all(self._marker, _marker_of(self._key, self._generation, places), 0)
        os.fdatasync(self._marker)
        self.places = places

    def close(self) -> None:
        """Give its descriptors back."""
        os.close(self._file)
        os.close(self._marker)


def rows_of(numbers: Any, expires: Any, kind: int) -> Blocks:
    """Blocks of one kind; `expires` is one minute or one for each."""
    rows = np.zeros(len(numbers), _BLOCK)
    rows["number"] = np.asarray(numbers, np.uint64)
    rows["expires"] = np.asarray(expires, np.uint32)
    rows["check"] = kind
    return rows


def read_contents(directory: Path, key: bytes) -> Contents:
    """What there is, as far as it can be read. Never raises for what is wrong with it."""
    if not directory.is_dir():
        return Contents(f"`{directory}` does not exist: the store was never begun, or is gone")
    facts = directory.stat()
    if facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
        mode = stat.S_IMODE(facts.st_mode)
        return Contents(f"`{directory}` is not this user's alone (mode {mode:o}): anybody may have changed the store")
    try:
        raw = (directory / "marker").read_bytes()
        generation, count = _MARKER.unpack_from(raw.ljust(_MARKER.size))
        if raw != _marker_of(key, generation, count):
            return _salvaged(directory, key, f"the marker in `{directory}` is damaged, or of another key")
        blocks, sound = _blocks(directory / _name(generation), key, generation)
    except OSError as error:
        return _salvaged(directory, key, f"the store in `{directory}` cannot be read: {error.strerror}")
    if len(blocks) < count or not sound[:count].all():
        what = "was cut off" if len(blocks) < count else "is damaged"
        return Contents(f"the store in `{directory}` {what}", generation, blocks[sound])
    return Contents(None, generation, blocks[:count])


def _salvaged(directory: Path, key: bytes, problem: str) -> Contents:
    """What is in the files of a store whose marker says nothing."""
    found = [np.zeros(0, _BLOCK)]
    for path in sorted(directory.glob("fingerprints-*")):
        with contextlib.suppress(OSError, ValueError):
            blocks, sound = _blocks(path, key, bytes.fromhex(path.name.removeprefix("fingerprints-")))
            found.append(blocks[sound])
    return Contents(problem, b"", np.concatenate(found))


def _blocks(path: Path, key: bytes, generation: bytes) -> tuple[Blocks, NDArray[np.bool_]]:
    """The blocks of a file, and which of them are what was written there. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        header = file.read(_HEADER_BYTES)
        raw = file.read(_MOST_BLOCKS * _BLOCK.itemsize)
    if header != _header_of(key, generation):
        return np.zeros(0, _BLOCK), np.zeros(0, np.bool_)
    raw = raw[: len(raw) // _BLOCK.itemsize * _BLOCK.itemsize]
    decryptor = _cipher(key, generation).decryptor()
    blocks = np.frombuffer(decryptor.update(raw) + decryptor.finalize(), _BLOCK).copy()
    sound = blocks["check"] // _KINDS == np.arange(len(blocks), dtype=np.uint32)
    blocks["check"] %= _KINDS
    return blocks, sound


def _sealed(key: bytes, generation: bytes, rows: Blocks, place: int) -> bytes:
    rows = rows.copy()
    rows["check"] += np.arange(place, place + len(rows), dtype=np.uint32) * np.uint32(_KINDS)
    encryptor = _cipher(key, generation).encryptor()
    return encryptor.update(rows.tobytes()) + encryptor.finalize()


def _cipher(key: bytes, generation: bytes) -> Cipher[ECB]:
    own = hmac.digest(key, b"disk " + generation, "sha256")
    return Cipher(AES256(own), ECB())  # noqa: S305  no two blocks of a file are equal: each holds its place


def write_new(directory: Path, key: bytes, rows: Blocks) -> bytes:
    """Write a file with these blocks in place of the one there is, and return its name. Raises OSError.

    The marker's renaming is the moment from which it counts.
    """
    generation = secrets.token_bytes(_ID_BYTES)
    raw = _header_of(key, generation) + _sealed(key, generation, rows, 0)
    _write_file(directory / _name(generation), raw)
    _write_file(directory / "marker.new", _marker_of(key, generation, len(rows)))
    (directory / "marker.new").replace(directory / "marker")
    sync(directory)
    for path in directory.glob("fingerprints-*"):
        if path.name != _name(generation):
            path.unlink()
    return generation


def _write_file(path: Path, raw: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        _write_all(descriptor, raw, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, raw: bytes, at: int) -> None:
    rest = memoryview(raw)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written


def sync(directory: Path) -> None:
    """Make durable which names a directory has. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(directory: Path) -> int:
    """A descriptor that holds the directory; -1 where there is none. Raises StartError where another process does."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        message = f"another process has the store of tainted texts in `{directory}`"
        raise StartError(message, hint="stop it, or give this one a directory of its own") from None
    return descriptor


def _name(generation: bytes) -> str:
    return f"fingerprints-{generation.hex()}"


def _header_of(key: bytes, generation: bytes) -> bytes:
    return _MAGIC + generation + hmac.digest(key, b"header " + generation, "sha256")


def _marker_of(key: bytes, generation: bytes, count: int) -> bytes:
    body = _MARKER.pack(generation, count)
    return body + hmac.digest(key, b"marker " + body, "sha256")
