"""A log on the disk that one process carries on: every call returns with it durable, or raises and changes nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from serving.audit.chain import Link, Signer, checkpoint_body, head_body, read_entry, write_entry
from serving.audit.records import Recovered, Removed, body_of
from serving.audit.segments import (
    FILE_MODE,
    Retention,
    Segment,
    decide_removal,
    list_segments,
    lock,
    name_of,
    open_to_group,
)
from serving.audit.tail import Tail, Written, digest_of_torn, entries_after, find_tail
from serving.errors import BadSettings
from serving.store.files import sync_directory

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DSYNC
"""With O_DSYNC one call both writes and makes durable."""
Stamped = tuple[str, bytes]
"""A time and a record in canonical form."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a checkpoint is due, and when a segment is full."""

    checkpoint_records: int = 1000
    checkpoint_s: float = 10.0
    segment_bytes: int = 64 << 20
    segment_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Durable:
    """How far the log is on the disk."""

    segment: int
    size: int
    """Bytes of that segment."""
    seq: int


class Clock:
    """The time as entries have it: UTC in microseconds, such as `2026-01-31T12:34:56.000000Z`."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = (0, "")

    def __call__(self) -> str:
        return self.text(time.time_ns())

    def text(self, at_ns: int) -> str:
        """A time in nanoseconds since 1970."""
        second, rest = divmod(at_ns, 1_000_000_000)
        known, text = self._last
        if second != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._last = (second, text)
        return f"{text}.{rest // 1000:06d}Z"


class Book:
    """The log in a directory, open for writing; for one thread at a time."""

    def __init__(
        self, directory: Path, signer: Signer, limits: Limits, clock: Callable[[], str], after: int | None = None
    ) -> None:
        """Open the log in `directory`, or begin one; a torn last line is cut off, and that is recorded.

        `after` is the last entry that is known to be there, where another process had it open until now.

        Raises BadSettings where it cannot be written or another process has it, Unverified where it is broken.
        """
        self._directory = directory
        self._signer = signer
        self._limits = limits
        self._clock = clock
        self._descriptor = -1
        self._is_dirty = False
        """Bytes that count for nothing stand behind the log's end."""
        self._unsigned_since = time.monotonic()
        self._lock = lock(directory)
        try:
            segments = list_segments(directory)
            tail = find_tail(segments, signer, from_checkpoint=after is not None)
            self.found: list[Written] = [] if after is None else entries_after(segments, after)
            """What was written after that one."""
            self._open(tail)
        except OSError as error:
            self.release()
            hint = "make room, or let this user write there"
            message = f"the audit log in `{directory}` cannot be written: {error.strerror}"
            raise BadSettings(message, hint=hint) from None
        except BaseException:
            self.release()
            raise

    @property
    def durable(self) -> Durable:
        """How far it is on the disk."""
        return Durable(self._segment, self._size, self._link.seq)

    @property
    def due_s(self) -> float | None:
        """Seconds until a checkpoint is due; None where all is signed."""
        if not self._unsigned:
            return None
        return max(0.0, self._unsigned_since + self._limits.checkpoint_s - time.monotonic())

    def write(self, records: Sequence[Stamped]) -> int:
        """Write these records, and a checkpoint where one is due; returns the number of the first. Raises OSError."""
        if self._size >= self._limits.segment_bytes or time.time() - self._began >= self._limits.segment_s:
            self.rotate()
        first, link = self._link.seq + 1, self._link
        lines = []
        for at, body in records:
            line, link = write_entry(link, at, body)
            lines.append(line)
        unsigned = self._unsigned + len(lines)
        if unsigned >= self._limits.checkpoint_records:
            line, link = self._checkpoint(link, self._segment)
            lines.append(line)
            unsigned = 0
        self._put(b"".join(lines), link, unsigned)
        return first

    def sign(self) -> None:
        """Write a checkpoint, unless all is signed. Raises OSError."""
        if self._unsigned:
            line, link = self._checkpoint(self._link, self._segment)
            self._put(line, link, 0)

    def rotate(self) -> None:
        """End this segment with a checkpoint, and begin the next. Raises OSError; to be called again then."""
        self.sign()
        self._begin(self._segment + 1)

    def remove_old(self, retention: Retention, delivered_through: int | None) -> tuple[Segment, ...]:
        """Remove the segments that are not to be kept, after that is recorded; returns them. Raises OSError."""
        segments = list_segments(self._directory)
        gone = decide_removal(segments, time.time(), retention, delivered_through)
        if not gone:
            return ()
        with segments[len(gone)].path.open("rb") as file:
            head = read_entry(file.readline().rstrip(b"\n"))
        undelivered = delivered_through is not None and gone[-1].number > delivered_through
        through, digest = gone[-1].number, str(head.record["previous"])
        record = Removed(through_segment=through, through_hash=digest, undelivered=undelivered)
        self.write([(self._clock(), body_of(record))])
        with contextlib.suppress(OSError):  # one that must not be removed stays; tried again with the next segment
            for segment in gone:
                segment.path.unlink()
        sync_directory(self._directory)
        return gone

    def release(self) -> None:
        """Let go of the log as it is."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def _open(self, tail: Tail | None) -> None:
        if tail is None:
            self._log, self._link = secrets.token_hex(16), Link()
            self._begin(1)
            return
        self._log, self._link, self._segment = tail.log or secrets.token_hex(16), tail.link, tail.segment
        if not tail.size:
            self._begin(tail.segment)
        else:
            self._size, self._unsigned = tail.size, tail.unsigned
            self._began = datetime.fromisoformat(tail.began).timestamp()
            self._descriptor = os.open(self._directory / name_of(tail.segment), _FLAGS)
            self._is_dirty = bool(tail.torn)
        if tail.torn:
            record = Recovered(cut_bytes=len(tail.torn), cut_sha256=digest_of_torn(tail.torn))
            self.write([(self._clock(), body_of(record))])

    def _begin(self, segment: int) -> None:
        """Begin a segment: its head and a checkpoint. What an earlier try left of it goes."""
        at = self._clock()
        body = head_body(self._log, segment, self._link, self._signer.fingerprint)
        head, link = write_entry(self._link, at, body)
        checkpoint, link = self._checkpoint(link, segment)
        descriptor = os.open(self._directory / name_of(segment), _FLAGS, FILE_MODE)
        try:
            open_to_group(descriptor, self._directory)
            os.ftruncate(descriptor, 0)
            _write_at(descriptor, head + checkpoint, 0)
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._segment, self._link = descriptor, segment, link
        self._size, self._unsigned, self._is_dirty = len(head) + len(checkpoint), 0, False
        self._began = time.time()

    def _checkpoint(self, link: Link, segment: int) -> tuple[bytes, Link]:
        at = self._clock()
        return write_entry(link, at, checkpoint_body(self._log, segment, link, at, self._signer))

    def _put(self, data: bytes, link: Link, unsigned: int) -> None:
        if self._is_dirty:
            # Overwriting would do only if what is written now were longer.
            os.ftruncate(self._descriptor, self._size)
            self._is_dirty = False
        try:
            _write_at(self._descriptor, data, self._size)
        except OSError:
            self._is_dirty = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        if not self._unsigned:
            self._unsigned_since = time.monotonic()
        self._size += len(data)
        self._link, self._unsigned = link, unsigned


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    done = os.pwrite(descriptor, data, offset)
    while done < len(data):  # a full disk takes a part, and says so when asked again
        done += os.pwrite(descriptor, data[done:], offset + done)
