"""Single files, hashed and written whole and on the disk before anybody sees them; directories that are one user's."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.errors import BadSettings, Unverified

if TYPE_CHECKING:
    from serving.store.manifest import StoredFile

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a full disk answers, or a quota."""
_CHUNK: Final = 4 << 20
Progress = Callable[[int], None]
"""Told of each piece that was dealt with: its bytes."""


def digest_of(descriptor: int, progress: Progress = lambda _: None) -> str:
    """SHA-256 of an open file, from its beginning; where it stands is not changed."""
    hasher, at = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, at):
        hasher.update(chunk)
        at += len(chunk)
        progress(len(chunk))
    return hasher.hexdigest()


def is_whole(path: Path, file: StoredFile) -> bool:
    """Whether a regular file of that size and digest lies there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.fstat(descriptor).st_size == file.size and digest_of(descriptor) == file.sha256
    except OSError:
        return False
    finally:
        os.close(descriptor)


def expect(file: StoredFile, sha256: str, size: int, where: str) -> None:
    """Raises Unverified where a file is not the one that was meant."""
    if size != file.size:
        raise Unverified(f"`{file.name}` in {where} has {size:,} bytes, not {file.size:,}", hint="bring it again")
    if sha256 != file.sha256:
        message = f"`{file.name}` in {where} is not what it should be: SHA-256 {sha256[:16]}…, not {file.sha256[:16]}…"
        raise Unverified(message, hint="it was damaged or exchanged on the way; bring it again")


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Replace a file as a whole, on the disk before it is visible. Raises BadSettings."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        hint = "make room" if error.errno in FULL else "let this user write there, or change it where it is kept"
        raise BadSettings(f"`{path}` cannot be written: {error.strerror}", hint=hint) from None


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(directory: Path, setting: str) -> None:
    """Make the directory, which `setting` names, or see that it is this user's alone. Raises BadSettings."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        message = f"the directory `{directory}` cannot be made: {error.strerror}"
        raise BadSettings(message, hint=f"set {setting} to one that this user may write to") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        message = f"the directory `{directory}` is not this user's alone (mode {stat.S_IMODE(facts.st_mode):o})"
        raise BadSettings(message, hint=f"chmod 700 {directory}, as the user that the process runs as")
