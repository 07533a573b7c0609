"""Records leave the host as they arise: each at least once, in order, to where this host cannot change them any more.

The log itself is the spool. A courier reads what is durable from where it was, hands it to its receiver, and keeps the
new place in a file beside the log. It never writes to the log and never holds anybody up; retention waits for it,
within the bound that the settings give.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from serving.audit.book import Durable
from serving.audit.segments import FILE_MODE, list_segments, name_of
from serving.telemetry.logs import facts

log = logging.getLogger(__name__)
_EVERY_S: Final = 0.1
"""Between two looks at what is new: a courier that woke for every write would cost requests their turn."""
_CHUNK: Final = 256 << 10
_LONGEST_WAIT_S: Final = 30.0
"""Between two tries, after several have failed."""
_LAST_S: Final = 5.0
"""For what is still to be delivered when the server stops; the rest goes after the next start."""


class NotDelivered(Exception):
    """A receiver did not take what it was given; to be given again."""


class Receiver(Protocol):
    """Where records go."""

    name: str
    """Names the place that is kept for it: letters, digits and `-`."""

    def deliver(self, lines: bytes) -> None:
        """Hand over whole lines; returns once they are kept there. Raises NotDelivered, OSError."""

    def close(self) -> None:
        """Let go."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """How far a receiver has the log: the segment it is in, and the bytes of it that it has."""

    segment: int = 0
    size: int = 0


class Courier:
    """Carries a log to one receiver, on a thread of its own."""

    def __init__(self, directory: Path, receiver: Receiver) -> None:
        self._directory = directory
        self._receiver = receiver
        self._place = directory / f"delivered-{receiver.name}.json"
        self._stop = threading.Event()
        self._until: Callable[[], Durable] = lambda: Durable(0, 0, 0)
        self._thread = threading.Thread(target=self._run, name=f"audit-{receiver.name}", daemon=True)
        self.delivered = _read_place(self._place)
        """How far the receiver has it."""
        self.problem: str | None = None
        """Why nothing is delivered at present; None where all is well."""

    def start(self, until: Callable[[], Durable]) -> None:
        """Begin; `until` says how far the log is on the disk."""
        self._until = until
        self._thread.start()

    def close(self) -> None:
        """Deliver what is still there, for some seconds at most, and end."""
        self._stop.set()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        wait = _EVERY_S
        while not self._stop.wait(wait):
            wait = _EVERY_S if self._carry() else min(_LONGEST_WAIT_S, 2 * wait)
        self._carry()
        with contextlib.suppress(OSError):
            self._receiver.close()

    def _carry(self) -> bool:
        """Deliver what is new; False where that failed."""
        before = self.delivered
        try:
            while lines := self._next():
                self._receiver.deliver(lines)
                self.delivered = Delivered(self.delivered.segment, self.delivered.size + len(lines))
        except (OSError, NotDelivered) as error:
            reason = str(error) or type(error).__name__
            if self.problem is None:
                log.error(  # noqa: TRY400 - the reason is all that there is to know
                    "audit records do not leave the host", extra=facts(receiver=self._receiver.name, reason=reason)
                )
            self.problem = reason
            return False
        finally:
            if self.delivered != before:
                self._keep_place()
        if self.problem is not None:
            log.warning("audit records leave the host again", extra=facts(receiver=self._receiver.name))
            self.problem = None
        return True

    def _next(self) -> bytes:
        """The next whole lines that are durable; empty where the receiver has all of them."""
        until = self._until()
        if self.delivered.segment == until.segment and self.delivered.size > until.size:
            self.delivered = Delivered(until.segment)  # the log is not what it was: all that there is goes again
        while True:
            at = self.delivered
            size = until.size if at.segment == until.segment else None
            try:
                with (self._directory / name_of(at.segment)).open("rb") as file:
                    file.seek(at.size)
                    raw = file.read(_CHUNK if size is None else max(0, min(_CHUNK, size - at.size)))
                    while raw and b"\n" not in raw and (more := file.read(_CHUNK)):
                        raw += more
            except FileNotFoundError:
                raw = b""
            whole = raw.rfind(b"\n") + 1
            if whole or at.segment >= until.segment:
                return raw[:whole]
            # this segment is delivered, or was removed: on to the next one that is there
            there = [segment.number for segment in list_segments(self._directory) if segment.number > at.segment]
            if not there:
                return b""
            self.delivered = Delivered(there[0])

    def _keep_place(self) -> None:
        """Not synced: an older place only means that some records are delivered twice."""
        temporary = self._place.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(asdict(self.delivered)))
            temporary.replace(self._place)


def _read_place(path: Path) -> Delivered:
    try:
        value = json.loads(path.read_bytes())
        return Delivered(int(value["segment"]), int(value["size"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Delivered()


class FileReceiver:
    """A file that is only ever added to, on storage that this host cannot change afterwards."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, lines: bytes) -> None:
        """Add the lines, durably. The file is opened each time, so that it may be moved away.

        What an earlier try left of a line stays, since nothing is ever taken away; it becomes a line of its own.
        """
        if self._is_torn():
            lines = b"\n" + lines
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, FILE_MODE)
        try:
            done = 0
            while done < len(lines):
                done += os.write(descriptor, lines[done:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Nothing is held."""

    def _is_torn(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        except FileNotFoundError:
            return False
