"""The files of a log: one per segment, in one directory, with one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.audit.chain import CHECKPOINT, HEAD, Entry, Link, NotAnEntry, hash_of, read_entry
from serving.errors import BadSettings, Unverified
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


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a log ends that is opened to be carried on."""

    log: str
    """Its id; empty where it was only about to begin."""
    segment: int
    link: Link
    size: int
    """Bytes of its last segment that are whole."""
    torn: bytes
    """What stands after them: a line that was not ended."""
    unsigned: int
    """Entries after the last checkpoint."""
    began: str
    """When the last segment began."""


def name_of(number: int) -> str:
    """The name of a segment's file."""
    return f"audit-{number:08d}.jsonl"


def list_segments(directory: Path) -> tuple[Segment, ...]:
    """The segments that are there, by number. Raises BadSettings."""
    found = []
    try:
        for path in directory.iterdir():
            matched = _NAME.fullmatch(path.name)
            if matched:
                status = path.lstat()
                found.append(Segment(int(matched[1]), path, status.st_size, status.st_mtime))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BadSettings(f"the audit log in `{directory}` cannot be read: {error.strerror}") from None
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


def find_tail(segments: Sequence[Segment]) -> Tail | None:
    """Where the log ends; None where it has not begun.

    Only a last line without its end is taken for torn. Whatever else is wrong in the last segment was not done by a
    crash: it raises Unverified, and nothing is written behind it.
    """
    if not segments:
        return None
    raw = segments[-1].path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if not whole:
        return _tail_before(segments, raw)
    link, unsigned = Link(), 0
    log = began = ""
    for number, line in enumerate(raw[: whole - 1].split(b"\n"), 1):
        where = f"`{segments[-1].path}`, line {number}"
        try:
            entry = read_entry(line)
        except NotAnEntry as error:
            raise _broken(f"{where} {error}") from None
        if number == 1:
            log, link = _begin(entry, segments[-1].number, where)
            began = entry.at
        if entry.seq != link.seq + 1 or hash_of(link.hash, entry) != entry.hash:
            raise _broken(f"{where} does not follow from the one before")
        link = Link(entry.seq, entry.hash)
        unsigned = 0 if entry.kind == CHECKPOINT else unsigned + 1
    return Tail(log, segments[-1].number, link, whole, raw[whole:], unsigned, began)


def _tail_before(segments: Sequence[Segment], torn: bytes) -> Tail:
    """The end of the segment before one that was only about to begin."""
    before = find_tail(segments[:-1])
    if before is None:
        if segments[-1].number != 1:
            raise _broken(f"`{segments[-1].path}` is empty, and nothing stands before it")
        return Tail("", 1, Link(), 0, torn, 0, "")
    if before.torn:
        raise _broken(f"`{segments[-2].path}` has no end, although another segment was begun")
    return Tail(before.log, segments[-1].number, before.link, 0, torn, 0, "")


def _begin(entry: Entry, segment: int, where: str) -> tuple[str, Link]:
    record = entry.record
    log, previous = record.get("log"), record.get("previous")
    if entry.kind != HEAD or record.get("segment") != segment or not isinstance(log, str):
        raise _broken(f"{where} is not the head of segment {segment}")
    try:
        return log, Link(entry.seq - 1, bytes.fromhex(str(previous)))
    except ValueError:
        raise _broken(f"{where} does not name the hash before it") from None


def _broken(what: str) -> Unverified:
    hint = "`serve audit verify` says more; move the directory away, keep it, and begin a new log"
    return Unverified(f"the audit log is broken: {what}", hint=hint)


def digest_of_torn(torn: bytes) -> str:
    """What is recorded of a line that was cut off."""
    return hashlib.sha256(torn).hexdigest()


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
