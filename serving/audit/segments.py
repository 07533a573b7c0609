"""The files of a log: one per segment, in one directory, with one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadSettings
from serving.store.files import sync_directory

_NAME: Final = re.compile(r"audit-(\d{8})\.jsonl")
DIRECTORY_MODE: Final = 0o750
_PATIENCE_S: Final = 3.0
"""For the writer of a server that was killed to write what it had been given, and to end."""
FILE_MODE: Final = 0o640
"""The group may read, so that an auditor needs not be the operator (docs/audit.md)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's file."""

    number: int
    path: Path
    size: int
    """Bytes."""
    modified: float
    """When it was written to last, in seconds since 1970."""


def name_of(number: int) -> str:
    """The name of a segment's file."""
    return f"audit-{number:08d}.jsonl"


def list_segments(directory: Path) -> tuple[Segment, ...]:
    """The segments that are there, by number. Raises BadSettings."""
    try:
        return segments_named(_NAME, directory)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BadSettings(f"the audit log in `{directory}` cannot be read: {error.strerror}") from None


def segments_named(name: re.Pattern[str], directory: Path) -> tuple[Segment, ...]:
    """Files whose whole name is like that, by the number in its first group. Raises OSError."""
    found = []
    for path in directory.iterdir():
        matched = name.fullmatch(path.name)
        if matched:
            status = path.lstat()
            found.append(Segment(int(matched[1]), path, status.st_size, status.st_mtime))
    return tuple(sorted(found, key=lambda segment: segment.number))


def lock(directory: Path) -> int:
    """Make the directory if need be and become its one writer; returns the descriptor that holds the lock.

    Raises BadSettings where another process has it, or it cannot be written to.
    """
    hint = "set audit.directory to a directory that this user may write to"
    try:
        if not directory.exists():
            directory.mkdir(parents=True)
            directory.chmod(DIRECTORY_MODE)
            sync_directory(directory.parent)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BadSettings(f"the audit log cannot be kept in `{directory}`: {error.strerror}", hint=hint) from None
    try:
        _flock_within(descriptor, _PATIENCE_S)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            message = f"another process writes the audit log in `{directory}`"
            raise BadSettings(
                message, hint="a host has one writer; give this server an audit.directory of its own"
            ) from None
        raise BadSettings(f"`{directory}` cannot be locked: {error.strerror}", hint=hint) from None
    return descriptor


def _flock_within(descriptor: int, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def open_to_group(descriptor: int, directory: Path) -> None:
    """Let the directory's group read a file in it. Raises OSError."""
    os.fchmod(descriptor, FILE_MODE)
    with contextlib.suppress(PermissionError):  # not a group of this user's: the directory's setgid bit does it then
        os.fchown(descriptor, -1, directory.stat().st_gid)


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. None keeps without that limit."""

    keep_s: float | None = None
    keep_bytes: int | None = None
    undelivered_bytes: int = 4 << 30
    """What is kept beyond these limits for a receiver that has not got it yet, at most."""


def decide_removal(
    segments: Sequence[Segment], now: float, retention: Retention, delivered_through: int | None
) -> tuple[Segment, ...]:
    """The oldest segments that are too old, or one too many; never the last one, which is being written.

    `delivered_through` is the last segment that has left the host as a whole; None where none has to.
    """
    total = sum(segment.size for segment in segments)
    gone = []
    for segment in segments[:-1]:
        is_old = retention.keep_s is not None and now - segment.modified > retention.keep_s
        is_beyond = retention.keep_bytes is not None and total > retention.keep_bytes
        is_awaited = delivered_through is not None and segment.number > delivered_through
        if not (is_old or is_beyond) or (is_awaited and total <= retention.undelivered_bytes):
            break
        total -= segment.size
        gone.append(segment)
    return tuple(gone)
